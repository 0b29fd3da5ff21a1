"""The simulated engine as a program: it reads texts of the command line and serves until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import Sequence

import msgspec

from hive.sim.engine import SimulatedEngine
from hive.sim.faults import FAULTS, Argument, make_fault, split_fault
from hive.sim.options import OptionError, SimKind, SimOptions, ToolCall


def read_kind(text: str) -> SimKind:
    """Return the kind of this name. Raises OptionError with the allowed names."""
    try:
        return SimKind(text)
    except ValueError:
        raise OptionError(f"kind '{text}' is unknown; allowed are {', '.join(SimKind)}") from None


def read_tool_call(text: str) -> ToolCall | None:
    """Return the call written as `NAME` or `NAME:{"argument": ...}`; None for an empty text."""
    name, _, arguments = text.partition(":")
    if not text:
        return None
    try:
        return ToolCall(name, msgspec.json.decode(arguments or "{}", type=dict[str, object]))
    except msgspec.DecodeError:
        raise OptionError(f"tool-call: expected a JSON object after the name, got '{arguments}'") from None


def check_faults(faults: Sequence[str]) -> None:
    """Raise OptionError when one of the texts is not a fault."""
    for text in faults:
        make_fault(*split_fault(text))


def fault_table() -> str:
    """Return every fault with its argument and effect, one a line."""
    lines = []
    for kind, row in FAULTS.items():
        takes = "" if row.argument is Argument.NONE else f" [{row.argument.value}]"
        lines.append(f"{kind:<18} {row.effect}{takes}; strikes {row.reach.value}")
    return "\n".join(lines)


def serve(options: SimOptions, host: str, port: int, faults: Sequence[str] = ()) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code: 1 when the address cannot be used."""
    try:
        asyncio.run(_serve(options, host, port, faults))
    except KeyboardInterrupt:  # before the handlers are set
        return 0
    except (OSError, OverflowError) as error:
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "is taken" if is_taken else f"cannot be used: {getattr(error, 'strerror', None) or error}"
        print(f"hive sim: port {port} of {host} {reason}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: SimOptions, host: str, port: int, faults: Sequence[str]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stopped.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    async with SimulatedEngine(options, host=host, port=port) as engine:
        for fault in faults:
            engine.set_fault(*split_fault(fault))
        print(f"simulated {options.kind} engine on {engine.url} (control on {engine.control_url})", flush=True)
        await stopped.wait()
