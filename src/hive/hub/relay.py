"""The way of one attempt's answer from an engine to a client: by callbacks, while the exchange sleeps.

The head is held until the first whole line or event, and an answer that does not stream whole (up to a bound),
so that a failure can still move elsewhere. Of a stream only whole units go on; the rest of one is held, and
dropped on failure. A stream without its end mark is a failure. A client that reads slowly pauses its own engine
connection and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hive import errors
from hive.dialects.streams import Ending, MalformedStream, Stream, is_json, stream_of
from hive.dialects.tasks import Dialect, Task
from hive.errors import Fault, Kind
from hive.fleet.failures import Verdict, judge
from hive.fleet.kinds import EngineKind
from hive.hub.renaming import Renaming
from hive.hub.runner import Promise
from hive.net.link import Connection
from hive.net.stream import ClientStream
from hive.wire.forwarding import response_fields
from hive.wire.responses import ResponseHead

_NO_BUFFERING = b"X-Accel-Buffering: no\r\n"
_UNLOADED = b'"done_reason":"unload"'
_SHORT_ANSWER_BYTES = 1024
_LONGEST_CUT = 3
"""Bytes of a unit's end that may have come without its last one."""
_OPENING_ERRORS = (
    b'{"error"',
    b'data: {"error"',
    b'data:{"error"',
    b'data: {"type":"error"',
    b"event: error",
    b"event: response.failed",
)
"""How a stream begins that tells of nothing but an error."""


class Result(Enum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    """The client has the whole answer."""
    ENGINE_ERROR = "engine_error"
    """The client has an answer that the engine itself ended with an error."""
    REFUSED = "refused"
    """The engine answered with an error; it is held."""
    FAILED = "failed"
    """There is no whole answer."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How much of an answer is held, in bytes."""

    held_answer_bytes: int = 1 << 20
    held_line_bytes: int = 64 << 10


class Relay:
    """One attempt's answer on its way. `finished` brings its result, once."""

    __slots__ = (
        "_client",
        "_dialect",
        "_ending",
        "_fields",
        "_framing",
        "_held",
        "_held_bytes",
        "_kind",
        "_limits",
        "_long_unit",
        "_now",
        "_partial",
        "_renaming",
        "_task",
        "connection",
        "fault",
        "finished",
        "first_byte_at",
        "has_begun",
        "head",
        "last_byte_at",
        "last_units",
        "started_at",
        "was_given_up",
    )

    def __init__(
        self,
        stream: ClientStream,
        now: Callable[[], float],
        dialect: Dialect,
        task: Task,
        kind: EngineKind,
        fields: bytes,
        limits: RelayLimits,
        renaming: Renaming | None = None,
    ) -> None:
        self._now = now
        self._client = stream
        self._dialect = dialect
        self._task = task
        self._kind = kind
        self._fields = fields
        self._limits = limits
        self._renaming = renaming
        self._framing: Stream | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._partial = b""
        self.last_units = b""
        """The last whole units that the client got."""
        self._long_unit: bytes | None = None
        """The start of a unit that is too long to be held and has not ended."""
        self._ending = Ending.MISSING
        self.connection: Connection | None = None
        self.head: ResponseHead | None = None
        self.fault: Fault | None = None
        self.first_byte_at: float | None = None
        self.has_begun = False
        """Has the client got a byte?"""
        self.was_given_up = False
        """Did the hub end it, not the engine?"""
        self.started_at = self.last_byte_at = now()
        self.finished: Promise[Result] = Promise()

    def attach(self, connection: Connection) -> None:
        """Let the client's pace govern the connection to the engine."""
        self.connection = connection
        self._client.on_pause = connection.pause
        self._client.on_resume = self._resume

    def refused_body(self) -> bytes:
        """Return the held body of an answer that was refused."""
        return b"".join(self._held)

    def fail(self, kind: Kind, reason: str) -> None:
        """Give the attempt up, from outside: a deadline passed, or the node died."""
        if self.finished.is_kept:
            return
        self.was_given_up = True
        if self.connection is not None:
            self.connection.cancel()
        self.on_failure(kind, reason)

    def _resume(self) -> None:
        self.last_byte_at = self._now()
        if self.connection is not None:
            self.connection.resume()

    # --- the sink of the connection ---

    def on_head(self, head: ResponseHead) -> None:
        self.head = head
        if head.status == 200:
            self._framing = stream_of(self._dialect, head.content_type)

    def on_body(self, data: bytes) -> None:
        self.last_byte_at = now = self._now()
        if self.first_byte_at is None:
            self.first_byte_at = now
        if self._framing is not None:
            self._pass_units(data)
        elif self.has_begun:
            self._pass(data)
        else:
            self._hold(data)

    def on_complete(self) -> None:
        if self._framing is not None:
            self._end_stream()
        elif self.has_begun:
            self._end_passing()
        else:
            self._end_held()

    def on_failure(self, kind: Kind, reason: str) -> None:
        if self.has_ended and not self._partial:
            self._finish()  # the client has all of it: what came after does not matter
            return
        self.fault = Fault(kind, reason)
        self.finished.keep(Result.FAILED)

    def on_moved(self, connection: Connection) -> None:
        """The first connection had died unheard: the clock begins anew with another one."""
        self.started_at = self.last_byte_at = self._now()
        self.attach(connection)

    def finish_early(self) -> None:
        """End a stream whose end mark has come, though the engine keeps its connection open."""
        if self.connection is not None:
            self.connection.cancel()
        self._finish()

    @property
    def has_ended(self) -> bool:
        """Has the stream's end mark gone to the client?"""
        return self._ending is not Ending.MISSING

    def _finish(self) -> None:
        self._client.finish()
        self.finished.keep(Result.DELIVERED if self._ending is Ending.WHOLE else Result.ENGINE_ERROR)

    # --- an answer that does not stream ---

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._limits.held_answer_bytes:
            assert self.head is not None
            if self.head.status >= 300:
                self.fail(errors.NODE_GARBLED, f"an error ({self.head.status}) of more than {self._held_bytes} bytes")
                return
            if self._task.answers_json and b"".join(self._held).lstrip()[:1] not in (b"{", b"["):
                self.fail(errors.NODE_GARBLED, "the engine's answer is neither a stream nor JSON")
                return
            self._client.start(self.head.status, self._answer_fields(self.head), self.head.content_length)
            self._begin(b"".join(self._held))
            self._held = []

    def _pass(self, data: bytes) -> None:
        self.last_units = data
        self._client.write(data)

    def _end_held(self) -> None:
        head = self.head
        assert head is not None
        if head.status >= 300:
            self.finished.keep(Result.REFUSED)
            return
        body = b"".join(self._held)
        if head.content_length is None and head.is_close_delimited and not _may_be_whole(head, body):
            self.on_failure(errors.NODE_BROKE_OFF, "the engine closed the connection inside an answer")
            return
        if self._task.answers_json and not is_json(body):
            self.on_failure(errors.NODE_GARBLED, "the engine's answer is neither a stream nor JSON")
            return
        if self._renaming is not None:
            body = self._renaming.apply(body)
        self._client.send(head.status, response_fields(head.fields) + self._fields, body)
        self.finished.keep(Result.DELIVERED)

    def _end_passing(self) -> None:
        head = self.head
        assert head is not None
        if head.is_close_delimited and not _may_be_whole(head, self.last_units):
            self.on_failure(errors.NODE_BROKE_OFF, "the engine closed the connection inside an answer")
            return
        self._client.finish()
        self.finished.keep(Result.DELIVERED)

    def _answer_fields(self, head: ResponseHead) -> bytes:
        return response_fields(head.fields) + self._fields

    # --- a stream ---

    def _pass_units(self, data: bytes) -> None:
        framing = self._framing
        assert framing is not None
        if self.has_begun and not self._partial and self._long_unit is None and self._renaming is None:
            one = framing.check_one(data)
            if one is not None:
                self._ending = one
                self.last_units = data
                self._client.write(data)
                return
        if self._partial:
            data = self._partial + data
            self._partial = b""
        end = framing.whole_bytes(data)
        if end == 0:
            self._hold_partial(data)
            return
        units = data
        if end != len(data):
            units = data[:end]
            self._partial = data[end:]
        if self._long_unit is not None:
            units = self._end_long_unit(units, self._long_unit)
            if not units:
                return
        try:
            units, ending = framing.check(units)
        except MalformedStream as malformed:
            self.fail(errors.NODE_GARBLED, f"the engine sent {malformed}")
            return
        if units:
            before = self.last_units
            self._send_units(units)
            if ending is Ending.WHOLE:
                self.last_units = before + self.last_units  # what an engine measured stands before its end mark
        if ending is not None:
            self._ending = ending

    def _send_units(self, units: bytes) -> None:
        if self._renaming is not None:
            units = self._renaming.apply(units)
        if self.has_begun:
            self.last_units = units
            self._client.write(units)
            return
        if self._is_worth_retrying(units):
            self.fail(errors.NODE_FAILED, "the engine failed before its first token")
            return
        if _is_only_comments(units):
            return  # a sign of life, but no answer yet
        self._start_stream(units)

    def _start_stream(self, units: bytes) -> None:
        assert self.head is not None
        self.last_units = units
        self._client.start(200, self._answer_fields(self.head) + _NO_BUFFERING)
        self._begin(units)

    def _begin(self, data: bytes) -> None:
        self.has_begun = True
        self._client.write(data)
        if self._client.is_paused and self.connection is not None:
            self.connection.pause()

    def _is_worth_retrying(self, units: bytes) -> bool:
        """Does the stream open with an error that another node may not have?"""
        if not units.startswith(_OPENING_ERRORS):
            return False
        return judge(self._kind, 500, units).verdict is not Verdict.PASS

    def _hold_partial(self, data: bytes) -> None:
        """Hold an incomplete unit; one that is too long for that goes on as it comes."""
        if len(data) <= self._limits.held_line_bytes:
            self._partial = data
            return
        data, self._partial = data[:-_LONGEST_CUT], data[-_LONGEST_CUT:]
        if self._long_unit is None:
            self._long_unit = data
            if not self.has_begun:
                self._start_stream(data)
                return
        self._client.write(data)

    def _end_long_unit(self, units: bytes, start: bytes) -> bytes:
        """Pass the rest of a long unit on; return the units after it."""
        framing = self._framing
        assert framing is not None
        end = framing.first_bytes(units)
        rest = units[end:]
        self._client.write(units[:end])
        self.last_units, self._long_unit = b"", None
        self._ending = framing.ending_of_start(start)
        return rest

    def _end_stream(self) -> None:
        framing = self._framing
        assert framing is not None
        if self._partial and framing.ending(self._partial) is not Ending.MISSING:
            # The last unit without its end: as good as whole.
            self._pass_units(framing.separator)
        if self.finished.is_kept:
            return
        if self._long_unit is not None or self._partial or not self.has_ended:
            self._ending = Ending.MISSING
            self.on_failure(errors.NODE_BROKE_OFF, "the engine ended the stream without its end mark")
            return
        self._finish()

    @property
    def unloads(self) -> bool:
        """Did the engine say that it unloads the model?"""
        return bool(self._held) and self._held_bytes < _SHORT_ANSWER_BYTES and _UNLOADED in self._held[-1]

    @property
    def tail(self) -> bytes:
        """Return the last bytes of the answer, or more."""
        return self.last_units or (self._held[-1] if self._held else b"")

    @property
    def is_stream(self) -> bool:
        """Does the answer stream, in lines or events?"""
        return self._framing is not None

    @property
    def separator(self) -> bytes:
        """What ends a unit of this stream."""
        return self._framing.separator if self._framing is not None else b""

    @property
    def is_inside_unit(self) -> bool:
        """Has the client got the beginning of a unit and not its end?"""
        return self._long_unit is not None


def _may_be_whole(head: ResponseHead, body: bytes) -> bool:
    """Could a body that only the connection's end delimits be whole? JSON shows by its last byte."""
    return b"json" not in head.content_type or body.rstrip()[-1:] in (b"}", b"]")


def _is_only_comments(units: bytes) -> bool:
    return units.startswith(b":") and b"data:" not in units
