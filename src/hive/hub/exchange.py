"""The life of one client request to an engine: read, wait for a slot, relay, try elsewhere, account.

It decides; the bytes move by callbacks (`hub.relay`) and do not wake it until the end. Whatever happens, it
gives back the slot and the connection, and the client gets one whole answer or one honest error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hive import errors
from hive.dialects.error_shapes import error_answer
from hive.dialects.fields import RoutingFields, read_fields
from hive.dialects.routes import BodyForm
from hive.dialects.tasks import Dialect
from hive.errors import Family, Fault
from hive.fleet.engines import Engine, Health
from hive.fleet.failures import Verdict, judge
from hive.fleet.model_names import MAX_NAME, canonical, is_valid, unknown_model_text
from hive.hub.attempt import Attempt, Wanted
from hive.hub.plan import Plan
from hive.hub.progress import Progress, Stage
from hive.hub.records import Outcome, Record, outcome_of
from hive.hub.relay import Relay, Result
from hive.hub.runner import Runner
from hive.net.stream import ClientStream
from hive.scheduling.refusals import not_served
from hive.scheduling.tickets import Lease, Ticket, claim_of
from hive.scheduling.waits import why_waiting
from hive.wire.coding import decode_body
from hive.wire.forwarding import response_fields
from hive.wire.multipart import read_model

if TYPE_CHECKING:
    from hive.hub.exchange_services import ExchangeServices

_log = logging.getLogger(__name__)

MAX_OTHER_NODES = 2
MAX_UNREACHED = 3
"""Times that an engine which seems up may prove unreachable in one exchange."""
BYTES_A_TOKEN = 4
"""Of a request's body, about, where nobody has counted."""
MOST_TOKENS = 16_000
"""A longer body is more likely to hold pictures."""
NOTHING_READ = RoutingFields()
_FEW = 32
"""So many engines are looked at to say why a request waits."""


class Exchange:
    """One request on its way. `run` never raises but for cancellation, which means that the client is gone."""

    def __init__(self, hub: ExchangeServices, stream: ClientStream, plan: Plan) -> None:
        self._hub = hub
        self._stream = stream
        self._plan = plan
        self._route = plan.route
        assert plan.route.task is not None, "an exchange is for a route that an engine answers"
        self._task = plan.route.task
        self._fields = plan.fields
        self._body = stream.body
        self._model = ""
        self._routing = NOTHING_READ
        self.began_at = hub.now()
        self._is_last_attempt = False
        self._unreached: list[Engine] = []
        self._runner: Runner | None = None
        self._waits_since: float | None = None
        self.ticket: Ticket | None = None
        """Its wish for a slot, from when its model is known."""
        self.attempt: Attempt | None = None
        """The attempt under way, or the last one."""
        self.leases: list[Lease] = []
        """Of all attempts: each says why it went there."""
        self.record = Record(
            request_id=stream.request_id,
            operation=plan.route.name,
            key=plan.principal.name,
            key_id=plan.principal.id,
            bytes_in=len(stream.body),
        )

    def __repr__(self) -> str:
        return f"<Exchange {self.record.request_id} {self.record.operation} {self._model} on {self.record.node}>"

    def start(self) -> None:
        """Begin to serve; the client's departure ends it."""
        self._runner = runner = Runner(self.run())
        self._stream.on_departure = runner.cancel
        runner.start()

    async def run(self) -> None:
        """Serve the request to its end and account for it."""
        self._hub.exchanges.add(self)
        try:
            await self._read()
            if not self._find_model():
                await self._hub.spawn(self._hub.first_look())
                self._check_model()
            await self._serve()
        except Fault as fault:
            self._answer_fault(fault)
        except asyncio.CancelledError:
            if self._stream.has_departed:
                self.record.outcome = Outcome.CLIENT_GONE
            raise
        except Exception:
            _log.exception("exchange %s", self.record.request_id)
            self._answer_fault(Fault(errors.INTERNAL, f"the hub made a mistake; its log has {self.record.request_id}"))
        finally:
            self._account()

    # --- before the queue ---

    async def _read(self) -> None:
        route, head = self._route, self._stream.head
        encoding = head.fields.get(b"content-encoding")
        if encoding is not None:
            most = self._stream.max_body_bytes
            self._body = await asyncio.to_thread(decode_body, self._body, encoding, most)
            self._stream.replace_body(self._body)
            self.record.bytes_in = len(self._body)
        if route.form is BodyForm.MULTIPART:
            self._routing = RoutingFields(read_model(self._body, head.fields.get(b"content-type", b"")))
        else:
            is_ollama = route.dialect is Dialect.OLLAMA
            self._routing = read_fields(self._body, reads_name=route.reads_name, is_ollama=is_ollama)

    def _find_model(self) -> bool:
        """Learn which model is meant; False when no engine has it."""
        if not self._routing.model and not self._route.unnamed_is_unknown:
            raise Fault(errors.MODEL_REQUIRED, "model is required")
        if len(self._routing.model) > MAX_NAME:
            raise Fault(errors.INVALID_MODEL_NAME, "invalid model name")
        key = canonical(self._routing.model)
        if not self._hub.fleet.having(key):
            return False
        self._model = self.record.model = key
        return True

    def _check_model(self) -> None:
        """Look once more, after all nodes have been asked. Raises `Fault` for a model that no engine has."""
        name = self._routing.model
        if self._find_model():
            return
        if name and not is_valid(name):
            raise Fault(errors.INVALID_MODEL_NAME, "invalid model name")
        raise Fault(errors.MODEL_NOT_FOUND, unknown_model_text(self._route, name))

    # --- attempts ---

    async def _serve(self) -> None:
        hub, record, routing = self._hub, self.record, self._routing
        plan, route, task = self._plan, self._route, self._task
        wanted = Wanted(route, task, self._model, routing, self._body, self._fields)
        ticket = self.ticket = Ticket(
            self._model,
            task,
            route.dialect,
            deadline=0,
            claim=claim_of(
                task,
                unloads=routing.unloads and task.streams,
                is_relayed=hub.fleet.only_relays(self._model),
            ),
            frontend=plan.frontend,
            principal=plan.principal,
            prompt_tokens=min(len(self._body) // BYTES_A_TOKEN, MOST_TOKENS),
            load_options=routing.load_options,
        )
        is_over = comes_back = False
        while not is_over:
            comes_back = False
            ticket.deadline = hub.now() + self._plan.frontend.queue_timeout - record.queued_ms / 1000
            lease = hub.queue.try_lease(ticket)
            if lease is None:
                lease = await self._wait(ticket)
            self.leases.append(lease)
            record.node, record.why = lease.engine.node, lease.reason
            record.attempts += 1
            attempt = self.attempt = Attempt(hub, self._stream, wanted, lease)
            try:
                relay = await attempt.run(self._answer_fields())
                lease.failure = attempt.failure(relay)
                is_over = self._consider(relay, lease.engine, ticket)
                comes_back = not is_over
                if relay is not None and relay.finished.value is Result.DELIVERED:
                    hub.queue.note_served(lease, attempt.measured)
            finally:
                self._note_first_byte(attempt)
                hub.queue.release(lease, comes_back=comes_back)

    def _answer_fields(self) -> bytes:
        """Return the header lines of an answer that came from a node."""
        record = self.record
        return self._fields + b"X-Hive-Node: %b\r\nX-Hive-Attempts: %d\r\n" % (record.node.encode(), record.attempts)

    def _note_first_byte(self, attempt: Attempt) -> None:
        relay = attempt.relay
        if relay is not None and relay.first_byte_at is not None:
            self.record.first_byte_ms = (relay.first_byte_at - self.began_at) * 1000

    async def _wait(self, ticket: Ticket) -> Lease:
        hub = self._hub
        since = self._waits_since = hub.now()
        try:
            self._check_route()
            reason = why_waiting(ticket, hub.fleet.having(self._model)[:_FEW], since)
            lease = await hub.queue.wait(ticket)
            lease.waited_for = reason
            return lease
        finally:
            self._waits_since = None
            hub.queue.forget(ticket)
            self.record.queued_ms += (hub.now() - since) * 1000

    def _check_route(self) -> None:
        """Raise `Fault` when waiting is in vain, because no engine with the model has the route."""
        engines = self._hub.fleet.having(self._model)
        task, dialect = self._task, self._route.dialect
        if engines and not any(engine.route_for(task, dialect) for engine in engines):
            raise not_served(task, dialect, engines)

    def _consider(self, relay: Relay | None, engine: Engine, ticket: Ticket) -> bool:
        """Return whether the client has been answered. Raises `Fault` when nobody else may be tried."""
        record = self.record
        if relay is None:
            # The engine never heard of the request: the ticket waits for whoever is up, this one included.
            record.attempts -= 1
            if engine.health is Health.DOWN:  # as was just noted: its node is not merely short of connections
                self._unreached.append(engine)
            if self._unreached.count(engine) < MAX_UNREACHED:
                return False
            ticket.excluded.add(engine)
            if any(ticket.accepts(other) for other in self._hub.fleet.having(self._model)):
                return False
            raise Fault(errors.NODE_UNREACHABLE, f"node {engine.node!r} seems to be up and cannot be reached")
        result = relay.finished.value
        if result is Result.DELIVERED or result is Result.ENGINE_ERROR:
            record.status = relay.head.status if relay.head else 0
            if result is Result.ENGINE_ERROR:
                record.outcome, record.error = Outcome.NODE_ERROR, "engine_error"
            return True
        if result is Result.REFUSED:
            return self._consider_refusal(relay, engine, ticket)
        assert relay.fault is not None
        if relay.fault.kind is errors.NODE_BUSY and not relay.has_begun and not self._is_last_attempt:
            record.attempts -= 1
            self._hub.queue.note_inside(self.leases[-1])
            return False
        if relay.fault.kind.family is Family.NODE:  # else the hub itself gave it up
            self._blame(engine, ticket)
        if relay.has_begun:
            self._break_off(relay, self._named(relay.fault, engine))
            return True
        ticket.excluded.add(engine)
        if self._may_try_another(ticket):
            return False
        if relay.fault.kind is not errors.NODE_BROKE_OFF or not self._may_try_again():
            raise self._named(relay.fault, engine)
        ticket.excluded.clear()  # nobody else is up: whoever is back first may have it again
        return False

    @staticmethod
    def _named(fault: Fault, engine: Engine) -> Fault:
        """Return a node's fault with the name of the node."""
        if fault.kind.family is not Family.NODE:
            return fault
        return Fault(fault.kind, f"node {engine.node!r}: {fault.message}", fault.headers)

    def _blame(self, engine: Engine, ticket: Ticket) -> None:
        """Leave an engine alone for a while, if there is another one that is not, and it did the work itself."""
        if engine.relays(self._model):
            return
        now = self._hub.now()
        if any(each.running.rests_until <= now for each in self._elsewhere(ticket)):
            self._hub.queue.note_blamed(engine)

    def _may_try_another(self, ticket: Ticket) -> bool:
        return self._may_try_again() and any(True for _ in self._elsewhere(ticket))

    def _may_try_again(self) -> bool:
        return self.record.attempts <= MAX_OTHER_NODES and not self._is_last_attempt

    def _elsewhere(self, ticket: Ticket) -> Iterator[Engine]:
        """Yield the other engines in service that could serve it, sooner or later."""
        here = self.attempt.engine if self.attempt is not None else None
        for each in self._hub.fleet.having(self._model):
            if each.takes_work and each is not here and ticket.accepts(each):
                yield each

    def _consider_refusal(self, relay: Relay, engine: Engine, ticket: Ticket) -> bool:
        head, body = relay.head, relay.refused_body()
        assert head is not None
        row = judge(engine.known.kind, head.status, body, engine.known.version, is_relayed=engine.relays(self._model))
        if row.verdict is Verdict.BUSY:
            self.record.attempts -= 1
            self._hub.queue.note_busy(engine)
            return False
        if row.verdict is Verdict.ELSEWHERE:
            engine.known.is_stale = True
            if row.blames:
                self._blame(engine, ticket)
            ticket.excluded.add(engine)
            if self._may_try_another(ticket):
                return False
            if row.kind is not None:
                who = "the service behind it" if engine.relays(self._model) else "it"
                raise Fault(row.kind, f"node {engine.node!r}: {who} refused the hub's own request ({head.status})")
        self.record.status = head.status
        is_about_request = head.status == 400 or (row.verdict is Verdict.PASS and head.status < 500)
        self.record.outcome = Outcome.CLIENT_ERROR if is_about_request else Outcome.NODE_ERROR
        self.record.error = "engine_refused"
        self._stream.send(head.status, response_fields(head.fields) + self._answer_fields(), body)
        return True

    # --- what it shows ---

    def progress(self) -> Progress:
        """Return how far it has come."""
        now, attempt = self._hub.now(), self.attempt
        queued = self.record.queued_ms / 1000
        if self._waits_since is not None:
            queued += now - self._waits_since
        stage, first_byte = Stage.QUEUED, None
        if self.ticket is None:
            stage = Stage.READING
        elif attempt is not None and attempt.lease.is_held:
            stage, relay = Stage.SENT, attempt.relay
            if relay is not None and relay.first_byte_at is not None:
                stage, first_byte = Stage.ANSWERING, relay.first_byte_at - self.began_at
        return Progress(stage, now - self.began_at, queued, first_byte, self._stream.bytes_sent)

    # --- errors and the end ---

    def _break_off(self, relay: Relay, fault: Fault) -> None:
        """End an answer that has begun with its dialect's own error; one that has none for it is cut."""
        self._note_fault(fault)
        self.record.status = 200
        if not relay.is_stream:
            self._stream.cut()
            return
        text = self._plan.errors.in_stream(fault, self.record.request_id, relay.last_units)
        self._stream.write((relay.separator if relay.is_inside_unit else b"") + text)
        self._stream.finish()

    def _answer_fault(self, fault: Fault) -> None:
        record = self.record
        self._note_fault(fault)
        if self._stream.has_started:
            self._stream.cut()
            return
        status, fields, body = error_answer(self._plan.errors, fault, record.request_id)
        own = self._answer_fields() if record.node else self._fields + b"X-Hive-Attempts: 0\r\n"
        self._stream.send(status, fields + own, body)

    def _note_fault(self, fault: Fault) -> None:
        record, kind = self.record, fault.kind
        record.status, record.error, record.outcome = kind.status, kind.code, outcome_of(kind)
        if kind.family is not Family.CLIENT:
            record.detail = fault.message

    def give_up(self, fault: Fault) -> None:
        """End the exchange from outside, with an error for its client."""
        relay = self.attempt.relay if self.attempt is not None else None
        if relay is not None and not relay.finished.is_kept:
            self._is_last_attempt = True
            relay.fail(fault.kind, fault.message)
        elif self._runner is not None:
            self._answer_fault(fault)
            self._runner.cancel()

    def check_deadlines(self, now: float) -> None:
        """End an attempt whose engine is silent for too long."""
        attempt, ticket = self.attempt, self.ticket
        if attempt is not None and ticket is not None and attempt.is_running:
            attempt.check_deadlines(now, has_elsewhere=self._may_try_another(ticket))

    def _account(self) -> None:
        self.record.total_ms = (self._hub.now() - self.began_at) * 1000
        self.record.bytes_out = self._stream.bytes_sent
        self._stream.on_departure = self._stream.on_pause = self._stream.on_resume = None
        self._hub.end_exchange(self)
