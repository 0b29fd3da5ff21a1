"""What Hive ships for tests: an engine that is simulated, honest about it, and faulty on demand."""

from hive.testing.engine import SimulatedEngine
from hive.testing.sim.ledger import SeenRequest, SimState
from hive.testing.sim.options import EngineKind, OptionError, SimOptions, ToolCall
from hive.testing.thread import ThreadedEngine, run_in_thread

__all__ = [
    "EngineKind",
    "OptionError",
    "SeenRequest",
    "SimOptions",
    "SimState",
    "SimulatedEngine",
    "ThreadedEngine",
    "ToolCall",
    "run_in_thread",
]
