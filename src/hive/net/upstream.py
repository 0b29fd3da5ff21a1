"""One connection to an engine: an exchange at a time, its answer handed on by callbacks as the bytes arrive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from hive import errors
from hive.errors import Kind
from hive.net.link import Sink
from hive.net.outbox import Outbox
from hive.net.reasons import in_words
from hive.wire.responses import GarbledAnswer, ResponseReader

STALE_AFTER = 1.0
"""Seconds in which a pooled connection shows that it had died."""
_JOINED_BYTES = 65536
"""A body up to this size leaves in one write with its head."""


class UpstreamConnection(asyncio.Protocol):
    """A connection to one engine. `on_idle` gets it back when it may carry another exchange."""

    __slots__ = (
        "_is_announced",
        "_is_paused",
        "_on_idle",
        "_outbox",
        "_reader",
        "_sink",
        "_transport",
        "has_answered",
        "was_used",
    )

    def __init__(self, max_head_bytes: int, outbox: Outbox, on_idle: Callable[[UpstreamConnection], None]) -> None:
        self._reader = ResponseReader(max_head_bytes)
        self._outbox = outbox
        self._on_idle = on_idle
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._is_announced = False
        self._is_paused = False
        self.was_used = False
        """Has it carried an exchange before?"""
        self.has_answered = False
        """Has a byte of an answer to the current request come?"""

    def __repr__(self) -> str:
        return f"<UpstreamConnection {'busy' if self._sink else 'idle' if self.is_usable else 'closed'}>"

    @property
    def is_usable(self) -> bool:
        """Can an exchange be sent on it now?"""
        return self._transport is not None and self._sink is None and not self._transport.is_closing()

    def is_lost_unheard(self, seconds: float) -> bool:
        """A pooled connection had died before the request; later than that it is the engine that died of it."""
        return self.was_used and not self.has_answered and seconds <= STALE_AFTER

    def send(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send a request; the answer goes to `sink`."""
        assert self._transport is not None
        self._sink = sink
        self._is_announced = False
        self.has_answered = False
        self._reader.begin()
        if len(body) < _JOINED_BYTES:
            self._outbox.write(self._transport, head + body)
        else:
            self._outbox.write(self._transport, head)
            self._outbox.write(self._transport, body)

    def cancel(self) -> None:
        """Leave the exchange; the engine notices by the closed connection. The sink hears nothing more."""
        self._sink = None
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

    # --- the transport's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            self.cancel()  # a byte nobody asked for
            return
        self.has_answered = True
        reader = self._reader
        try:
            body = reader.feed(data)
        except GarbledAnswer as garbled:
            self._fail(errors.NODE_GARBLED, f"the engine's answer is garbled: {garbled}")
            return
        if not self._is_announced:
            if reader.head is None:
                return
            self._is_announced = True
            sink.on_head(reader.head)
        if body and self._sink is sink:
            sink.on_body(body)
        if reader.is_complete and self._sink is sink:
            self._complete(sink)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        sink = self._sink
        if sink is None or transport is None:
            return
        try:
            self._reader.end_of_connection()
        except GarbledAnswer:
            self._fail(
                errors.NODE_BROKE_OFF, "the engine broke the connection off" + (f" ({in_words(exc)})" if exc else "")
            )
            return
        self._sink = None
        if exc is not None:
            sink.on_failure(errors.NODE_BROKE_OFF, f"the engine broke the connection off ({in_words(exc)})")
        else:
            sink.on_complete()

    def _complete(self, sink: Sink) -> None:
        transport = self._transport
        self._sink = None
        self.was_used = True
        if transport is None:
            pass
        elif self._reader.can_be_reused and transport.get_write_buffer_size() == 0:
            if self._is_paused:  # by a slow client
                self.resume()
            self._on_idle(self)
        else:
            transport.abort()  # what it has not read of the request is not wanted any more
        sink.on_complete()

    def _fail(self, kind: Kind, reason: str) -> None:
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.on_failure(kind, reason)
