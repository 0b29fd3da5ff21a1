"""Carries one client's request to one engine while its body still comes, and the engine's answer back.

A passage keeps only the bytes that are under way. A slow engine pauses its client, and a slow client pauses its engine.
A passage chooses no engine, and tries no second engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hive import errors
from hive.errors import Fault, Kind
from hive.net.body_intake import BodyIntake
from hive.net.link import Connection, Link
from hive.net.outbox import LARGE_PIECE_BYTES
from hive.net.pending_dial import PendingDial
from hive.net.stream import ClientStream
from hive.wire.forwarding import response_fields, streamed_request_head
from hive.wire.responses import ResponseHead

STUCK_SECONDS = 60.0
"""Seconds after which an engine that takes no byte of a request is given up."""


class Passage:
    """One request on its way to an engine. Call `start`; `on_end` is called once.

    `on_end` gets None when the client has the answer or is gone (`stream.has_departed`), otherwise a `Fault`. With a
    `Fault` the answer was cut if `has_begun` is true; if not, the client still waits for an answer.
    """

    __slots__ = (
        "_connection",
        "_dialing",
        "_fields",
        "_full_since",
        "_head",
        "_intake",
        "_is_over",
        "_link",
        "_on_end",
        "_path",
        "_reads",
        "_stream",
        "_timer",
        "has_begun",
    )

    def __init__(
        self, stream: ClientStream, link: Link, path: bytes, fields: bytes, on_end: Callable[[Fault | None], None]
    ) -> None:
        """`path`: the path at the engine, our own literal. `fields`: header lines that the hub adds to the answer."""
        assert stream.intake is not None, "the handler wants the body whole"
        self._stream = stream
        self._intake: BodyIntake = stream.intake
        self._link = link
        self._path = path
        self._fields = fields
        self._on_end = on_end
        self._connection: Connection | None = None
        self._dialing: PendingDial[Connection] | None = None
        self._head: ResponseHead | None = None
        self._reads = False
        """Has the intake been asked for the body?"""
        self._is_over = False
        self._full_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.has_begun = False
        """Was a byte of the answer sent to the client?"""

    def start(self) -> None:
        """Find a connection and begin; the client's departure ends it. Only a request without a body uses the pool."""
        self._stream.on_departure = self._leave
        connection = None if self._stream.head.has_body else self._link.take_idle()
        if connection is not None:
            self._send(connection)
        else:
            self._dialing = PendingDial(self._link.dial, self._send, self._fail)

    def give_up(self, fault: Fault) -> None:
        """End the passage with this fault."""
        self._fail(fault)

    def _send(self, connection: Connection) -> None:
        self._dialing = None
        link, client = self._link, self._stream.head
        head = streamed_request_head(client, link.base_path + self._path, link.host_field, link.credential)
        self.on_moved(connection)
        if not client.has_body:
            connection.send(head, b"", self, is_bodiless=client.method == "HEAD")
            return
        connection.begin(head, self)
        if self._full_since is None:
            self._call_for_body()

    def _call_for_body(self) -> None:
        if self._is_over:
            return
        if self._reads:
            self._intake.resume()
        else:
            self._reads = True
            self._intake.read(self)

    def on_piece(self, data: bytes) -> None:
        """Send a piece of the body to the engine."""
        if self._connection is not None:
            is_chunked = self._stream.head.is_chunked
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)

    def on_end(self) -> None:
        """Note that the body is whole."""
        if self._connection is not None:
            if self._stream.head.is_chunked:
                self._connection.write(b"0\r\n\r\n")
            self._connection.finish()

    def on_moved(self, connection: Connection) -> None:
        """Use this connection from now on."""
        self._connection = connection
        self._stream.on_pause = connection.pause
        self._stream.on_resume = connection.resume

    def on_full(self, is_full: bool) -> None:
        """Pause the client while the engine takes no more, and resume it after that."""
        if not is_full:
            self._full_since = None
            self._call_for_body()
        elif self._full_since is None:
            self._full_since = asyncio.get_running_loop().time()
            self._intake.pause()
            if self._timer is None:
                self._watch(STUCK_SECONDS)

    def on_head(self, head: ResponseHead) -> None:
        """Hold the head until the first byte of the body: if the engine dies here, the client gets one honest error."""
        self._head = head

    def on_body(self, data: bytes) -> None:
        """Send a piece of the answer to the client."""
        stream = self._stream
        if not self.has_begun:
            assert self._head is not None
            self.has_begun = True
            stream.start(self._head.status, self._answer_fields(self._head), self._head.content_length)
            if stream.is_paused and self._connection is not None:
                self._connection.pause()
        stream.write(data)
        if len(data) >= LARGE_PIECE_BYTES:
            stream.flush()

    def on_complete(self) -> None:
        """End the answer: it is whole, even if the engine has not read the whole request."""
        head, stream = self._head, self._stream
        assert head is not None
        self._end(is_whole=True)
        if self.has_begun:
            stream.finish()
        elif stream.head.method == "HEAD" and head.content_length is not None:
            stream.start(head.status, self._answer_fields(head), head.content_length)
            stream.finish()
        else:
            stream.send(head.status, self._answer_fields(head), b"")
        self._on_end(None)

    def on_failure(self, kind: Kind, reason: str) -> None:
        """End the passage: the answer will never be whole."""
        self._fail(Fault(kind, reason))

    def _answer_fields(self, head: ResponseHead) -> bytes:
        return response_fields(head.fields) + self._fields

    def _leave(self) -> None:
        """Stop the engine: the client is gone."""
        if not self._is_over:
            self._end()
            self._on_end(None)

    def _fail(self, fault: Fault) -> None:
        if self._is_over:
            return
        self._end()
        if self.has_begun:
            self._stream.cut()
        self._on_end(fault)

    def _end(self, *, is_whole: bool = False) -> None:
        """Give everything back."""
        self._is_over = True
        self._stream.on_departure = self._stream.on_pause = self._stream.on_resume = None
        connection, self._connection = self._connection, None
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        if self._timer is not None:
            self._timer.cancel()
        if connection is not None and not is_whole:
            connection.cancel()

    def _watch(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        """Give up an engine that has taken no byte for too long: the hub does not see a paused client leave."""
        self._timer = None
        if self._full_since is None:
            return
        stuck = asyncio.get_running_loop().time() - self._full_since
        if stuck < STUCK_SECONDS:
            self._watch(STUCK_SECONDS - stuck)
        else:
            self._fail(Fault(errors.NODE_BROKE_OFF, f"the engine takes no more of the request, for {stuck:.0f} s"))
