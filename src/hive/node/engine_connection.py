"""One connection to an engine: an exchange at a time, its answer handed on as the bytes came, and its end found."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Protocol, cast

from hive.net.outbox import Outbox
from hive.wire.link_messages import EndCode
from hive.wire.responses import GarbledAnswer, ResponseHead, ResponseReader

STALE_AFTER = 1.0
"""Seconds in which a pooled connection shows that it had died."""

MAX_HEAD_BYTES = 64 << 10


class AnswerSink(Protocol):
    """Takes an engine's answer. After `on_complete` or `on_failure` nothing more comes."""

    @property
    def has_sent_all(self) -> bool:
        """Is the whole request handed over?"""

    def on_answer(self, data: bytes, body: bytes) -> None:
        """Take bytes of the answer as they came, and what of them is body."""

    def on_complete(self) -> None:
        """The answer is whole."""

    def on_failure(self, code: EndCode, reason: str, *, is_stale: bool) -> None:
        """The answer will never be whole. `is_stale`: a connection used before died without a byte."""

    def on_full(self, is_full: bool) -> None:
        """The engine takes no more of the request for now, or takes it again."""


class EngineConnection(asyncio.Protocol):
    """A connection to an engine. `on_idle` gets it back when it may carry another exchange."""

    __slots__ = (
        "_has_answered",
        "_is_paused",
        "_on_idle",
        "_outbox",
        "_reader",
        "_sent_at",
        "_sink",
        "_transport",
        "_was_used",
    )

    def __init__(self, outbox: Outbox, on_idle: Callable[[EngineConnection], None]) -> None:
        self._outbox = outbox
        self._on_idle = on_idle
        self._reader = ResponseReader(MAX_HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._sink: AnswerSink | None = None
        self._is_paused = False
        self._has_answered = False
        self._was_used = False
        self._sent_at = 0.0

    def __repr__(self) -> str:
        return f"<EngineConnection {'busy' if self._sink else 'idle' if self.is_usable else 'closed'}>"

    @property
    def is_usable(self) -> bool:
        """Can an exchange be sent on it now?"""
        return self._transport is not None and self._sink is None and not self._transport.is_closing()

    @property
    def answer_head(self) -> ResponseHead | None:
        """The head of the current answer, or of the last one."""
        return self._reader.head

    def send(self, data: bytes, sink: AnswerSink, *, is_bodiless: bool = False) -> None:
        """Send the first bytes of a request; `write` the others. `is_bodiless`: its answer has a head alone.

        A connection that was lost since it was dialed or pooled fails at once: nobody else would tell the sink.
        """
        self._sink = sink
        self._sent_at = time.monotonic()
        self._has_answered = False
        self._reader.begin(is_bodiless=is_bodiless)
        if self._transport is None or self._transport.is_closing():
            self._fail(EndCode.ENGINE_BROKE_OFF, "the engine closed the connection before the request was sent")
        else:
            self.write(data)

    def write(self, data: bytes) -> None:
        """Send more bytes of the request."""
        if self._transport is not None:
            self._outbox.write(self._transport, data)

    def cancel(self) -> None:
        """Leave the exchange: the engine notices by the closed connection. The sink hears nothing more."""
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
        set_nodelay(transport)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            self.cancel()  # a byte nobody asked for
            return
        self._has_answered = True
        reader = self._reader
        try:
            body = reader.feed(data)
        except GarbledAnswer as garbled:
            self._fail(EndCode.ENGINE_GARBLED, f"the engine's answer is garbled: {garbled}")
            return
        sink.on_answer(data, body)
        if reader.is_complete and self._sink is sink:
            self._complete(sink)

    def pause_writing(self) -> None:
        if self._sink is not None:
            self._sink.on_full(True)

    def resume_writing(self) -> None:
        if self._sink is not None:
            self._sink.on_full(False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self._transport = self._transport, None
        sink = self._sink
        if sink is None or transport is None:
            return
        broke_off = "the engine broke the connection off" + (f" ({exc})" if exc else "")
        try:
            self._reader.end_of_connection()
        except GarbledAnswer:
            self._fail(EndCode.ENGINE_BROKE_OFF, broke_off)
            return
        self._sink = None
        if exc is not None:
            sink.on_failure(EndCode.ENGINE_BROKE_OFF, broke_off, is_stale=False)
        else:
            sink.on_complete()

    def _complete(self, sink: AnswerSink) -> None:
        transport = self._transport
        self._sink = None
        self._was_used = True
        is_clean = self._reader.can_be_reused and sink.has_sent_all
        if transport is None:
            pass
        elif is_clean and transport.get_write_buffer_size() == 0:
            self.resume()  # it may have been paused for a slow hub
            self._on_idle(self)
        else:
            transport.abort()  # what it has not read of the request is not wanted any more
        sink.on_complete()

    def _fail(self, code: EndCode, reason: str) -> None:
        sink = self._sink
        is_fresh = time.monotonic() - self._sent_at <= STALE_AFTER  # later it is the engine that died of the request
        is_stale = self._was_used and not self._has_answered and is_fresh
        self.cancel()
        if sink is not None:
            sink.on_failure(code, reason, is_stale=is_stale)


def set_nodelay(transport: asyncio.BaseTransport) -> None:
    """Let small writes leave at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
