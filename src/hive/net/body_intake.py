"""The body of a request that streams to its handler, as fast as the handler takes it. The hub keeps no part of it.

The handler puts an intake on the stream when it judges the request. The server then calls the handler at the end of
the head, and reads nothing from the client until the handler calls `read`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from hive.errors import REQUEST_TIMEOUT, Fault
from hive.wire.requests import RequestReader

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodySink(Protocol):
    """Takes a body."""

    def on_piece(self, data: bytes) -> None:
        """Take a piece of the body, at least one byte."""

    def on_end(self) -> None:
        """Note that the body is whole."""


class Bearer(Protocol):
    """The connection that a body comes on."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def end_body(self) -> None:
        """Note that the body is whole."""

    def break_body(self, fault: Fault) -> None:
        """End a body that will never be whole: the handler gets a departure, and the client gets the fault."""


class BodyIntake:
    """One body. If the client breaks it off, the stream calls `on_departure`, and no more of the body comes."""

    __slots__ = (
        "_bearer",
        "_deadline",
        "_has_ended",
        "_is_paused",
        "_now",
        "_reader",
        "_sink",
        "_timeout",
        "_transport",
    )

    def __init__(self) -> None:
        self._bearer: Bearer | None = None
        self._reader: RequestReader | None = None
        self._transport: asyncio.Transport | None = None
        self._sink: BodySink | None = None
        self._now: Callable[[], float] = float
        self._timeout = 0.0
        self._deadline = 0.0
        self._is_paused = self._has_ended = False

    def read(self, sink: BodySink) -> None:
        """Read the body into `sink`, its waiting bytes in this call. Send `100 Continue` if the client expects it."""
        reader, bearer = self._reader, self._bearer
        if reader is None or bearer is None:
            return  # the client has its answer, or is gone
        self._sink = sink
        head = reader.head
        if head is not None and head.expects_continue and not reader.is_complete and not reader.body_bytes:
            bearer.write(_CONTINUE)
        self.resume()
        self._hand_on(reader, bearer)

    def pause(self) -> None:
        """Read no more from the client until `resume`; the deadline of the body stands still."""
        transport = self._transport
        if transport is not None and not self._is_paused and not self._has_ended and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        transport = self._transport
        if transport is not None and self._is_paused and not transport.is_closing():
            self._is_paused = False
            self._deadline = self._now() + self._timeout
            transport.resume_reading()

    # The connection calls the methods from here on.

    def open(
        self,
        bearer: Bearer,
        reader: RequestReader,
        transport: asyncio.Transport,
        now: Callable[[], float],
        timeout: float,
    ) -> None:
        """Begin, paused. `timeout`: the seconds without a byte after which the body is broken off."""
        self._bearer, self._reader, self._transport = bearer, reader, transport
        self._now, self._timeout = now, timeout
        if not reader.is_complete:
            self.pause()

    def take(self, data: bytes) -> None:
        """Take bytes from the client."""
        reader, bearer = self._reader, self._bearer
        if reader is None or bearer is None:
            return
        try:
            reader.feed(data)
        except Fault as fault:
            self._drop()
            bearer.break_body(fault)
            return
        self._deadline = self._now() + self._timeout
        self._hand_on(reader, bearer)

    def check_deadline(self, now: float) -> None:
        """Break the body off if no byte of it came in time."""
        if self._bearer is not None and not self._is_paused and not self._has_ended and now >= self._deadline:
            bearer = self._bearer
            self._drop()
            bearer.break_body(Fault(REQUEST_TIMEOUT, "the request took too long to arrive"))

    def leave(self) -> None:
        """Hand nothing more on, and discard further bytes: the answer is whole, or the body is broken off."""
        self.resume()
        self._drop()

    def _drop(self) -> None:
        self._sink = self._bearer = None

    def _hand_on(self, reader: RequestReader, bearer: Bearer) -> None:
        sink = self._sink
        if sink is None or self._has_ended:
            return
        piece = reader.take_body()
        if piece:
            sink.on_piece(piece)
        if reader.is_complete and self._sink is sink:  # otherwise the handler has answered at the last piece
            self._has_ended = True
            self.resume()
            bearer.end_body()
            sink.on_end()
