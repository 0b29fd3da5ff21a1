"""One client connection: it answers one request after the other, and stops an answer when its client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Protocol, cast

from hive.sim.sender import Cut
from hive.sim.surfaces import TEXT, SimReply
from hive.sim.wire import BadRequest, RequestParser, SimRequest, head_bytes

_log = logging.getLogger(__name__)


class SimHandler(Protocol):
    """The owner of the connections: it answers their requests."""

    def opened(self, connection: SimConnection) -> None:
        """A client has connected."""

    def closed(self, connection: SimConnection) -> None:
        """The client is gone."""

    def early_reply(self, head: SimRequest) -> SimReply | None:
        """Return an answer that does not wait for the body, if there is one."""

    async def answer(self, request: SimRequest, connection: SimConnection) -> bool:
        """Answer a request. Return False when the connection must close."""


class SimConnection(asyncio.Protocol):
    """One client connection as asyncio sees it. As in Go's server, a client that half-closes has left."""

    def __init__(self, handler: SimHandler) -> None:
        self._handler = handler
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._has_continued = False
        self._lost = asyncio.Event()
        self.has_departed = False
        """Did the client leave? (Otherwise the engine stopped.)"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast(asyncio.Transport, transport)  # a uvloop transport is not a subclass
        # asyncio sets TCP_NODELAY only if the socket names its protocol. socket.create_server leaves the protocol at 0.
        link: socket.socket = transport.get_extra_info("socket")
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read bytes. The next request begins when the last one is answered."""
        try:
            self._parser.feed(data)
        except BadRequest as error:
            self._refuse(SimReply(400, f"400 Bad Request: {error}".encode(), TEXT))
            return
        self._next()

    def eof_received(self) -> None:
        """The client half-closed: it has left."""
        self._depart()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._depart()
        self._lost.set()
        self._handler.closed(self)

    def pause_writing(self) -> None:
        """The client does not read what we send."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def write(self, data: bytes) -> None:
        """Send the bytes, or drop them when the connection is closing."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait while the client does not read."""
        if self._writable:
            await self._writable

    def close(self) -> None:
        """End the connection, from the engine's side."""
        if self._task:
            self._task.cancel()
        if self._transport:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed and no answer runs."""
        await self._lost.wait()
        if self._task:
            await asyncio.wait([self._task])

    def _depart(self) -> None:
        self.has_departed = True
        self.resume_writing()
        if self._task:
            self._task.cancel()

    def _next(self) -> None:
        if self._task or self._transport is None or self._transport.is_closing():
            return
        head = self._parser.head
        if head is not None and (reply := self._handler.early_reply(head)):
            self._refuse(reply)
            return
        request = self._parser.take()
        if request is not None:
            self._has_continued = False
            self._task = asyncio.get_running_loop().create_task(self._serve(request))
        elif head is not None and not self._has_continued and head.header("expect"):
            self._has_continued = True
            self.write(head_bytes(100, ()))

    def _refuse(self, reply: SimReply) -> None:
        typed = (("Content-Type", reply.content_type),) if reply.body else ()
        rest = (*typed, ("Content-Length", str(len(reply.body))), ("Connection", "close"))
        self.write(head_bytes(reply.status, rest) + reply.body)
        if self._transport:
            self._transport.close()

    async def _serve(self, request: SimRequest) -> None:
        stays_open = False
        try:
            stays_open = await self._handler.answer(request, self)
        except Cut as cut:
            if cut.is_reset:
                self._reset()
        except Exception:
            _log.exception("%s %s: the simulated engine failed", request.method, request.target)
        finally:
            self._task = None
        if stays_open:
            self._next()
        elif self._transport:
            self._transport.close()

    def _reset(self) -> None:
        assert self._transport is not None
        with contextlib.suppress(OSError):
            link: socket.socket = self._transport.get_extra_info("socket")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
