"""One request and its answer on a client's connection, as an exchange uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from hive.net.body_intake import BodyIntake
from hive.wire.requests import RequestHead

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_STATUS_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n".encode()


class BodyMemory(Protocol):
    """Counts the bodies of requests in memory."""

    def hold(self, size: int) -> None:
        """Count the body of this connection at its new size. Raises `Fault` when there is no room for it."""


class Carrier(Protocol):
    """The connection that carries a request and its answer."""

    @property
    def peer(self) -> str:
        """Return the address of the client."""

    @property
    def is_paused(self) -> bool:
        """Does it take no more bytes for now?"""

    @property
    def held_body(self) -> BodyMemory:
        """Return the counter for the body of its request."""

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""

    def flush(self) -> None:
        """Write now the bytes that wait for the end of the turn."""

    def own_lines(self, head: RequestHead) -> bytes:
        """Return the header lines of the connection itself."""

    def close_after_answer(self) -> None:
        """Make the coming answer the last one."""

    def answered(self) -> None:
        """Note that the answer is whole: wait for the next request, or close."""

    def close(self) -> None:
        """Close once all written bytes have left."""

    def reset(self) -> None:
        """Close now, in a way that no client can take for the end of an answer."""

    def hand_over(self, head: bytes, protocol: asyncio.Protocol) -> None:
        """Send a head and let another protocol have the connection."""


class ClientStream:
    """Answers one request: `send` at once, or `start`, `write` and `finish`. After a departure all of them do nothing.

    `on_departure` is called once when the client goes away before the answer is finished; `on_pause` and
    `on_resume` when its connection takes no more bytes, and when it does again.
    """

    __slots__ = (
        "_connection",
        "_has_length",
        "_is_chunked",
        "_pending",
        "body",
        "bytes_sent",
        "has_departed",
        "has_started",
        "head",
        "intake",
        "is_finished",
        "is_paused",
        "max_body_bytes",
        "on_departure",
        "on_pause",
        "on_resume",
        "peer",
        "plan",
        "request_id",
        "takes_body",
    )

    def __init__(self, connection: Carrier, head: RequestHead, request_id: str, max_body_bytes: int = 0) -> None:
        self._connection = connection
        self.head = head
        self.peer = connection.peer
        self.request_id = request_id
        self.is_paused = connection.is_paused
        self.body = b""
        self.plan: object = None
        """The handler's own result of `judge`, kept here for its `begin`."""
        self.takes_body = False
        """Does the handler want the body? The handler sets this when it judges. If not, it answers at once."""
        self.intake: BodyIntake | None = None
        """The intake of a body that streams. The handler sets it when it judges, if it does not want the body whole."""
        self.max_body_bytes = max_body_bytes
        """The longest body that is taken whole; the handler may change it when it judges."""
        self.bytes_sent = 0
        self.has_started = self.is_finished = self.has_departed = False
        self.on_departure: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._pending = b""
        self._is_chunked = self._has_length = False

    def replace_body(self, body: bytes) -> None:
        """Hold another body instead, such as the unpacked one. Raises `Fault` when there is no room for it."""
        self.body = body
        self._connection.held_body.hold(len(body))

    def send(self, status: int, fields: bytes, body: bytes) -> None:
        """Answer at once. `fields` are whole header lines, without the lines of framing."""
        if self.has_departed or self.has_started:
            return
        self.has_started = self.is_finished = True
        head = b"".join(
            (
                _STATUS_LINES.get(status) or status_line(status),
                fields,
                self._connection.own_lines(self.head),
                b"Content-Length: %d\r\n\r\n" % len(body),
            )
        )
        if self.head.method == "HEAD" or status in (204, 304):
            if status in (204, 304):
                head = head.replace(b"Content-Length: 0\r\n", b"")
            body = b""
        self.bytes_sent = len(body)
        self._connection.write(head + body)
        self._connection.answered()

    def start(self, status: int, fields: bytes, length: int | None = None) -> None:
        """Begin an answer; its head leaves with the first bytes of the body."""
        if self.has_departed:
            return
        self.has_started = True
        if length is not None:
            self._has_length = True
            framing = b"Content-Length: %d\r\n\r\n" % length
        elif self.head.is_http11 and self.head.method != "HEAD":
            self._is_chunked = True
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
        else:
            self._connection.close_after_answer()
            framing = b"\r\n"
        self._pending = status_line(status) + fields + self._connection.own_lines(self.head) + framing

    def write(self, data: bytes) -> None:
        """Send a piece of the body, at least one byte."""
        if self.has_departed:
            return
        self.bytes_sent += len(data)
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._pending:
            data, self._pending = self._pending + data, b""
        self._connection.write(data)

    def flush(self) -> None:
        """Write now what waits for the end of the turn. After a large piece this lets `on_pause` come in time."""
        self._connection.flush()

    def finish(self) -> None:
        """End the answer as a whole one."""
        if self.has_departed or self.is_finished:
            return
        self.is_finished = True
        last = self._pending + (b"0\r\n\r\n" if self._is_chunked else b"")
        if last:
            self._connection.write(last)
        self._connection.answered()

    def hand_over(self, head: bytes, protocol: asyncio.Protocol) -> None:
        """Answer with a head that ends HTTP on this connection, and give the connection to another protocol."""
        if not self.has_departed:
            self._connection.hand_over(head, protocol)

    def cut(self) -> None:
        """Break the answer off, so that no client can take it for a whole answer."""
        if not self.has_departed and not self.is_finished:
            self.is_finished = True
            if self._is_chunked or self._has_length:
                self._connection.close()
            else:
                self._connection.reset()

    def depart(self) -> None:
        """Note that the client is gone. The connection calls this."""
        if self.has_departed:
            return
        self.has_departed = True
        if not self.is_finished and self.on_departure is not None:
            self.on_departure()

    def pause(self) -> None:
        """Note that the connection's buffer is full. The connection calls this."""
        self.is_paused = True
        if self.on_pause is not None:
            self.on_pause()

    def resume(self) -> None:
        """Note that the connection takes bytes again. The connection calls this."""
        self.is_paused = False
        if self.on_resume is not None:
            self.on_resume()
