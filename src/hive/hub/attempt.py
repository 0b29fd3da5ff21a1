"""One try of an exchange on one engine: the request it sends, the connection it uses, the answer that comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from hive import errors
from hive.dialects.fields import RoutingFields
from hive.dialects.measures import Measured, read_measured
from hive.dialects.routes import BodyForm, Route
from hive.dialects.tasks import Task
from hive.errors import Fault
from hive.fleet.engines import Engine
from hive.fleet.health import DOUBTFUL_AFTER, DOWN_AFTER, SILENT_ON_SUSPECT, silence_limit
from hive.fleet.kinds import EngineKind
from hive.hub.relay import Relay, Result
from hive.hub.renaming import Renaming, rename
from hive.net.link import Connection, Link
from hive.net.stream import ClientStream
from hive.scheduling.tickets import Lease
from hive.wire.forwarding import request_head

if TYPE_CHECKING:
    from hive.hub.exchange_services import ExchangeServices

END_SILENCE = 1.0
"""Seconds after a stream's end mark in which the engine is to end its answer too."""
OVERDUE = 10.0
"""Times the expected seconds after which a first byte is overdue."""
LONG_INSIDE = 2.0
"""Seconds after which an exchange is looked at that may wait inside its engine."""
LATE = 4.0
"""Times the expected seconds after which it is taken for that, while others on the engine flow."""
COLD_TOKEN = 0.02
"""Seconds for a token of a prompt that many an engine may take which remembers nothing of it."""
COLD_TIMES = 2.0
"""The same, times the slowest that was measured of late."""
ENOUGH_MEASURED = 3
"""So many measurements make an expectation."""


class Wanted(msgspec.Struct, frozen=True):
    """What a client wants of an engine: the same in every attempt."""

    route: Route
    task: Task
    model: str
    """Canonical name."""
    routing: RoutingFields
    body: bytes
    fields: bytes
    """Header lines that every answer to it carries."""


class Attempt:
    """One try. `run` it; its `relay` has the answer, or what came of it."""

    __slots__ = ("_hub", "_stream", "_wanted", "_was_warm", "lease", "relay")

    def __init__(self, hub: ExchangeServices, stream: ClientStream, wanted: Wanted, lease: Lease) -> None:
        self._hub = hub
        self._stream = stream
        self._wanted = wanted
        self._was_warm = False
        self.lease = lease
        self.relay: Relay | None = None

    @property
    def engine(self) -> Engine:
        """Where it runs."""
        return self.lease.engine

    # --- sending ---

    async def run(self, fields: bytes) -> Relay | None:
        """Send the request and wait for the end of its answer; None when there is no way to the engine.

        The answer carries `fields`.
        """
        engine = self.lease.engine
        link = self._hub.links[engine]
        self._was_warm = engine.is_warm(self._wanted.model, self.lease.ticket.load_options)
        head, body, renaming = self._make_request(engine, link)
        connection = link.take_idle()
        if connection is None:
            connection = await self._dial(engine, link)
            if connection is None:
                return None
        relay = self._make_relay(engine, fields, renaming)
        relay.attach(connection)
        try:
            connection.send(head, body, relay)
            await relay.finished
        finally:
            self._stream.on_pause = self._stream.on_resume = None
            if not relay.finished.is_kept and relay.connection is not None:
                relay.connection.cancel()
            self._note_bytes(relay, engine)
        return relay if relay.fault is None else self._unless_unreachable(relay, relay.fault, engine)

    def _make_relay(self, engine: Engine, fields: bytes, renaming: Renaming | None) -> Relay:
        hub = self._hub
        wanted = self._wanted
        self.relay = Relay(
            self._stream,
            hub.now,
            wanted.route.dialect,
            wanted.task,
            engine.known.kind,
            fields,
            hub.relay_limits,
            renaming,
        )
        return self.relay

    def _make_request(self, engine: Engine, link: Link) -> tuple[bytes, bytes, Renaming | None]:
        wanted = self._wanted
        body, renaming = wanted.body, None
        if engine.known.kind is not EngineKind.OLLAMA and wanted.route.form is not BodyForm.MULTIPART:
            model = engine.known.models.get(
                wanted.model
            )  # None: it was lost in this very moment, and the engine will say so
            body, renaming = rename(body, wanted.routing, model.id if model is not None else wanted.routing.model)
        path = link.base_path + wanted.route.path.encode()
        head = request_head(path, link.host_field, link.credential, self._stream.head, len(body))
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
            if fault.kind.family is not errors.Family.NODE:
                raise
            self._hub.note_unreachable(engine, fault)
            return None

    def _unless_unreachable(self, relay: Relay, fault: Fault, engine: Engine) -> Relay | None:
        """Return an attempt; None when there was no way to the engine: for its joined node, or for a second connection.

        Raises the `Fault` of a hub that can open no connection.
        """
        if relay.has_begun or (relay.was_given_up and fault.kind is not errors.NODE_UNREACHABLE):
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
        self._hub.note_exchange(engine, wanted.model, unloads=relay.unloads, changes=wanted.routing.has_keep_alive)

    # --- what it shows of its engine ---

    @property
    def is_running(self) -> bool:
        """Is an answer under way?"""
        return self.relay is not None and not self.relay.finished.is_kept

    @property
    def last_byte_at(self) -> float:
        """When its newest byte came, or it was sent."""
        return self.relay.last_byte_at if self.relay is not None else 0.0

    @property
    def has_answered(self) -> bool:
        """Has a byte of its answer come?"""
        return self.relay is not None and self.relay.first_byte_at is not None

    def is_excused(self, now: float) -> bool:
        """May it be silent for as long as it is, on an engine that works?"""
        relay = self.relay
        if relay is None or self.engine.relays(self._wanted.model):
            return True
        if relay.first_byte_at is not None:
            return self._stream.is_paused or relay.has_ended
        return not self._is_overdue(now)

    def _is_overdue(self, now: float) -> bool:
        """Is its first byte, by all that was measured of this engine, far too late, and nobody else's came?"""
        newest = max(self.last_byte_at, self.lease.engine.signs.last_answer_byte)
        silence = now - newest
        return silence >= DOUBTFUL_AFTER and silence > self._late_after(OVERDUE)

    def _waits_inside(self, now: float, silence: float) -> bool:
        """Does it wait in the engine's own queue, where it cannot go elsewhere? Then others flow, and it is late."""
        lease = self.lease
        if silence < LONG_INSIDE or lease.of_model <= lease.engine.learned.proven:
            return False
        do_others_flow = now - lease.engine.signs.last_stream_byte < LONG_INSIDE
        return do_others_flow and silence > self._late_after(LATE)

    def _late_after(self, times: float) -> float:
        """Return the seconds after which its first byte is late; infinite for who knows.

        What was measured may be of prompts that the engine remembered. This one may be read from its first word.
        """
        routing, ticket, engine = self._wanted.routing, self.lease.ticket, self.lease.engine
        pace = engine.learned.paces.get(ticket.model)
        if pace is None or pace.is_rough or pace.prompt.count < ENOUGH_MEASURED:
            return float("inf")
        if routing.has_tools or not routing.streams or not self._wanted.task.streams:
            return float("inf")
        if not engine.is_warm(ticket.model, ticket.load_options):
            return float("inf")
        expected = self._hub.queue.estimates.first_byte(engine, ticket.model, ticket.size, self.lease.running)
        return max(times * expected, ticket.size * max(COLD_TOKEN, COLD_TIMES * pace.slowest))

    def check_deadlines(self, now: float, *, has_elsewhere: bool) -> None:
        """End it when its engine is silent for too long; a client that reads slowly stops the clock."""
        relay = self.relay
        if relay is None or relay.finished.is_kept:
            return
        silence = now - relay.last_byte_at
        if relay.has_ended:
            if silence >= END_SILENCE:
                relay.finish_early()
            return
        has_begun = relay.first_byte_at is not None
        if has_begun and self._stream.is_paused:
            return
        if not has_begun and self._waits_inside(now, silence):
            relay.fail(errors.NODE_BUSY, f"the request has waited inside for {silence:.0f} s, behind another one")
            return
        limit = self._silence_limit(now, has_begun=has_begun, has_elsewhere=has_elsewhere)
        if silence >= limit:
            relay.fail(errors.NODE_SILENT, _describe(silence, has_begun=has_begun))

    def _silence_limit(self, now: float, *, has_begun: bool, has_elsewhere: bool) -> float:
        signs, has_tools = self.engine.signs, self._wanted.routing.has_tools
        limit = silence_limit(signs, now, self.lease.ticket.frontend.patience, has_begun=has_begun, has_tools=has_tools)
        if has_begun:
            return limit
        if limit == 0.0:
            return 0.0 if has_elsewhere else DOWN_AFTER
        if has_elsewhere and self.engine.is_last_resort and self._is_overdue(now):
            return SILENT_ON_SUSPECT
        return limit

    def forgive(self, stall: float) -> None:
        """The hub itself stood still for so many seconds: they are nobody's silence."""
        if self.relay is not None:
            self.relay.last_byte_at = min(self.relay.last_byte_at + stall, self._hub.now())

    def failure(self, relay: Relay | None) -> str:
        """Return why it brought no whole answer, without anything that an engine answered; "" when it did."""
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
        relay = self.relay
        assert relay is not None
        if not self._was_warm or relay.first_byte_at is None:
            return read_measured(relay.tail)
        if relay.is_stream:
            return read_measured(relay.tail, relay.first_byte_at - relay.started_at)
        return read_measured(relay.tail, whole=relay.last_byte_at - relay.started_at)


def _describe(silence: float, *, has_begun: bool) -> str:
    if has_begun:
        return f"it fell silent for {silence:.0f} s inside its answer"
    return f"it has sent nothing for {silence:.0f} s"


def _close_unused(dialing: asyncio.Task[Connection]) -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()
