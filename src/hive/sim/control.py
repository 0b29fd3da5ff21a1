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
    """The engine as its control routes see it."""

    def state(self) -> SimState:
        """Return a copy of the engine's state."""

    def set_fault(self, fault: InjectedFault) -> None:
        """Set a fault."""

    def clear_faults(self) -> None:
        """Remove all faults."""


async def answer(engine: Controlled, request: SimRequest, connection: SimConnection) -> bool:
    """Answer a request below /sim. No fault affects it. Return False when the connection must close."""
    seen = SeenRequest(0, request.method, request.path, "", (), 0, "", None)
    sender = Sender(connection, request, {}, seen, frozen=lambda: None, hold=_hold_nothing)
    await sender.reply(_decide(engine, request))
    return not sender.must_close


class ControlDesk:
    """The handler of the control port: it answers requests below /sim and no others."""

    def __init__(self, engine: Controlled) -> None:
        self._engine = engine
        self.connections: set[SimConnection] = set()

    def opened(self, connection: SimConnection) -> None:
        """Keep the connection, so that the stop can end it. It is not counted."""
        self.connections.add(connection)

    def closed(self, connection: SimConnection) -> None:
        """Forget the connection."""
        self.connections.discard(connection)

    def early_reply(self, head: SimRequest) -> SimReply | None:
        """Return None: every answer waits for its body."""
        return None

    async def answer(self, request: SimRequest, connection: SimConnection) -> bool:
        """Answer one request. Return False when the connection must close."""
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
    """Do nothing: no fault is planned on the control port, so no request is ever held."""


def _faults(engine: Controlled) -> SimReply:
    return SimReply(200, encode({"faults": engine.state().faults}), JSON)
