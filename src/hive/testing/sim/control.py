"""The engine's remote control: GET /sim/state, POST and DELETE /sim/fault."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from hive.testing.sim.connection import Connection
from hive.testing.sim.faults import Fault, make_fault
from hive.testing.sim.ledger import SeenRequest, SimState
from hive.testing.sim.options import OptionError
from hive.testing.sim.sender import Sender
from hive.testing.sim.surfaces import JSON, Reply
from hive.testing.sim.voices import encode
from hive.testing.sim.wire import Request


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /sim/fault."""

    kind: str
    arg: str | float | None = None
    count: int | None = None
    path: str | None = None


class Controlled(Protocol):
    """What can be controlled."""

    def state(self) -> SimState:
        """A copy of what can be known."""

    def set_fault(self, fault: Fault) -> None:
        """Sets a fault."""

    def clear_faults(self) -> None:
        """Removes all faults."""


async def answer(engine: Controlled, request: Request, connection: Connection) -> bool:
    """Answers a request below /sim, which no fault touches; False when the connection has to end."""
    seen = SeenRequest(0, request.method, request.path, "", (), 0, "", None)
    sender = Sender(connection, request, {}, seen, frozen=lambda: None, hold=_hold_nothing)
    await sender.reply(_decide(engine, request))
    return not sender.must_close


class ControlDesk:
    """Answers on the control port: below /sim, and nothing else."""

    def __init__(self, engine: Controlled) -> None:
        self._engine = engine
        self.connections: set[Connection] = set()

    def opened(self, connection: Connection) -> None:
        """Keeps the connection, to end it at the stop; it is counted nowhere."""
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """Forgets it."""
        self.connections.discard(connection)

    def early_reply(self, head: Request) -> Reply | None:
        """None."""
        return None

    async def answer(self, request: Request, connection: Connection) -> bool:
        """Answers one request; False when the connection has to end."""
        return await answer(self._engine, request, connection)


def _decide(engine: Controlled, request: Request) -> Reply:
    match request.method, request.path:
        case "GET", "/sim/state":
            return Reply(200, encode(engine.state()), JSON)
        case "DELETE", "/sim/fault":
            engine.clear_faults()
            return _faults(engine)
        case "POST", "/sim/fault":
            return _set_fault(engine, request)
    known = "known are GET /sim/state, POST /sim/fault and DELETE /sim/fault"
    return Reply(404, encode({"error": known}), JSON)


def _set_fault(engine: Controlled, request: Request) -> Reply:
    now = asyncio.get_running_loop().time()
    try:
        order = msgspec.json.decode(request.body, type=FaultOrder)
        fault = make_fault(order.kind, order.arg, count=order.count, path=order.path, now=now)
    except (OptionError, msgspec.DecodeError) as error:
        return Reply(400, encode({"error": str(error)}), JSON)
    engine.set_fault(fault)
    return _faults(engine)


async def _hold_nothing(fault: Fault) -> None:
    """No fault is planned here, so nothing is ever held."""


def _faults(engine: Controlled) -> Reply:
    return Reply(200, encode({"faults": engine.state().faults}), JSON)
