"""A simulated exchange: it waits, attempts, and ends once. What follows an attempt is decided by the hub's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hive import errors
from hive.dialects.measures import Measured
from hive.dialects.tasks import CHAT, Dialect, Task
from hive.errors import Fault, Kind
from hive.fleet.engines import Engine, Health
from hive.fleet.failures import Row, judge
from hive.scheduling import failover
from hive.scheduling.failover import Act as Following
from hive.scheduling.failover import Case, End, NextStep, Note
from hive.scheduling.silence import AttemptSilence
from hive.scheduling.tickets import Lease, Ticket

from .clock import Act
from .machine import Caller, Job

if TYPE_CHECKING:
    from .hub import SimulatedHub

CONNECT_TIMEOUT = 3.0


@dataclass(slots=True)
class Request:
    """What one client wants. `leaves_after` seconds it goes away, unless it was answered."""

    number: int
    model: str
    prompt: int = 200
    output: int = 100
    has_tools: bool = False
    leaves_after: float | None = None
    task: Task = CHAT


class _Attempt(Caller):
    """One attempt on one engine; what comes after its end is not heard."""

    def __init__(self, exchange: Exchange, lease: Lease, job_model: str, prompt: int, output: int, now: float) -> None:
        self.exchange, self.lease = exchange, lease
        self.job = Job(job_model, prompt, output, self)
        self.started_at = self.last_byte_at = now
        self.first_byte_at: float | None = None
        self.pieces = 0
        self.is_over = False

    def on_piece(self, number: int) -> None:
        self._hear(lambda: self.exchange.on_piece(self, number))

    def on_end(self, pieces: int, measured: Measured) -> None:
        self._hear(lambda: self.exchange.on_end(self, pieces, measured))

    def on_refusal(self, status: int, body: bytes) -> None:
        self._hear(lambda: self.exchange.on_refusal(self, status, body))

    def on_broken(self) -> None:
        self._hear(lambda: self.exchange.on_broken(self, errors.NODE_BROKE_OFF, "it broke off"))

    def on_unreachable(self) -> None:
        self._hear(lambda: self.exchange.on_unreachable(self))

    def _hear(self, act: Act) -> None:
        self.exchange.hub.receive(lambda: None if self.is_over else act())


class Exchange:
    """One client's request on its way."""

    def __init__(self, hub: SimulatedHub, request: Request) -> None:
        self.hub, self.request = hub, request
        now = hub.now()
        self.began_at = now
        self.first_byte_at: float | None = None
        self.outcome = ""
        deadline = now + hub.rules.queue_timeout
        self.ticket = Ticket(
            request.model, request.task, Dialect.OLLAMA, deadline, frontend=hub.frontend, prompt_tokens=request.prompt
        )
        self.attempt: _Attempt | None = None
        self.attempts = 0
        self.unreached: list[Engine] = []

    def begin(self) -> None:
        """Take a ticket."""
        if self.request.leaves_after is not None:
            self.hub.clock.after(self.request.leaves_after, lambda: self.hub.receive(self.leave))
        self._queue()

    def leave(self) -> None:
        """The client goes away."""
        if not self.outcome:
            self.hub.dispatcher.cancel(self.ticket)
            self.hub.waiting.pop(self.ticket.number, None)
            attempt = self.attempt
            self._finish("client gone")
            if attempt is not None:
                self._end_attempt(attempt, cancels=True)

    def take(self, lease: Lease) -> None:
        """Run on an engine."""
        hub, engine = self.hub, lease.engine
        hub.audit.tell(f"#{self.request.number} {self.request.model} -> {engine.node}: {lease.reason}")
        hub.audit.granted(lease, hub.dispatcher.waiting(), engine.slots)
        attempt = _Attempt(self, lease, self.request.model, self.request.prompt, self.request.output, hub.now())
        self.attempt = attempt
        self.attempts += 1
        hub.signs(engine).computing += 1
        machine = hub.machines[engine]
        if machine.network.is_cut:
            hub.clock.after(CONNECT_TIMEOUT, attempt.on_unreachable)
        elif machine.is_down:
            machine.network.send("up", lambda: machine.network.send("down", attempt.on_unreachable))
        else:
            machine.network.send("up", lambda: machine.submit(attempt.job))

    def refuse(self, fault: Fault) -> None:
        """The queue gave it up."""
        self._finish(f"{fault.kind.status} {fault.kind.code}: {fault.message}")

    def on_piece(self, attempt: _Attempt, number: int) -> None:
        """A piece of the answer goes to the client."""
        now, signs = self.hub.now(), self.hub.signs(attempt.lease.engine)
        self.hub.audit.demand(
            number == attempt.pieces, f"request {self.request.number} got piece {number} out of order"
        )
        attempt.pieces += 1
        if attempt.first_byte_at is None:
            self.hub.audit.demand(self.first_byte_at is None, f"request {self.request.number} began twice")
            attempt.first_byte_at = self.first_byte_at = now
            signs.computing -= 1
            signs.streams += 1
        attempt.last_byte_at = signs.last_sign = signs.last_stream_byte = signs.last_answer_byte = now

    def on_end(self, attempt: _Attempt, pieces: int, measured: Measured) -> None:
        """The answer is whole."""
        whole = pieces == attempt.pieces
        self.hub.audit.demand(whole, f"request {self.request.number} got {attempt.pieces} of {pieces} pieces")
        now, engine = self.hub.now(), attempt.lease.engine
        self.hub.dispatcher.note_served(attempt.lease, measured, now)
        signs = self.hub.signs(engine)
        signs.last_sign = now
        signs.served += 1
        signs.blames = signs.busies = 0
        self._consider(attempt, End.DELIVERED, "")

    def on_refusal(self, attempt: _Attempt, status: int, body: bytes) -> None:
        """The engine refused; the table says what that means."""
        engine = attempt.lease.engine
        self.hub.signs(engine).last_sign = self.hub.now()
        row = judge(engine.known.kind, status, body, engine.known.version)
        self._consider(attempt, failover.end_of_refusal(row), f"{status} of {engine.node}: {body.decode()}", row)

    def on_broken(self, attempt: _Attempt, kind: Kind, reason: str) -> None:
        """The connection broke, or the hub gave up hope."""
        end = failover.end_of_failure(kind, has_begun=attempt.first_byte_at is not None)
        self._consider(attempt, end, f"node {attempt.lease.engine.node}: {reason}")

    def on_unreachable(self, attempt: _Attempt) -> None:
        """The engine never heard of it."""
        engine = attempt.lease.engine
        self.hub.note_unreachable(engine, "no connection")
        if engine.health is Health.DOWN:
            self.unreached.append(engine)
        self._consider(attempt, End.UNREACHABLE, f"node {engine.node}: no connection")

    def check_deadlines(self, now: float) -> None:
        """End an attempt whose engine is silent for too long."""
        attempt = self.attempt
        if attempt is None or attempt.is_over:
            return
        has_begun, has_tools = attempt.first_byte_at is not None, self.request.has_tools
        silence = AttemptSilence(attempt.lease, attempt.last_byte_at, has_begun, has_tools)
        having = self.hub.fleet.having(self.request.model)
        has_elsewhere = failover.may_try_again(self.attempts, is_last=False) and failover.has_elsewhere(
            having, self.ticket, attempt.lease.engine
        )
        fault = silence.fault(self.hub.dispatcher.estimates, now, has_elsewhere=has_elsewhere)
        if fault is not None:
            self.on_broken(attempt, fault.kind, fault.message)

    # --- ends ---

    def _consider(self, attempt: _Attempt, end: End, words: str, row: Row | None = None) -> None:
        """Do what the hub's table says."""
        engine = attempt.lease.engine
        left = failover.what_is_left(self.hub.fleet.having(self.request.model), self.ticket, engine, self.hub.now())
        step = failover.decide(Case(end, self.attempts, self.unreached.count(engine), left=left, row=row))
        self._note(attempt, step)
        if not step.comes_back:
            how = {Following.NOTHING: "ok", Following.BREAK_OFF: f"broken off: {words}"}
            self._finish(how.get(step.act, f"failed: {words}"))
        self._end_attempt(attempt, cancels=end not in (End.DELIVERED, End.UNREACHABLE, End.BUSY))
        if step.comes_back:
            self._queue()

    def _note(self, attempt: _Attempt, step: NextStep) -> None:
        engine, dispatcher, now = attempt.lease.engine, self.hub.dispatcher, self.hub.now()
        if not step.counts:
            self.attempts -= 1
        if step.note is Note.BUSY:
            dispatcher.note_busy(engine, now)
        elif step.note is Note.INSIDE:
            dispatcher.note_inside(attempt.lease, now)
        if step.blames:
            signs = self.hub.signs(engine)
            signs.blames += 1
            dispatcher.rest(engine, now + failover.blamed_rest(signs.blames))
        if step.excludes:
            self.ticket.excluded.add(engine)
        if step.forgives:
            self.ticket.excluded.clear()

    def _queue(self) -> None:
        if self.outcome:
            return
        hub = self.hub
        try:
            lease = hub.dispatcher.offer(self.ticket, hub.now())
        except Fault as fault:
            self.refuse(fault)
            return
        if lease is not None:
            self.take(lease)
            return
        hub.waiting[self.ticket.number] = self
        if hub.dispatcher.has_news:
            hub.serve()

    def _end_attempt(self, attempt: _Attempt, *, cancels: bool = False) -> None:
        attempt.is_over = True
        signs = self.hub.signs(attempt.lease.engine)
        if attempt.first_byte_at is None:
            signs.computing -= 1
        else:
            signs.streams -= 1
        if self.attempt is attempt:
            self.attempt = None
        if cancels:
            machine = self.hub.machines[attempt.lease.engine]
            machine.network.send("up", lambda: machine.leave(attempt.job))
        self.hub.release(attempt.lease)

    def _finish(self, outcome: str) -> None:
        self.outcome = outcome
        self.hub.audit.tell(f"#{self.request.number} {outcome}")
        self.hub.audit.answered(self.request.number, outcome)
        self.hub.exchanges.pop(self.request.number, None)
        self.hub.ended.append(self)
