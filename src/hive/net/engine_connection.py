"""One connection to an engine. It carries one exchange at a time, and hands the answer on by callbacks as it arrives.

The hub uses this connection for the engines that it dials. A node uses it for its own engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast

from hive import errors
from hive.errors import Kind
from hive.net.link import Sink, StreamingSink
from hive.net.outbox import LARGE_PIECE_BYTES, Outbox, set_nodelay
from hive.net.reasons import in_words
from hive.net.resend import Resend
from hive.wire.responses import GarbledAnswer, ResponseReader

STALE_AFTER = 1.0
"""A pooled connection that fails in these seconds was dead before. If it fails later, the request may be the cause."""
MAX_KEPT_BYTES = 64 << 10
"""A request in pieces is kept up to this size, to be sent again.

For a longer request the caller dials a new connection, which is not stale.
"""
_MOST_KEPT_BYTES = 2 * MAX_KEPT_BYTES
"""The same, with the head of the request."""
_JOINED_BYTES = 65536
"""A body up to this size leaves in one write with its head."""

_Request = tuple[bytes, bytes, bool, bool]
"""The arguments of `send` or `begin`: two parts of the bytes, whether the answer is bodiless, whether it is raw."""


class Pool(Protocol):
    """The pool that a connection belongs to."""

    async def dial(self) -> EngineConnection:
        """Return a new connection. Raises `Fault`."""

    def put_back(self, connection: EngineConnection) -> None:
        """Take a connection back: it may carry another exchange."""


class EngineConnection(asyncio.Protocol):
    """A connection to one engine."""

    __slots__ = (
        "_is_announced",
        "_is_paused",
        "_is_raw",
        "_max_head_bytes",
        "_outbox",
        "_pool",
        "_reader",
        "_resend",
        "_sent_at",
        "_sink",
        "_source",
        "_transport",
        "_unheard",
        "_was_used",
    )

    def __init__(self, max_head_bytes: int, outbox: Outbox, pool: Pool) -> None:
        self._max_head_bytes = max_head_bytes
        self._outbox = outbox
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._source: StreamingSink | None = None
        """The sink, while it still sends the request."""
        self._is_announced = False
        """Has the sink got the head of the answer?"""
        self._is_paused = False
        self._is_raw = False
        self._was_used = False
        """Has it carried an exchange before?"""
        self._unheard: _Request | None = None
        """The request that was sent on a pooled connection, until the first byte of an answer."""
        self._sent_at = 0.0
        self._resend: Resend[EngineConnection] | None = None
        """The request on its way to another connection, because this connection had died."""

    def __repr__(self) -> str:
        return f"<EngineConnection {'busy' if self._sink else 'idle' if self.is_usable else 'closed'}>"

    @property
    def is_usable(self) -> bool:
        """Can an exchange be sent on it now?"""
        return self._transport is not None and self._sink is None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, sink: Sink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send a whole request; the answer goes to `sink`. `is_raw`: hand its bytes on unparsed, with the head."""
        self._sink = sink
        self._is_announced = False
        self._is_raw = is_raw
        if self._was_used:
            self._unheard = (head, body, is_bodiless, is_raw)
            self._sent_at = monotonic()
        transport = self._transport
        if transport is None:
            self._fail(errors.NODE_BROKE_OFF, "the engine closed the connection before the request was sent")
            return
        self._reader.begin(is_bodiless)
        if len(body) < _JOINED_BYTES:
            self._outbox.write(transport, head + body)
        else:
            self._outbox.write(transport, head)
            self._outbox.write(transport, body)

    def begin(self, data: bytes, sink: StreamingSink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send the first bytes of a request, with its whole head; then `write` the other bytes, then `finish`."""
        self._source = sink
        self.send(data, b"", sink, is_bodiless=is_bodiless, is_raw=is_raw)

    def write(self, data: bytes) -> None:
        """Send more bytes of the request; nothing once its answer is whole."""
        if self._source is None:
            return
        if self._unheard is not None:
            self._keep(data, self._unheard)
        if self._transport is not None:
            self._outbox.write(self._transport, data)
            if len(data) >= LARGE_PIECE_BYTES:
                self._outbox.flush()

    def _keep(self, data: bytes, unheard: _Request) -> None:
        head, _, is_bodiless, is_raw = unheard
        is_short = len(head) + len(data) <= _MOST_KEPT_BYTES
        self._unheard = (head + data, b"", is_bodiless, is_raw) if is_short else None

    def finish(self) -> None:
        """Note that the request is whole."""
        self._source = None

    def cancel(self) -> None:
        """Leave the exchange. The engine sees a closed connection. The sink gets no further call."""
        self._sink = self._source = self._unheard = None
        resend, self._resend = self._resend, None
        if resend is not None:
            resend.cancel()
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if self._transport is not None and not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close an idle connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reader = ResponseReader(self._max_head_bytes)  # not before: a dial that fails never closes it
        set_nodelay(transport)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            self.cancel()  # a byte without a request
            return
        self._unheard = None
        reader = self._reader
        try:
            body = reader.feed(data)
        except GarbledAnswer as garbled:
            self._fail(errors.NODE_GARBLED, f"the engine's answer is garbled: {garbled}")
            return
        if self._is_raw:
            sink.on_body(data)
        else:
            if not self._is_announced:
                if reader.head is None:
                    return
                self._is_announced = True
                sink.on_head(reader.head)
            if body and self._sink is sink:
                sink.on_body(body)
        if reader.is_complete and self._sink is sink:
            self._complete(sink)

    def pause_writing(self) -> None:
        if self._source is not None:
            self._source.on_full(True)

    def resume_writing(self) -> None:
        if self._source is not None:
            self._source.on_full(False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        sink = self._sink
        self._lose(sink if transport is not None else None, exc)
        self._reader.close()

    def _lose(self, sink: Sink | None, exc: Exception | None) -> None:
        """End the exchange of a connection that is gone; without a sink there is none."""
        if sink is None:
            return
        broke_off = "the engine broke the connection off" + (f" ({in_words(exc)})" if exc else "")
        try:
            self._reader.end_of_connection()
        except GarbledAnswer:
            self._fail(errors.NODE_BROKE_OFF, broke_off)
            return
        self._sink = self._source = None
        if exc is not None:
            sink.on_failure(errors.NODE_BROKE_OFF, broke_off)
        else:
            sink.on_complete()

    def _complete(self, sink: Sink) -> None:
        transport = self._transport
        self._sink = None
        self._was_used = True
        if transport is None:
            pass
        elif self._reader.can_be_reused and self._source is None and transport.get_write_buffer_size() == 0:
            if self._is_paused:  # by a slow client
                self.resume()
            self._pool.put_back(self)
        else:
            self._source = None
            transport.abort()  # the part of the request that the engine has not read is not wanted any more
        sink.on_complete()

    def _fail(self, kind: Kind, reason: str) -> None:
        sink, source, unheard = self._sink, self._source, self._unheard
        self.cancel()
        if sink is None:
            return
        if unheard is None or monotonic() - self._sent_at > STALE_AFTER:
            sink.on_failure(kind, reason)
            return
        # `cancel` has cleared both. `write` adds to the request until it is sent again.
        self._source, self._unheard = source, unheard
        self._resend = Resend(self._pool.dial, sink)
        self._resend.start(self._repeater(sink))

    def _repeater(self, sink: Sink) -> Callable[[EngineConnection], None]:
        """Return a function that sends the request, as far as it has come by then, on another connection."""

        def repeat(other: EngineConnection) -> None:
            source, unheard = self._source, self._unheard
            self._source = self._unheard = self._resend = None
            if unheard is None:
                other.close()
                sink.on_failure(errors.NODE_BROKE_OFF, "the request is too long to be sent again")
                return
            other._source = source
            head, body, is_bodiless, is_raw = unheard
            other.send(head, body, sink, is_bodiless=is_bodiless, is_raw=is_raw)
            if source is not None:
                source.on_full(False)  # whatever the dead connection has said

        return repeat
