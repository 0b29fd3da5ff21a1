"""Moves one attempt's answer from its engine to the client, by callbacks, while the exchange sleeps.

A reader finds whole units in the engine's bytes. If the client speaks another dialect, a translator turns them into
that dialect. The exchange's `Answer` sends them to the client. The head is held until the first whole unit, and an
answer in one piece until it is whole or reaches a bound: until then, a failed request can still go to another engine.
A stream without its end mark is a failure. A client that reads slowly pauses its own engine connection and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hive import errors
from hive.dialects.streams import is_only_comments, opens_with_error, stream_of
from hive.dialects.tasks import Dialect, Task
from hive.dialects.translators import Translator, Untranslatable
from hive.dialects.unit_reader import Ending, MalformedStream, UnitReader, is_json
from hive.errors import Fault, Kind
from hive.fleet.failures import Verdict, judge
from hive.fleet.kinds import EngineKind
from hive.hub.answer import Answer, PassingAnswer, StreamingAnswer
from hive.hub.runner import Promise
from hive.net.link import Connection
from hive.wire.responses import ResponseHead

_NO_ANSWER = "the engine's answer is neither a stream nor JSON"


class Result(Enum):
    """How the answer ended."""

    DELIVERED = "delivered"
    """The client has all of it."""
    ENGINE_ERROR = "engine_error"
    """The client has all of it, and the engine itself ended it with an error."""
    REFUSED = "refused"
    """The engine answered with an error, which is held."""
    FAILED = "failed"
    """The answer is not whole."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """How much of an answer is held, in bytes."""

    held_answer_bytes: int = 1 << 20
    held_line_bytes: int = 64 << 10


class Relay:
    """The sink of one attempt's connection. `finished` gets the result, once."""

    __slots__ = (
        "_answer",
        "_dialect",
        "_kind",
        "_limits",
        "_now",
        "_out",
        "_task",
        "_translator",
        "connection",
        "fault",
        "finished",
        "first_byte_at",
        "head",
        "held",
        "last_byte_at",
        "reader",
        "started_at",
        "was_given_up",
    )

    def __init__(
        self,
        answer: Answer,
        now: Callable[[], float],
        dialect: Dialect,
        task: Task,
        kind: EngineKind,
        limits: RelayLimits,
        translator: Translator | None = None,
    ) -> None:
        """`dialect` and `kind` are those of the engine."""
        self._answer = answer
        self._now = now
        self._dialect = dialect
        self._task = task
        self._kind = kind
        self._limits = limits
        self._translator = translator
        self._out: StreamingAnswer | None = None
        """Takes the units of a stream that has begun and needs no translation; None for any other answer."""
        self.held = answer.hold()
        """Holds an answer in one piece as it comes."""
        self.reader: UnitReader | None = None
        """Reads an answer that streams."""
        self.connection: Connection | None = None
        self.head: ResponseHead | None = None
        self.fault: Fault | None = None
        self.first_byte_at: float | None = None
        self.was_given_up = False
        """Did the hub end the attempt, not the engine?"""
        self.started_at = self.last_byte_at = now()
        self.finished: Promise[Result] = Promise()

    def attach(self, connection: Connection) -> None:
        """Let the client's pace govern the connection to the engine."""
        self.connection = connection
        client = self._answer.client
        client.on_pause = connection.pause
        client.on_resume = self._resume

    def _resume(self) -> None:
        self.last_byte_at = self._now()
        if self.connection is not None:
            self.connection.resume()

    def fail(self, kind: Kind, reason: str) -> None:
        """Give the attempt up, from outside: a deadline passed, or the node died."""
        if self.finished.is_kept:
            return
        self.was_given_up = True
        if self.connection is not None:
            self.connection.cancel()
        self.on_failure(kind, reason)

    def on_head(self, head: ResponseHead) -> None:
        self.head = head
        if head.status == 200:
            reads = stream_of(self._dialect, head.content_type)
            if reads is not None:
                translator, limits = self._translator, self._limits
                if translator is not None and translator.needs_whole_units:
                    self.reader = reads(limits.held_answer_bytes, passes_long=False)
                else:
                    self.reader = reads(limits.held_line_bytes)

    def on_body(self, data: bytes) -> None:
        self.last_byte_at = now = self._now()
        if self.first_byte_at is None:
            self.first_byte_at = now
        reader = self.reader
        if reader is None:
            self._take_piece(data)
            return
        try:
            units = reader.feed(data)
        except MalformedStream as malformed:
            self._note_malformed(reader, malformed)
            return
        out = self._out
        if out is not None and not reader.long_piece:
            if units:
                out.last_units = units
                out.write(units)
            return
        self._pass_long_piece(reader)
        if units:
            self._take_units(units)

    def on_complete(self) -> None:
        if self.reader is None:
            self._end_whole()
        else:
            self._end_stream(self.reader)

    def on_failure(self, kind: Kind, reason: str) -> None:
        reader = self.reader
        if reader is not None and reader.is_whole and self._answer.has_begun:
            self._finish(reader)  # the client has all of it: what came after does not matter
            return
        self.fault = Fault(kind, reason)
        self.finished.keep(Result.FAILED)

    def on_moved(self, connection: Connection) -> None:
        """Start the clock anew with another connection: the first one had died unnoticed."""
        self.started_at = self.last_byte_at = self._now()
        self.attach(connection)

    def _take_piece(self, data: bytes) -> None:
        held = self.held
        if type(self._answer.state) is PassingAnswer:
            held.pieces = [data]
            self._answer.client.write(data)
            return
        held.pieces.append(data)
        held.size += len(data)
        if held.size > self._limits.held_answer_bytes:
            self._stop_holding()

    def _stop_holding(self) -> None:
        """Pass on an answer that is too long to be held. Fail if it is no answer, or must be translated whole."""
        head, held, translator = self.head, self.held, self._translator
        assert head is not None
        if head.status >= 300:
            self.fail(errors.NODE_GARBLED, f"an error ({head.status}) of more than {held.size} bytes")
            return
        body = held.body
        if self._task.answers_json and body.lstrip()[:1] not in (b"{", b"["):
            self.fail(errors.NODE_GARBLED, _NO_ANSWER)
            return
        if translator is not None and translator.needs_whole_units:
            self.fail(
                errors.NODE_GARBLED, f"the engine's answer of more than {held.size} bytes is too long to translate"
            )
            return
        held.pieces = [body]
        self._answer.pass_on(head, body)

    def _end_whole(self) -> None:
        head, answer, held = self.head, self._answer, self.held
        assert head is not None
        if head.status >= 300:
            self.finished.keep(Result.REFUSED)
            return
        body = b"".join(held.pieces)
        if head.content_length is None and head.is_close_delimited and not _may_be_whole(head, body):
            self.on_failure(errors.NODE_BROKE_OFF, "the engine closed the connection inside an answer")
            return
        if type(answer.state) is PassingAnswer:
            answer.finish()
        elif self._task.answers_json and not is_json(body):
            self.on_failure(errors.NODE_GARBLED, _NO_ANSWER)
            return
        else:
            try:
                answer.send_whole(head, body, self._translator)
            except Untranslatable as error:
                self.on_failure(errors.NODE_GARBLED, f"the engine's answer {error}")
                return
        self.finished.keep(Result.DELIVERED)

    def _take_units(self, units: bytes) -> None:
        answer, translator = self._answer, self._translator
        assert self.head is not None
        if not answer.has_begun:
            if opens_with_error(units) and judge(self._kind, 500, units).verdict is not Verdict.PASS:
                self.fail(errors.NODE_FAILED, "the engine failed before its first token")
                return
            if is_only_comments(units):
                return  # a sign of life, but no answer yet
        if translator is None:
            self._out = answer.give(self.head, units)
            return
        try:
            units = translator.units(units)
        except Untranslatable as error:
            self.fail(errors.NODE_GARBLED, f"the engine's answer {error}")
            return
        if units:
            answer.give(self.head, units, translator)

    def _pass_long_piece(self, reader: UnitReader) -> None:
        """Send the piece of a long unit that the reader has, if it has one, unchanged to the client."""
        piece, reader.long_piece = reader.long_piece, b""
        if piece:
            assert self.head is not None
            out = self._answer.state
            if type(out) is StreamingAnswer:
                out.write(piece)
            else:
                out = self._answer.give(self.head, piece, self._translator)
            if reader.is_inside_long_unit:
                out.rest = reader.separator
            else:
                out.rest = out.last_units = b""

    def _note_malformed(self, reader: UnitReader, malformed: MalformedStream) -> None:
        self._pass_long_piece(reader)
        self.fail(errors.NODE_GARBLED, f"the engine sent {malformed}")

    def _end_stream(self, reader: UnitReader) -> None:
        try:
            units = reader.end()
        except MalformedStream as malformed:
            self._note_malformed(reader, malformed)
            return
        self._pass_long_piece(reader)
        if units:
            self._take_units(units)
        if self.finished.is_kept:
            return
        if not reader.is_whole:
            self.on_failure(errors.NODE_BROKE_OFF, "the engine ended the stream without its end mark")
            return
        self._finish(reader)

    def finish_early(self) -> None:
        """End a stream whose end mark has come, though the engine keeps its connection open."""
        assert self.reader is not None
        if self.connection is not None:
            self.connection.cancel()
        self._finish(self.reader)

    def _finish(self, reader: UnitReader) -> None:
        if self._translator is not None:
            try:
                last = self._translator.end()
            except Untranslatable as error:
                self.fail(errors.NODE_GARBLED, f"the engine's answer {error}")
                return
            if last or not self._answer.has_begun:
                assert self.head is not None
                self._answer.give(self.head, last, self._translator)
        self._answer.finish()
        self.finished.keep(Result.DELIVERED if reader.ending is Ending.WHOLE else Result.ENGINE_ERROR)

    @property
    def has_ended(self) -> bool:
        """Has the stream's end mark been read?"""
        return self.reader is not None and self.reader.ending is not Ending.MISSING


def _may_be_whole(head: ResponseHead, body: bytes) -> bool:
    """Could a body that ends with its connection be whole? The last byte of JSON shows that."""
    return b"json" not in head.content_type or body.rstrip()[-1:] in (b"}", b"]")
