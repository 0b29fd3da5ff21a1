"""The life of one client request to an engine: read, wait for a slot, relay, try elsewhere, account.

It decides; the bytes move by callbacks (`hub.relay`) and do not wake it until the end. Whatever happens, it
gives back the slot and the connection, and the client gets one whole answer or one honest error.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from hive import errors
from hive.dialects.errors import stream_error
from hive.dialects.fields import RoutingFields, read_fields
from hive.dialects.operations import BodyForm, Dialect, Operation
from hive.errors import Family, Fault
from hive.fleet.engines import SUSPECT_AFTER, Engine, EngineKind, Health
from hive.fleet.failures import Verdict, judge
from hive.fleet.names import MAX_NAME, canonical, is_valid, unknown_model_text
from hive.hub.records import OUTCOMES, Outcome, Record
from hive.hub.relay import Relay, Result
from hive.hub.renaming import Renaming, rename
from hive.hub.runner import Runner
from hive.net.link import Connection, Link
from hive.net.stream import ClientStream
from hive.scheduling.tickets import Lease, Ticket
from hive.wire.coding import decode_body
from hive.wire.forwarding import request_head, response_fields
from hive.wire.multipart import read_model

if TYPE_CHECKING:
    from hive.hub.core import Hub

_log = logging.getLogger(__name__)

MAX_OTHER_NODES = 2
SILENT_ON_SUSPECT = 10.0
"""Seconds of silence that end a begun answer on an engine that gives no sign of life."""
END_SILENCE = 1.0
"""Seconds after a stream's end mark in which the engine is to end its answer too."""
MAX_RESENDS = 3
"""Connections that may prove dead in one attempt."""
MAX_UNREACHED = 3
"""Times that an engine which seems up may prove unreachable in one exchange."""
BUSY_REST = 1.0
"""Seconds that an engine is left alone after it said busy."""

NOTHING_READ = RoutingFields()


class Plan(msgspec.Struct, frozen=True):
    """What was judged of a request before its body came."""

    operation: Operation
    key_name: str
    fields: bytes = b""
    """Header lines that every answer to it carries."""


class Exchange:
    """One request on its way. `run` never raises but for cancellation, which means that the client is gone."""

    def __init__(self, hub: Hub, stream: ClientStream, plan: Plan) -> None:
        self._hub = hub
        self._stream = stream
        self._operation = plan.operation
        self._fields = plan.fields
        self._body = stream.body
        self._model = ""
        self._routing = NOTHING_READ
        self._began_at = hub.now()
        self._is_last_attempt = False
        self._unreached: list[Engine] = []
        self._runner: Runner | None = None
        self.relay: Relay | None = None
        """The attempt under way, or the last one."""
        self.engine: Engine | None = None
        self.record = Record(
            request_id=stream.request_id,
            operation=plan.operation.name,
            key=plan.key_name,
            bytes_in=len(stream.body),
        )

    def __repr__(self) -> str:
        return f"<Exchange {self.record.request_id} {self.record.operation} {self._model} on {self.engine}>"

    @property
    def gap_timeout(self) -> float:
        """How long a begun answer may be silent, in seconds."""
        settings = self._hub.settings
        return settings.tools_gap_timeout if self._routing.has_tools else settings.stream_gap_timeout

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
        operation, head = self._operation, self._stream.head
        encoding = head.fields.get(b"content-encoding")
        if encoding is not None:
            most = self._hub.settings.max_body_bytes
            self._body = await asyncio.to_thread(decode_body, self._body, encoding, most)
            self._stream.replace_body(self._body)
            self.record.bytes_in = len(self._body)
        if operation.form is BodyForm.MULTIPART:
            self._routing = RoutingFields(read_model(self._body, head.fields.get(b"content-type", b"")))
        else:
            is_ollama = operation.dialect is Dialect.OLLAMA
            self._routing = read_fields(self._body, reads_name=operation.reads_name, is_ollama=is_ollama)

    def _find_model(self) -> bool:
        """Learn which model is meant; False when no engine has it."""
        if not self._routing.model and not self._operation.unnamed_is_unknown:
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
        raise Fault(errors.MODEL_NOT_FOUND, unknown_model_text(self._operation, name))

    # --- attempts ---

    async def _serve(self) -> None:
        hub, operation, record = self._hub, self._operation, self.record
        ticket = Ticket(self._model, operation, deadline=0)
        is_over = False
        while not is_over:
            ticket.deadline = hub.now() + hub.settings.queue_timeout - record.queued_ms / 1000
            lease = hub.queue.try_lease(ticket)
            if lease is None:
                lease = await self._wait(ticket)
            self.engine = engine = lease.engine
            record.node, record.why = engine.node, lease.reason
            record.attempts += 1
            try:
                relay = await self._send(engine, hub.links[engine])
                is_over = self._consider(relay, engine, ticket)
            finally:
                hub.queue.release(lease)

    async def _wait(self, ticket: Ticket) -> Lease:
        since = self._hub.now()
        try:
            self._check_route()
            return await self._hub.queue.wait(ticket)
        finally:
            self._hub.queue.forget(ticket)
            self.record.queued_ms += (self._hub.now() - since) * 1000

    def _check_route(self) -> None:
        """Raise `Fault` when waiting is in vain, because no engine with the model has the route."""
        engines = self._hub.fleet.having(self._model)
        if not any(engine.serves(self._operation) for engine in engines):
            kinds = ", ".join(sorted({engine.kind.value for engine in engines}))
            path = self._operation.path
            raise Fault(errors.NOT_SERVED, f"no engine with this model serves {path} (it is on {kinds})")

    async def _send(self, engine: Engine, link: Link) -> Relay | None:
        """Send the request and wait for the end of its answer; None when there is no way to the engine.

        A pooled connection that had died unused is replaced by another, `MAX_RESENDS` times at most.
        """
        hub = self._hub
        head, body, renaming = self._make_request(engine, link)
        fields = self._fields + b"X-Hive-Node: %b\r\n" % engine.node.encode()
        connection = link.take_idle()
        for resends in range(MAX_RESENDS + 1):
            if connection is None:
                connection = await self._dial(engine, link)
                if connection is None:
                    return None
            relay = Relay(
                self._stream, hub.now, self._operation.dialect, engine.kind, fields, hub.relay_limits, renaming
            )
            self.relay = relay
            relay.attach(connection)
            try:
                connection.send(head, body, relay)
                result = await relay.finished
            finally:
                self._stream.on_pause = self._stream.on_resume = None
                if not relay.finished.is_kept:
                    connection.cancel()
                self._note_answer(relay, engine)
            is_lost = result is Result.FAILED and not relay.was_given_up
            if not is_lost or resends == MAX_RESENDS or not connection.is_lost_unheard(hub.now() - relay.started_at):
                return relay if relay.fault is None else self._unless_unreachable(relay, relay.fault, engine)
            connection = None
        raise AssertionError  # the loop has no other end

    def _unless_unreachable(self, relay: Relay, fault: Fault, engine: Engine) -> Relay | None:
        """Return an attempt; None when a joined node found no way to its engine, as if the hub had dialed it."""
        if fault.kind is not errors.NODE_UNREACHABLE or relay.has_begun:
            return relay
        self._hub.note_unreachable(engine, fault)
        return None

    def _make_request(self, engine: Engine, link: Link) -> tuple[bytes, bytes, Renaming | None]:
        body, renaming = self._body, None
        if engine.kind is not EngineKind.OLLAMA and self._operation.form is not BodyForm.MULTIPART:
            model = engine.models.get(self._model)  # None: it was lost in this very moment, and the engine will say so
            body, renaming = rename(body, self._routing, model.id if model is not None else self._routing.model)
        path = link.base_path + self._operation.path.encode()
        head = request_head(path, link.host_field, link.credential, self._stream.head.fields, len(body))
        return head, body, renaming

    async def _dial(self, engine: Engine, link: Link) -> Connection | None:
        """Return a new connection; None when the node cannot be reached, which is noted."""
        dialing = self._hub.dial(link)
        try:
            return await dialing
        except asyncio.CancelledError:
            dialing.add_done_callback(_close_unused)  # it may have succeeded in this very moment
            raise
        except Fault as fault:
            if fault.kind.family is not Family.NODE:
                raise
            self._hub.note_unreachable(engine, fault)
            return None

    def _consider(self, relay: Relay | None, engine: Engine, ticket: Ticket) -> bool:
        """Return whether the client has been answered. Raises `Fault` when nobody else may be tried."""
        record = self.record
        if relay is None:
            # The engine never heard of the request: the ticket waits for whoever is up, this one included.
            record.attempts -= 1
            ticket.hopeless_since = None
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
            record.outcome = Outcome.OK if result is Result.DELIVERED else Outcome.NODE_ERROR
            return True
        if result is Result.REFUSED:
            return self._consider_refusal(relay, engine, ticket)
        assert relay.fault is not None
        if relay.has_begun:
            self._break_off(relay, self._named(relay.fault, engine))
            return True
        ticket.excluded.add(engine)
        if not self._may_try_another(ticket):
            raise self._named(relay.fault, engine)
        return False

    @staticmethod
    def _named(fault: Fault, engine: Engine) -> Fault:
        """Return a node's fault with the name of the node."""
        if fault.kind.family is not Family.NODE:
            return fault
        return Fault(fault.kind, f"node {engine.node!r}: {fault.message}", fault.headers)

    def _note_answer(self, relay: Relay, engine: Engine) -> None:
        if relay.first_byte_at is not None:
            engine.last_sign = max(engine.last_sign, relay.last_byte_at)
            self.record.first_byte_ms = (relay.first_byte_at - self._began_at) * 1000
        self._hub.note_exchange(engine, self._model, unloads=relay.unloads, changes=self._routing.has_keep_alive)

    def _may_try_another(self, ticket: Ticket) -> bool:
        if len(ticket.excluded) > MAX_OTHER_NODES or self._is_last_attempt:
            return False
        having = self._hub.fleet.having(self._model)
        return any(engine.takes_work and ticket.accepts(engine) for engine in having)

    def _consider_refusal(self, relay: Relay, engine: Engine, ticket: Ticket) -> bool:
        head, body = relay.head, relay.refused_body()
        assert head is not None
        row = judge(engine.kind, head.status, body)
        if row.verdict is Verdict.BUSY:
            self.record.attempts -= 1
            engine.rests_until = self._hub.now() + BUSY_REST
            return False
        if row.verdict is Verdict.ELSEWHERE:
            engine.is_stale = True
            ticket.excluded.add(engine)
            if self._may_try_another(ticket):
                return False
            if row.kind is not None:
                raise Fault(row.kind, f"node {engine.node!r}: it refused the hub's own request ({head.status})")
        self.record.status = head.status
        is_about_request = row.verdict is Verdict.PASS and head.status < 500
        self.record.outcome = Outcome.CLIENT_ERROR if is_about_request else Outcome.NODE_ERROR
        self.record.error = "engine_refused"
        fields = response_fields(head.fields) + self._fields + b"X-Hive-Node: %b\r\n" % engine.node.encode()
        self._stream.send(head.status, fields, body)
        return True

    # --- errors and the end ---

    def _break_off(self, relay: Relay, fault: Fault) -> None:
        """End an answer that has begun with its dialect's own error; one that has none for it is cut."""
        self.record.outcome, self.record.error = OUTCOMES[fault.kind.family], fault.kind.code
        self.record.status = 200
        if not relay.is_stream:
            self._stream.cut()
            return
        text = stream_error(self._operation.dialect, fault, self.record.request_id, relay.last_units)
        self._stream.write((relay.separator if relay.is_inside_unit else b"") + text)
        self._stream.finish()

    def _answer_fault(self, fault: Fault) -> None:
        record = self.record
        record.status, record.error = fault.kind.status, fault.kind.code
        record.outcome = OUTCOMES[fault.kind.family]
        if self._stream.has_started:
            self._stream.cut()
            return
        status, fields, body = self._hub.refuse(self._stream.head, record.request_id, fault)
        node = b"X-Hive-Node: %b\r\n" % record.node.encode() if record.node else b""
        self._stream.send(status, fields + self._fields + node, body)

    def give_up(self, fault: Fault) -> None:
        """End the exchange from outside, with an error for its client."""
        if self.relay is not None and not self.relay.finished.is_kept:
            self._is_last_attempt = True
            self.relay.fail(fault.kind, fault.message)
        elif self._runner is not None:
            self._answer_fault(fault)
            self._runner.cancel()

    def check_deadlines(self, now: float) -> None:
        """End an attempt whose engine is silent for too long; a client that reads slowly stops the clock."""
        relay, engine = self.relay, self.engine
        if relay is None or engine is None or relay.finished.is_kept:
            return
        if relay.first_byte_at is not None:
            engine.last_sign = max(engine.last_sign, relay.last_byte_at)
        is_suspect = engine.health in (Health.SUSPECT, Health.DOWN) and now - engine.last_sign >= SUSPECT_AFTER
        silence = now - relay.last_byte_at
        if relay.first_byte_at is None:
            if is_suspect and silence >= SUSPECT_AFTER:
                relay.fail(errors.NODE_SILENT, "it gives no sign of life")
            elif silence >= self._hub.settings.first_byte_timeout:
                relay.fail(errors.NODE_SILENT, f"it has sent nothing for {silence:.0f} s")
        elif relay.has_ended:
            if silence >= END_SILENCE:
                relay.finish_early()
        elif not self._stream.is_paused:
            limit = SILENT_ON_SUSPECT if is_suspect else self.gap_timeout
            if silence >= limit:
                relay.fail(errors.NODE_SILENT, f"it fell silent for {silence:.0f} s inside its answer")

    def _account(self) -> None:
        self.record.total_ms = (self._hub.now() - self._began_at) * 1000
        self.record.bytes_out = self._stream.bytes_sent
        self._stream.on_departure = self._stream.on_pause = self._stream.on_resume = None
        self._hub.end_exchange(self)


def _close_unused(dialing: asyncio.Task[Connection]) -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()
