"""The client's side of an answer: what an exchange has sent to its client, and how the answer continues or ends.

There is one for each exchange, whatever attempts there are. What has been said is a state, which outlives an attempt.
As long as that is `HeldAnswer`, the client knows nothing, and a failure can move elsewhere.
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
    """Nothing has been said to the client: an answer in one piece is held here as it comes."""

    pieces: list[bytes] = []
    """Once the answer is passed on, only the newest piece is kept."""
    size: int = 0
    """The size of all pieces, in bytes."""

    @property
    def body(self) -> bytes:
        """Return all pieces as one."""
        return b"".join(self.pieces)

    @property
    def tail(self) -> bytes:
        """Return the newest piece: it ends with the last bytes."""
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
    """An answer in one piece that is too long to be held: it is sent as it comes."""

    __slots__ = ()

    def tell(self, answer: Answer, fault: Fault) -> None:
        """Cut the answer: it has no place for an error."""
        answer.client.cut()


class StreamingAnswer:
    """A stream that is sent as it comes, in whole units of the client's dialect."""

    __slots__ = ("last_units", "rest", "write")

    def __init__(self, write: Callable[[bytes], None], first_units: bytes) -> None:
        self.write = write
        """Sends units to the client."""
        self.last_units = first_units
        """The last units that were sent."""
        self.rest = b""
        """The bytes that would end a unit if the client has only its beginning."""

    def tell(self, answer: Answer, fault: Fault) -> None:
        """End the stream with an error in its own dialect."""
        client = answer.client
        client.write(self.rest + answer.errors.in_stream(fault, client.request_id, self.last_units))
        client.finish()


class EndedAnswer:
    """The client has a whole answer, or an error."""

    __slots__ = ()

    def tell(self, answer: Answer, fault: Fault) -> None:
        """Say nothing more."""


_PASSING, _ENDED = PassingAnswer(), EndedAnswer()


class Answer(msgspec.Struct):
    """What the client of one exchange is told. `fields`: header lines that the hub adds to the client's answer.

    If the engine speaks another dialect than the client, a translator says what its head and its body become.
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
        """Return an empty place for a new attempt's answer; drop what an earlier attempt left."""
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
        """Send an engine's answer in one piece."""
        self.state = _ENDED
        if translator is None:
            self.client.send(head.status, response_fields(head.fields) + self.fields, body)
        else:
            self.client.send(head.status, _fields_of(head, translator) + self.fields, translator.whole(body))

    def pass_on(self, head: ResponseHead, data: bytes) -> None:
        """Begin an answer that is sent as it comes; `data`: its first bytes."""
        self.client.start(head.status, _fields_of(head, None) + self.fields, head.content_length)
        self.state = _PASSING
        self.client.write(data)
        self._keep_pace()

    def give(self, head: ResponseHead, units: bytes, translator: Translator | None = None) -> StreamingAnswer:
        """Send some units of a stream, in the client's dialect; the first ones begin it."""
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
        """End an answer that has begun, as a whole one."""
        self.state = _ENDED
        self.client.finish()

    def tell(self, fault: Fault) -> None:
        """End the answer with a fault, in the way that is still possible."""
        state, self.state = self.state, _ENDED
        state.tell(self, fault)

    def _keep_pace(self) -> None:
        """Pause the engine if the client is already paused when the answer begins."""
        client = self.client
        if client.is_paused and client.on_pause is not None:
            client.on_pause()


def _fields_of(head: ResponseHead, translator: Translator | None) -> bytes:
    """Return the header lines of an engine's answer as the client is to have them."""
    if translator is None:
        return response_fields(head.fields)
    translated = translator.content_type(head.content_type)
    return response_fields([(n, translated if n == b"content-type" else value) for n, value in head.fields])
