"""The body of a request that streams to its handler, as fast as the handler takes it: none of it is held.

The handler puts an intake on the stream when it judges the request. It is called at the end of the head then, and
nothing is read of the client until it calls `read`.
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
        """A piece of the body, at least one byte."""

    def on_end(self) -> None:
        """The body is whole."""


class Bearer(Protocol):
    """The connection that a body comes on."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def end_body(self) -> None:
        """The body is whole."""

    def break_body(self, fault: Fault) -> None:
        """The body will never be whole: the handler hears of a departure, the client of the fault."""


class BodyIntake:
    """One body. A client that breaks it off departs: the stream's `on_departure` says so, and nothing more comes."""

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

    # --- for the handler ---

    def read(self, sink: BodySink) -> None:
        """Let the body come, what is there of it in this very call; a client that waits for `100 Continue` gets it."""
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
        """Read no more of the client until `resume`; its time stands still."""
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

    # --- for the connection ---

    def open(
        self,
        bearer: Bearer,
        reader: RequestReader,
        transport: asyncio.Transport,
        now: Callable[[], float],
        timeout: float,
    ) -> None:
        """Begin, paused. `timeout`: seconds that the client may send no byte while it is read."""
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
        """Break a body off that does not come."""
        if self._bearer is not None and not self._is_paused and not self._has_ended and now >= self._deadline:
            bearer = self._bearer
            self._drop()
            bearer.break_body(Fault(REQUEST_TIMEOUT, "the request took too long to arrive"))

    def leave(self) -> None:
        """The answer is whole, or the body is broken off: hand nothing more on, and read what still comes."""
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
        if reader.is_complete and self._sink is sink:  # else the piece was answered
            self._has_ended = True
            self.resume()
            bearer.end_body()
            sink.on_end()
