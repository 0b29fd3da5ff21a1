"""The life of one client request to an engine: read, wait for a slot, relay, try elsewhere, account.

Bytes move by callbacks (`hub.relay`), which wake the exchange only at the end of an attempt. Then the table in
`scheduling.failover` decides the next step. Whatever happens, the exchange gives back the slot and the connection, and
the client gets one whole answer or one honest error.
"""

from __future__ import annotations

import asyncio
import logging

from hive import errors
from hive.dialects.fields import RoutingFields, read_fields
from hive.dialects.routes import BodyForm
from hive.dialects.tasks import Dialect
from hive.errors import Family, Fault
from hive.fleet.engines import Engine, Health
from hive.fleet.failures import Row, judge
from hive.fleet.model_names import MAX_NAME, canonical, is_valid, unknown_model_text
from hive.hub.answer import Answer
from hive.hub.attempt import Attempt, Wanted
from hive.hub.exchange_port import ExchangePort
from hive.hub.plan import Plan
from hive.hub.progress import Progress, Stage
from hive.hub.records import Outcome, Record, outcome_of
from hive.hub.relay import Relay, Result
from hive.hub.runner import Runner
from hive.net.stream import ClientStream
from hive.scheduling import failover
from hive.scheduling.failover import Act, Case, End, NextStep, Note
from hive.scheduling.refusals import not_served
from hive.scheduling.tickets import Lease, Ticket, claim_of
from hive.scheduling.waits import why_waiting
from hive.wire.coding import decode_body
from hive.wire.forwarding import response_fields
from hive.wire.multipart import read_model

_log = logging.getLogger(__name__)

BYTES_A_TOKEN = 4
"""About so many bytes of a request's body make one token; the tokens themselves are not counted."""
MOST_TOKENS = 16_000
"""A body counts as at most so many tokens: a longer one is more likely to hold pictures."""
NOTHING_READ = RoutingFields()
_FEW = 32
"""At most so many engines are looked at to say why a request waits."""


class Exchange:
    """One request to an engine. `run` raises only `CancelledError`: the client is gone, or the request is given up."""

    def __init__(self, hub: ExchangePort[Exchange], stream: ClientStream, plan: Plan) -> None:
        self._hub = hub
        self._stream = stream
        self._plan = plan
        self._answer = Answer(stream, plan.errors)
        self._routing = NOTHING_READ
        self.began_at = hub.now()
        self._is_last_attempt = False
        self._unreached: list[Engine] = []
        """Engines that seemed up and could not be reached. An engine stands here once for each failure to reach it."""
        self._runner: Runner | None = None
        self._waits_since: float | None = None
        self.ticket: Ticket | None = None
        """The wish for a slot; None until the model is known."""
        self.attempt: Attempt | None = None
        """The attempt under way, or the last one."""
        self.leases: list[Lease] = []
        """The leases of all attempts. Each lease says why its engine was chosen."""
        self.record = Record(
            request_id=stream.request_id,
            operation=plan.route.name,
            key=plan.principal.name,
            key_id=plan.principal.id,
            bytes_in=len(stream.body),
        )

    def __repr__(self) -> str:
        return f"<Exchange {self.record.request_id} {self.record.operation} {self.record.model} on {self.record.node}>"

    def start(self) -> None:
        """Begin to serve the request. The client's departure ends the exchange."""
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
            self._tell(fault)
        except asyncio.CancelledError:
            if self._stream.has_departed:
                self.record.outcome = Outcome.CLIENT_GONE
            raise
        except Exception:
            _log.exception("exchange %s", self.record.request_id)
            self._tell(Fault(errors.INTERNAL, f"the hub made a mistake; its log has {self.record.request_id}"))
        finally:
            self._account()

    async def _read(self) -> None:
        stream, route = self._stream, self._plan.route
        fields = stream.head.fields
        encoding = fields.get(b"content-encoding")
        if encoding is not None:
            most = stream.max_body_bytes
            stream.replace_body(await asyncio.to_thread(decode_body, stream.body, encoding, most))
            self.record.bytes_in = len(stream.body)
        if route.form is BodyForm.MULTIPART:
            self._routing = RoutingFields(read_model(stream.body, fields.get(b"content-type", b"")))
        else:
            is_ollama = route.dialect is Dialect.OLLAMA
            self._routing = read_fields(stream.body, reads_name=route.reads_name, is_ollama=is_ollama)

    def _find_model(self) -> bool:
        """Find the model that the request names, and return True; False when no engine has it."""
        name = self._routing.model
        if not name and not self._plan.route.unnamed_is_unknown:
            raise Fault(errors.MODEL_REQUIRED, "model is required")
        if len(name) > MAX_NAME:
            raise Fault(errors.INVALID_MODEL_NAME, "invalid model name")
        key = canonical(name)
        if not self._hub.fleet.having(key):
            return False
        self.record.model = key
        return True

    def _check_model(self) -> None:
        """Look for the model again, after all nodes have been asked. Raises `Fault` for a model that no engine has."""
        name = self._routing.model
        if self._find_model():
            return
        if name and not is_valid(name):
            raise Fault(errors.INVALID_MODEL_NAME, "invalid model name")
        raise Fault(errors.MODEL_NOT_FOUND, unknown_model_text(self._plan.route, name))

    async def _serve(self) -> None:
        hub, record, answer = self._hub, self.record, self._answer
        ticket = self.ticket = self._make_ticket()
        wanted = Wanted(self._plan.route, ticket.task, ticket.model, self._routing, self._stream.body)
        comes_back = True
        while comes_back:
            comes_back = False
            ticket.deadline = hub.now() + ticket.frontend.queue_timeout - record.queued_ms / 1000
            lease = hub.queue.try_lease(ticket)
            if lease is None:
                lease = await self._wait(ticket)
            self.leases.append(lease)
            record.node, record.why = lease.engine.node, lease.reason
            record.attempts += 1
            answer.fields = self._own_fields()
            attempt = self.attempt = Attempt(hub, answer, wanted, lease)
            try:
                relay = await attempt.run()
                if relay is not None and relay.finished.value is Result.DELIVERED:
                    assert relay.head is not None
                    record.status = relay.head.status
                    hub.queue.note_served(lease, attempt.measured)
                else:
                    lease.failure = attempt.failure(relay)
                    comes_back = self._consider(relay, lease)
            finally:
                relay = attempt.relay
                if relay is not None and relay.first_byte_at is not None:
                    record.first_byte_ms = (relay.first_byte_at - self.began_at) * 1000
                hub.queue.release(lease, comes_back=comes_back)

    def _make_ticket(self) -> Ticket:
        plan, routing, model = self._plan, self._routing, self.record.model
        task = plan.route.task
        assert task is not None, "an exchange is for a route that an engine answers"
        return Ticket(
            model,
            task,
            plan.route.dialect,
            deadline=0,
            claim=claim_of(
                task,
                unloads=routing.unloads and task.streams,
                is_relayed=self._hub.fleet.only_relays(model),
            ),
            frontend=plan.frontend,
            principal=plan.principal,
            prompt_tokens=min(len(self._stream.body) // BYTES_A_TOKEN, MOST_TOKENS),
            load_options=routing.load_options,
        )

    def _own_fields(self) -> bytes:
        """Return the header lines that the hub adds to an answer."""
        record = self.record
        if not record.node:
            return self._plan.fields + b"X-Hive-Attempts: 0\r\n"
        named = b"X-Hive-Node: %b\r\nX-Hive-Attempts: %d\r\n" % (record.node.encode(), record.attempts)
        return self._plan.fields + named

    async def _wait(self, ticket: Ticket) -> Lease:
        hub = self._hub
        since = self._waits_since = hub.now()
        try:
            having = hub.fleet.having(ticket.model)
            if having and not any(engine.route_for(ticket.task, ticket.dialect) for engine in having):
                raise not_served(ticket.task, ticket.dialect, having)
            reason = why_waiting(ticket, having[:_FEW], since)
            lease = await hub.queue.wait(ticket)
            lease.waited_for = reason
            return lease
        finally:
            self._waits_since = None
            hub.queue.forget(ticket)
            self.record.queued_ms += (hub.now() - since) * 1000

    def _consider(self, relay: Relay | None, lease: Lease) -> bool:
        """Carry out the next step after an attempt that brought no whole answer.

        Return whether the ticket goes back into the queue. Raises `Fault` for the client.
        """
        engine, record = lease.engine, self.record
        end, row = _how_it_ended(relay, lease, has_begun=self._answer.has_begun)
        if end is End.UNREACHABLE and engine.health is Health.DOWN:  # not if its node only lacks a free connection
            self._unreached.append(engine)
        left = failover.what_is_left(self._hub.fleet.having(record.model), lease.ticket, engine, self._hub.now())
        unreached = self._unreached.count(engine)
        step = failover.decide(Case(end, record.attempts, unreached, self._is_last_attempt, left, row))
        self._note(step, lease)
        if step.act is Act.NOTHING:
            record.outcome, record.error = Outcome.NODE_ERROR, "engine_error"
            record.status = relay.head.status if relay is not None and relay.head is not None else 0
        elif step.act is Act.PASS:
            assert relay is not None
            self._pass_refusal(relay, end)
        elif step.act is Act.BREAK_OFF:
            self._tell(_fault_for_client(relay, lease, row))
        elif step.act is Act.ERROR:
            raise _fault_for_client(relay, lease, row)
        return step.comes_back

    def _note(self, step: NextStep, lease: Lease) -> None:
        """Carry out what the next step says of the engine, the ticket and the count of attempts."""
        queue, engine, ticket = self._hub.queue, lease.engine, lease.ticket
        if not step.counts:
            self.record.attempts -= 1
        if step.note is Note.BUSY:
            queue.note_busy(engine)
        elif step.note is Note.INSIDE:
            queue.note_inside(lease)
        elif step.note is Note.STALE:
            engine.known.is_stale = True
        if step.blames:
            queue.note_blamed(engine)
        if step.excludes:
            ticket.excluded.add(engine)
        if step.forgives:
            ticket.excluded.clear()

    def _pass_refusal(self, relay: Relay, end: End) -> None:
        """Send the engine's refusal to the client as it is."""
        head, record = relay.head, self.record
        assert head is not None
        is_about_request = head.status == 400 or (end is End.REFUSED and head.status < 500)
        record.status, record.error = head.status, "engine_refused"
        record.outcome = Outcome.CLIENT_ERROR if is_about_request else Outcome.NODE_ERROR
        self._answer.send(head.status, response_fields(head.fields), relay.held.body)

    def progress(self) -> Progress:
        """Return how far the exchange has come."""
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

    def _tell(self, fault: Fault) -> None:
        """End the answer with a fault, and write the fault into the record."""
        record, kind, answer = self.record, fault.kind, self._answer
        record.status, record.error, record.outcome = kind.status, kind.code, outcome_of(kind)
        if kind.family is not Family.CLIENT:
            record.detail = fault.message
        if answer.has_begun:
            record.status = 200
        else:
            answer.fields = self._own_fields()
        answer.tell(fault)

    def give_up(self, fault: Fault) -> None:
        """End the exchange from outside, with an error for its client."""
        relay = self.attempt.relay if self.attempt is not None else None
        if relay is not None and not relay.finished.is_kept:
            self._is_last_attempt = True
            relay.fail(fault.kind, fault.message)
        elif self._runner is not None:
            self._tell(fault)
            self._runner.cancel()

    def check_deadlines(self, now: float) -> None:
        """End an attempt whose engine is silent for too long."""
        attempt, ticket = self.attempt, self.ticket
        if attempt is not None and ticket is not None and attempt.is_running:
            has_elsewhere = failover.may_try_again(self.record.attempts, is_last=self._is_last_attempt) and (
                failover.has_elsewhere(self._hub.fleet.having(ticket.model), ticket, attempt.engine)
            )
            attempt.check_deadlines(now, has_elsewhere=has_elsewhere)

    def _account(self) -> None:
        self.record.total_ms = (self._hub.now() - self.began_at) * 1000
        self.record.bytes_out = self._stream.bytes_sent
        self._stream.on_departure = self._stream.on_pause = self._stream.on_resume = None
        self._hub.end_exchange(self)


def _how_it_ended(relay: Relay | None, lease: Lease, *, has_begun: bool) -> tuple[End, Row | None]:
    """Return how an attempt without a whole answer ended; for a refusal, also the row that says what it means."""
    if relay is None:
        return End.UNREACHABLE, None
    if relay.finished.value is Result.ENGINE_ERROR:
        return End.ENGINE_ERROR, None
    if relay.fault is not None:
        return failover.end_of_failure(relay.fault.kind, has_begun=has_begun), None
    engine, head = lease.engine, relay.head
    assert head is not None
    is_relayed = engine.relays(lease.ticket.model)
    row = judge(engine.known.kind, head.status, relay.held.body, engine.known.version, is_relayed=is_relayed)
    return failover.end_of_refusal(row), row


def _fault_for_client(relay: Relay | None, lease: Lease, row: Row | None) -> Fault:
    """Return the fault that tells the client of a failed attempt. The fault of a node has the node's name in it."""
    node = lease.engine.node
    if relay is None:
        return Fault(errors.NODE_UNREACHABLE, f"node {node!r} seems to be up and cannot be reached")
    if row is not None and row.kind is not None and relay.head is not None:
        refuser = "the service behind it" if lease.engine.relays(lease.ticket.model) else "it"
        return Fault(row.kind, f"node {node!r}: {refuser} refused the hub's own request ({relay.head.status})")
    fault = relay.fault
    assert fault is not None
    if fault.kind.family is not Family.NODE:
        return fault
    return Fault(fault.kind, f"node {node!r}: {fault.message}", fault.headers)
