"""The client's side of an answer: what an exchange has sent to its client, and how the answer goes on or ends.

An exchange has one `Answer` for all its attempts. The state of the answer says what the client has got so far. While
the state is `HeldAnswer`, the client has got nothing, and a failed request can still go to another engine.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hive.dialects.error_shapes import ErrorShapes, error_answer
from hive.dialects.translators import Translator
from hive.errors import Fault
from hive.net.stream import ClientStream
from hive.wire.forwarding import response_fields
from hive.wire.responses import ResponseHead

_UNLOADED = b'"done_reason":"unload"'
_SHORT_ANSWER_BYTES = 1024
_NO_BUFFERING = b"X-Accel-Buffering: no\r\n"


class HeldAnswer(msgspec.Struct):
    """The client has got nothing yet: an answer in one piece is held here as it comes."""

    pieces: list[bytes] = []
    """Once the answer goes on to the client, only the last piece is kept."""
    size: int = 0
    """The size of all pieces together, in bytes."""

    @property
    def body(self) -> bytes:
        """Return all pieces as one."""
        return b"".join(self.pieces)

    @property
    def tail(self) -> bytes:
        """Return the last piece; empty when there is none."""
        return self.pieces[-1] if self.pieces else b""

    @property
    def tells_unload(self) -> bool:
        """Did the engine say that it unloads the model?"""
        pieces = self.pieces
        return bool(pieces) and self.size < _SHORT_ANSWER_BYTES and _UNLOADED in pieces[-1]

    def tell(self, answer: Answer, fault: Fault) -> None:
        """Send the fault as a whole answer."""
        status, fields, body = error_answer(answer.errors, fault, answer.client.request_id)
        answer.send(status, fields, body)


class PassingAnswer:
    """An answer in one piece that is too long to be held: it goes on to the client as it comes."""

    __slots__ = ()

    def tell(self, answer: Answer, fault: Fault) -> None:
        """Cut the answer: it has no place for an error."""
        answer.client.cut()


class StreamingAnswer:
    """A stream that goes on to the client, in whole units of the client's dialect."""

    __slots__ = ("last_units", "rest", "write")

    def __init__(self, write: Callable[[bytes], None], first_units: bytes) -> None:
        self.write = write
        """Sends units to the client."""
        self.last_units = first_units
        """The last units that were sent."""
        self.rest = b""
        """The bytes that would end a unit of which the client has only the beginning."""

    def tell(self, answer: Answer, fault: Fault) -> None:
        """End the stream with an error in its own dialect."""
        client = answer.client
        client.write(self.rest + answer.errors.in_stream(fault, client.request_id, self.last_units))
        client.finish()


class EndedAnswer:
    """The client has a whole answer, or an error."""

    __slots__ = ()

    def tell(self, answer: Answer, fault: Fault) -> None:
        """Do nothing: the answer has ended."""


_PASSING, _ENDED = PassingAnswer(), EndedAnswer()


class Answer(msgspec.Struct):
    """The answer to the client of one exchange. `fields` are the hub's own header lines in it.

    If the engine speaks another dialect than the client, a translator turns its answer into the client's dialect.
    """

    client: ClientStream
    errors: ErrorShapes
    """How the client is told of a fault."""
    fields: bytes = b""
    state: HeldAnswer | PassingAnswer | StreamingAnswer | EndedAnswer = msgspec.field(default_factory=HeldAnswer)

    @property
    def has_begun(self) -> bool:
        """Has the client got a part of an answer, or all of it?"""
        return type(self.state) is not HeldAnswer

    def hold(self) -> HeldAnswer:
        """Return an empty place for the answer of a new attempt; drop what an earlier attempt left."""
        state = self.state
        if type(state) is HeldAnswer and not state.pieces:
            return state
        held = HeldAnswer()
        if type(state) is HeldAnswer:
            self.state = held
        return held

    def send(self, status: int, fields: bytes, body: bytes) -> None:
        """Send a whole answer."""
        self.state = _ENDED
        self.client.send(status, fields + self.fields, body)

    def send_whole(self, head: ResponseHead, body: bytes, translator: Translator | None = None) -> None:
        """Send an engine's answer in one piece. Raises `Untranslatable`; then nothing is sent."""
        if translator is None:
            fields = response_fields(head.fields)
        else:
            fields, body = _fields_of(head, translator), translator.whole(body)
        self.state = _ENDED
        self.client.send(head.status, fields + self.fields, body)

    def pass_on(self, head: ResponseHead, data: bytes) -> None:
        """Begin an answer in one piece with its first bytes; the others follow as they come."""
        self.client.start(head.status, _fields_of(head, None) + self.fields, head.content_length)
        self.state = _PASSING
        self.client.write(data)
        self._keep_pace()

    def give(self, head: ResponseHead, units: bytes, translator: Translator | None = None) -> StreamingAnswer:
        """Send units of a stream, in the client's dialect; the first units begin it. Return the state of the stream."""
        state, client = self.state, self.client
        if type(state) is StreamingAnswer:
            state.last_units = units
            client.write(units)
            return state
        client.start(200, _fields_of(head, translator) + self.fields + _NO_BUFFERING)
        self.state = state = StreamingAnswer(client.write, units)
        if units:
            client.write(units)
        self._keep_pace()
        return state

    def finish(self) -> None:
        """End an answer that has begun: it is whole."""
        self.state = _ENDED
        self.client.finish()

    def tell(self, fault: Fault) -> None:
        """End the answer with a fault, in the way that its state still allows."""
        state, self.state = self.state, _ENDED
        state.tell(self, fault)

    def _keep_pace(self) -> None:
        """Pause the engine if the client read slowly from the very beginning."""
        client = self.client
        if client.is_paused and client.on_pause is not None:
            client.on_pause()


def _fields_of(head: ResponseHead, translator: Translator | None) -> bytes:
    """Return the header lines of an engine's answer as the client gets them."""
    if translator is None:
        return response_fields(head.fields)
    translated = translator.content_type(head.content_type)
    return response_fields([(n, translated if n == b"content-type" else value) for n, value in head.fields])
