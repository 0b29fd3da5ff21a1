"""One try of an exchange on one engine: the request it sends, the connection it uses, the answer that comes back."""

from __future__ import annotations

import asyncio

import msgspec

from hive import errors
from hive.dialects.fields import RoutingFields
from hive.dialects.measures import Measured, read_measured
from hive.dialects.renaming import rename
from hive.dialects.routes import BodyForm, Route
from hive.dialects.tasks import Task
from hive.dialects.translators import Translator
from hive.errors import Fault
from hive.fleet.engines import Engine
from hive.fleet.kinds import EngineKind
from hive.hub.answer import Answer
from hive.hub.exchange_port import AttemptPort
from hive.hub.relay import Relay, Result
from hive.net.link import Connection, Link
from hive.scheduling.silence import AttemptSilence
from hive.scheduling.tickets import Lease
from hive.wire.forwarding import request_head

END_SILENCE = 1.0
"""After the end mark of a stream an engine has this many seconds to end its answer."""


class Wanted(msgspec.Struct, frozen=True):
    """What a client wants of an engine: the same in every attempt."""

    route: Route
    task: Task
    model: str
    """Canonical name."""
    routing: RoutingFields
    body: bytes


class Attempt:
    """One try. `run` it; then `relay` has the answer, or how it failed."""

    __slots__ = ("_answer", "_hub", "_wanted", "_was_warm", "lease", "relay")

    def __init__(self, hub: AttemptPort, answer: Answer, wanted: Wanted, lease: Lease) -> None:
        self._hub = hub
        self._answer = answer
        self._wanted = wanted
        self._was_warm = False
        self.lease = lease
        self.relay: Relay | None = None

    @property
    def engine(self) -> Engine:
        """Return the engine that it runs on."""
        return self.lease.engine

    # --- sending ---

    async def run(self) -> Relay | None:
        """Send the request and wait for the end of its answer; return None if the engine was never reached."""
        engine, client = self.lease.engine, self._answer.client
        link = self._hub.links[engine]
        self._was_warm = engine.is_warm(self._wanted.model, self.lease.ticket.load_options)
        head, body, translator = self._make_request(engine, link)
        connection = link.take_idle()
        if connection is None:
            connection = await self._dial(engine, link)
            if connection is None:
                return None
        relay = self._make_relay(engine, translator)
        relay.attach(connection)
        try:
            connection.send(head, body, relay)
            await relay.finished
        finally:
            client.on_pause = client.on_resume = None
            if not relay.finished.is_kept and relay.connection is not None:
                relay.connection.cancel()
            self._note_bytes(relay, engine)
        return relay if relay.fault is None else self._unless_unreachable(relay, relay.fault, engine)

    def _make_relay(self, engine: Engine, translator: Translator | None) -> Relay:
        hub, wanted = self._hub, self._wanted
        dialect = wanted.route.dialect
        self.relay = Relay(self._answer, hub.now, dialect, wanted.task, engine.known.kind, hub.relay_limits, translator)
        return self.relay

    def _make_request(self, engine: Engine, link: Link) -> tuple[bytes, bytes, Translator | None]:
        wanted = self._wanted
        body: bytes = wanted.body
        translator: Translator | None = None
        if engine.known.kind is not EngineKind.OLLAMA and wanted.route.form is not BodyForm.MULTIPART:
            model = engine.known.models.get(
                wanted.model
            )  # None: it was lost in this very moment, and the engine will say so
            body, translator = rename(body, wanted.routing, model.id if model is not None else wanted.routing.model)
        path = link.base_path + wanted.route.path.encode()
        head = request_head(path, link.host_field, link.credential, self._answer.client.head, len(body))
        return head, body, translator

    async def _dial(self, engine: Engine, link: Link) -> Connection | None:
        """Return a new connection; None when the node cannot be reached, which is noted."""
        dialing = self._hub.dial(link)
        try:
            return await dialing
        except asyncio.CancelledError:
            dialing.add_done_callback(_close_unused)  # it may have succeeded in this very moment
            raise
        except Fault as fault:
            if fault.kind.family is not errors.Family.NODE:
                raise
            self._hub.note_unreachable(engine, fault)
            return None

    def _unless_unreachable(self, relay: Relay, fault: Fault, engine: Engine) -> Relay | None:
        """Return the relay; None if the engine was never reached.

        That is so if no further connection to it could be made, if its joined node could not reach it, or if the node
        had no free connection.

        Raises the `Fault` of a hub that can open no connection.
        """
        if self._answer.has_begun or (relay.was_given_up and fault.kind is not errors.NODE_UNREACHABLE):
            return relay
        if fault.kind is errors.OVERLOADED:
            raise fault
        if fault.kind not in (errors.NODE_UNREACHABLE, errors.NODE_BUSY):
            return relay
        self._hub.note_unreachable(engine, fault)
        return None

    def _note_bytes(self, relay: Relay, engine: Engine) -> None:
        if relay.first_byte_at is not None:
            signs = engine.signs
            signs.last_sign = max(signs.last_sign, relay.last_byte_at)
            signs.last_answer_byte = max(signs.last_answer_byte, relay.last_byte_at)
        wanted = self._wanted
        self._hub.note_exchange(
            engine, wanted.model, unloads=relay.held.tells_unload, changes=wanted.routing.has_keep_alive
        )

    # --- what it shows of its engine ---

    @property
    def is_running(self) -> bool:
        """Is an answer under way?"""
        return self.relay is not None and not self.relay.finished.is_kept

    @property
    def last_byte_at(self) -> float:
        """Return when its newest byte came; before the first byte, when the request was sent."""
        return self.relay.last_byte_at if self.relay is not None else 0.0

    @property
    def has_answered(self) -> bool:
        """Has a byte of its answer come?"""
        return self.relay is not None and self.relay.first_byte_at is not None

    def is_excused(self, now: float) -> bool:
        """Is its silence so far normal for an engine that works?"""
        relay = self.relay
        if relay is None or self.engine.relays(self._wanted.model):
            return True
        if relay.first_byte_at is not None:
            return self._answer.client.is_paused or relay.has_ended
        return not self._silence(relay).is_overdue(self._hub.queue.estimates, now)

    def check_deadlines(self, now: float, *, has_elsewhere: bool) -> None:
        """End it when its engine is silent for too long; a client that reads slowly stops the clock."""
        relay = self.relay
        if relay is None or relay.finished.is_kept:
            return
        if relay.has_ended:
            if now - relay.last_byte_at >= END_SILENCE:
                relay.finish_early()
            return
        if relay.first_byte_at is not None and self._answer.client.is_paused:
            return
        fault = self._silence(relay).fault(self._hub.queue.estimates, now, has_elsewhere=has_elsewhere)
        if fault is not None:
            relay.fail(fault.kind, fault.message)

    def _silence(self, relay: Relay) -> AttemptSilence:
        routing = self._wanted.routing
        streams = routing.streams and self._wanted.task.streams
        has_begun = relay.first_byte_at is not None
        return AttemptSilence(self.lease, relay.last_byte_at, has_begun, routing.has_tools, streams)

    def forgive(self, stall: float) -> None:
        """Do not count these seconds as the engine's silence: the hub itself stood still."""
        if self.relay is not None:
            self.relay.last_byte_at = min(self.relay.last_byte_at + stall, self._hub.now())

    def failure(self, relay: Relay | None) -> str:
        """Return why it brought no whole answer, without any text of the engine's answer; "" for a whole answer."""
        if relay is None:
            error = self.engine.error
            return f"there was no way to it ({error})" if error else "there was no way to it"
        result = relay.finished.value
        if result is Result.DELIVERED:
            return ""
        if result is Result.FAILED and relay.fault is not None:
            return f"{relay.fault.message} ({relay.fault.kind.code})"
        if result is Result.REFUSED and relay.head is not None:
            return f"it answered {relay.head.status}"
        return "it ended its answer with an error"

    # --- what it teaches ---

    def measured(self) -> Measured:
        """Return what its answer tells of the engine's pace."""
        relay, dialect = self.relay, self._wanted.route.dialect
        assert relay is not None
        began = relay.first_byte_at
        tail = relay.held.tail if relay.reader is None else relay.reader.last_units
        if not self._was_warm or began is None:
            return read_measured(dialect, tail)
        if relay.reader is not None:
            return read_measured(dialect, tail, began - relay.started_at)
        return read_measured(dialect, tail, whole=relay.last_byte_at - relay.started_at)


def _close_unused(dialing: asyncio.Task[Connection]) -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()
