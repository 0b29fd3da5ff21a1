"""Test doubles that Hive ships: a simulated engine, a scripted engine, an agent, and a whole hub."""

from hive.sim.engine import SimulatedEngine
from hive.sim.ledger import SeenRequest, SimState
from hive.sim.options import OptionError, SimKind, SimOptions, ToolCall
from hive.testing.thread import ThreadedEngine, run_in_thread

__all__ = [
    "OptionError",
    "SeenRequest",
    "SimKind",
    "SimOptions",
    "SimState",
    "SimulatedEngine",
    "ThreadedEngine",
    "ToolCall",
    "run_in_thread",
]
