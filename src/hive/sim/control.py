"""The engine's remote control: GET /sim/state, POST and DELETE /sim/fault."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from hive.sim.connection import SimConnection
from hive.sim.faults import InjectedFault, make_fault
from hive.sim.ledger import SeenRequest, SimState
from hive.sim.options import OptionError
from hive.sim.sender import Sender
from hive.sim.surfaces import JSON, SimReply
from hive.sim.voices import encode
from hive.sim.wire import SimRequest


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

    def set_fault(self, fault: InjectedFault) -> None:
        """Sets a fault."""

    def clear_faults(self) -> None:
        """Removes all faults."""


async def answer(engine: Controlled, request: SimRequest, connection: SimConnection) -> bool:
    """Answers a request below /sim, which no fault touches; False when the connection has to end."""
    seen = SeenRequest(0, request.method, request.path, "", (), 0, "", None)
    sender = Sender(connection, request, {}, seen, frozen=lambda: None, hold=_hold_nothing)
    await sender.reply(_decide(engine, request))
    return not sender.must_close


class ControlDesk:
    """Answers on the control port: below /sim, and nothing else."""

    def __init__(self, engine: Controlled) -> None:
        self._engine = engine
        self.connections: set[SimConnection] = set()

    def opened(self, connection: SimConnection) -> None:
        """Keeps the connection, to end it at the stop; it is counted nowhere."""
        self.connections.add(connection)

    def closed(self, connection: SimConnection) -> None:
        """Forgets it."""
        self.connections.discard(connection)

    def early_reply(self, head: SimRequest) -> SimReply | None:
        """None."""
        return None

    async def answer(self, request: SimRequest, connection: SimConnection) -> bool:
        """Answers one request; False when the connection has to end."""
        return await answer(self._engine, request, connection)


def _decide(engine: Controlled, request: SimRequest) -> SimReply:
    match request.method, request.path:
        case "GET", "/sim/state":
            return SimReply(200, encode(engine.state()), JSON)
        case "DELETE", "/sim/fault":
            engine.clear_faults()
            return _faults(engine)
        case "POST", "/sim/fault":
            return _set_fault(engine, request)
    known = "known are GET /sim/state, POST /sim/fault and DELETE /sim/fault"
    return SimReply(404, encode({"error": known}), JSON)


def _set_fault(engine: Controlled, request: SimRequest) -> SimReply:
    now = asyncio.get_running_loop().time()
    try:
        order = msgspec.json.decode(request.body, type=FaultOrder)
        fault = make_fault(order.kind, order.arg, count=order.count, path=order.path, now=now)
    except (OptionError, msgspec.DecodeError) as error:
        return SimReply(400, encode({"error": str(error)}), JSON)
    engine.set_fault(fault)
    return _faults(engine)


async def _hold_nothing(fault: InjectedFault) -> None:
    """No fault is planned here, so nothing is ever held."""


def _faults(engine: Controlled) -> SimReply:
    return SimReply(200, encode({"faults": engine.state().faults}), JSON)
