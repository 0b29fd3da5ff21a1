"""The simulated engine without its sockets: it takes requests from connections and has them answered."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import time
from collections.abc import Callable

from hive.sim import control
from hive.sim.catalogue import Catalogue
from hive.sim.connection import SimConnection
from hive.sim.desk import SimDesk
from hive.sim.faults import FaultBook, FaultKind, InjectedFault, Plan
from hive.sim.ledger import Ledger, SeenRequest, SimState
from hive.sim.machine import SimMachine
from hive.sim.options import SimKind, SimOptions
from hive.sim.performer import BUSY, Performer
from hive.sim.route_table import LIST_PATHS, WORK_PATHS, cors, decide
from hive.sim.sender import GO_BUFFER_BYTES, Cut, Sender
from hive.sim.surfaces import SimReply, error_reply
from hive.sim.turns import Pulse, SimTurns
from hive.sim.wire import SimRequest
from hive.sim.words import Vocabulary
from hive.sim.work import Lines, Work

_SERVER_HEADERS = {
    SimKind.LLAMA_CPP: (("Server", "llama.cpp"),),
    SimKind.VLLM: (("Server", "uvicorn"),),
}


class Host:
    """State, faults and answers of one engine."""

    def __init__(self, options: SimOptions) -> None:
        self.options = options
        self.book = FaultBook()
        self.ledger = Ledger(options.remember)
        self.pulse = Pulse()
        self.connections: set[SimConnection] = set()
        self.on_refuse: Callable[[bool], None] = lambda is_refusing: None
        """Called with True when new connections must be refused, and with False when no longer."""
        self.urls = ("", "")
        self._desk = _make_desk(options)
        self._turns = SimTurns(self._desk.machine, self.pulse)
        self._performer = Performer(options, self._turns, self.ledger, time.time_ns, self.hold)

    def set_fault(self, fault: InjectedFault) -> None:
        """Set a fault. It replaces the fault of its kind."""
        self.book.set(fault)
        if fault.kind is FaultKind.REFUSE:
            self.on_refuse(True)
        self.pulse.beat()

    def clear_faults(self) -> None:
        """Remove all faults. Requests that a fault holds go on."""
        was_refusing = FaultKind.REFUSE in self.book.faults
        self.book.clear()
        if was_refusing:
            self.on_refuse(False)
        self.pulse.beat()

    async def hold(self, fault: InjectedFault) -> None:
        """Wait until the fault is cleared or has ended."""
        now = asyncio.get_running_loop().time()
        left = fault.ends_at(now) - now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left if math.isfinite(left) else None):
                await self.pulse.until(lambda: fault.is_cleared)

    def state(self) -> SimState:
        """Return a copy of the engine's state."""
        machine, ledger = self._desk.machine, self.ledger
        return SimState(
            url=self.urls[0],
            control_url=self.urls[1],
            received=dict(ledger.received),
            running=machine.running,
            waiting=machine.waiting,
            finished=ledger.finished,
            cancelled=ledger.cancelled,
            cut=ledger.cut,
            tokens=ledger.tokens,
            loads=machine.loads,
            loads_aborted=machine.loads_aborted,
            loads_failed=machine.loads_failed,
            unloads=machine.unloads,
            loaded=sorted(name for name, runner in machine.runners.items() if runner.loader is None),
            connections_open=ledger.connections_open,
            connections_total=ledger.connections_total,
            faults=list(self.book.faults),
            requests=[copy.copy(request) for request in ledger.requests],
        )

    def opened(self, connection: SimConnection) -> None:
        """Count a connection."""
        self.connections.add(connection)
        self.ledger.connections_open += 1
        self.ledger.connections_total += 1
        self.pulse.beat()

    def closed(self, connection: SimConnection) -> None:
        """Count a connection as closed."""
        self.connections.discard(connection)
        self.ledger.connections_open -= 1
        self.pulse.beat()

    def early_reply(self, head: SimRequest) -> SimReply | None:
        """Return Ollama's answer to the upload of a blob that it already has: it comes before the body is read.

        The source is routes.go, CreateBlobHandler.
        """
        digest = head.path.removeprefix("/api/blobs/")
        if head.method != "POST" or digest not in self._desk.catalogue.blobs:
            return None
        seen = self.ledger.note(head)
        seen.status, seen.outcome = 200, "finished"
        return SimReply(200)

    async def answer(self, request: SimRequest, connection: SimConnection) -> bool:
        """Answer one request. Return False when the connection must close."""
        if request.path.startswith("/sim/"):
            return await control.answer(self, request, connection)
        path = request.path
        seen = self.ledger.note(request)
        plan = self.book.plan(path, is_work=_is_work(request), is_list=path in LIST_PATHS)
        seen.faults += plan
        self.pulse.beat()
        sender = self._sender(request, connection, plan, seen)
        try:
            await self._answer(request, sender, plan)
        except asyncio.CancelledError:
            if connection.has_departed:
                seen.outcome = "cancelled"
                self.ledger.cancelled += 1
            raise
        except Cut:
            seen.outcome = "cut"
            self.ledger.cut += 1
            raise
        finally:
            self.pulse.beat()
        seen.outcome = "finished"
        self.pulse.beat()
        return not sender.must_close

    def stop(self) -> None:
        """Stop the timer."""
        self._turns.stop()

    def _sender(self, request: SimRequest, connection: SimConnection, plan: Plan, seen: SeenRequest) -> Sender:
        kind, path = self.options.kind, request.path

        def frozen() -> InjectedFault | None:
            return self.book.freeze(path, asyncio.get_running_loop().time()) if self.book.faults else None

        headers = (*_SERVER_HEADERS.get(kind, ()), *cors(kind, request))
        limit = GO_BUFFER_BYTES if kind is SimKind.OLLAMA else None
        return Sender(
            connection,
            request,
            plan,
            seen,
            frozen=frozen,
            hold=self.hold,
            headers=headers,
            counts_up_to=limit,
        )

    async def _answer(self, request: SimRequest, sender: Sender, plan: Plan) -> None:
        if fault := plan.get(FaultKind.FREEZE):
            await self.hold(fault)
        self._desk.monotonic_now = asyncio.get_running_loop().time()
        self._turns.pump()
        self._desk.has_wrong_digests = FaultKind.WRONG_DIGEST in plan
        decision = self._refusal(request, plan) or decide(self._desk, request)
        self._turns.pump()
        match decision:
            case SimReply():
                await sender.reply(decision)
            case Lines():
                await self._performer.lines(decision, sender, plan)
            case Work():
                is_loaded = self._desk.machine.has_loaded(decision.model, decision.num_ctx)
                failure = None if is_loaded else self.book.load_failure(request.path)
                await self._performer.work(decision, request.path, sender, plan, failure)

    def _refusal(self, request: SimRequest, plan: Plan) -> SimReply | None:
        kind, path = self.options.kind, request.path
        if FaultKind.BAD_CREDENTIALS in plan:
            return error_reply(kind, path, 401, "unauthorized")
        if FaultKind.BUSY in plan:
            return error_reply(kind, path, 503, BUSY)
        if fault := plan.get(FaultKind.ERROR_500):
            return error_reply(kind, path, 500, fault.text)
        if FaultKind.LOST_MODEL in plan:
            return self._desk.missing_model(request)
        return None


def _make_desk(options: SimOptions) -> SimDesk:
    catalogue = Catalogue()
    now = time.time()
    for place, name in enumerate(options.models):
        catalogue.add(name, now - place)
    machine = SimMachine(options.slots, options.max_loaded, options.max_queue, options.load_time, options.keep_alive)
    if options.kind is not SimKind.OLLAMA:
        for name in catalogue.models:
            machine.preload(catalogue.models[name].name, options.context_length)
    return SimDesk(options, catalogue, machine, Vocabulary(options.seed), time.time_ns)


def _is_work(request: SimRequest) -> bool:
    """Does the request make a model work? (A request to embed nothing only loads a model.)"""
    return request.path in WORK_PATHS and not (request.path == "/api/embed" and b'"input"' not in request.body)
