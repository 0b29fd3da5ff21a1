"""Writes one answer on a connection, with the faults of bytes: framing, heads, lengths, pace."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from enum import Enum
from typing import Protocol

from hive.sim.faults import FaultKind, InjectedFault, Plan
from hive.sim.ledger import SeenRequest
from hive.sim.surfaces import SimReply
from hive.sim.wire import LAST_CHUNK, Headers, SimRequest, chunk, head_bytes

GO_BUFFER_BYTES = 2048
"""Go sends an answer of up to this size with its length, and a larger one in chunks (net/http,
bufferBeforeChunkingSize).
"""


_CUTS = frozenset({FaultKind.DROP, FaultKind.RESET, FaultKind.CUT_LINE})
_FRAMINGS = frozenset({FaultKind.CLOSE_DELIMITED, FaultKind.LYING_LENGTH})


class Cut(Exception):  # noqa: N818 - an instruction for the connection
    """End the connection here and now."""

    def __init__(self, *, is_reset: bool = False) -> None:
        super().__init__()
        self.is_reset = is_reset


class Outlet(Protocol):
    """A place that bytes are sent to."""

    def write(self, data: bytes) -> None:
        """Send the bytes, or drop them when the connection is closing."""

    async def drain(self) -> None:
        """Wait while the peer does not read."""


class Framing(Enum):
    """How the peer learns where the body ends."""

    CHUNKED = "chunked"
    CLOSE = "close"
    COLLECT = "collect"
    """The body is kept until its end, then sent with a false length."""


class Sender:
    """One answer. Call `reply`; or call `begin`, `piece` any number of times, and `end`."""

    def __init__(
        self,
        outlet: Outlet,
        request: SimRequest,
        plan: Plan,
        seen: SeenRequest,
        *,
        frozen: Callable[[], InjectedFault | None],
        hold: Callable[[InjectedFault], Awaitable[None]],
        headers: Headers = (),
        counts_up_to: int | None = None,
    ) -> None:
        self._outlet = outlet
        self._request = request
        self._plan = plan
        self._seen = seen
        self._frozen = frozen
        self._hold = hold
        self._headers = headers
        self._counts_up_to = counts_up_to
        """The longest answer with a Content-Length; None for any length."""
        self._held = b""
        """A head that will be sent with the first piece."""
        self._collected = bytearray()
        self._framing = Framing.CHUNKED
        self._start: tuple[int, str, Headers] = (200, "", ())
        self.must_close = request.wants_close

    async def reply(self, reply: SimReply) -> None:
        """Send a whole answer. Faults of a stream strike in its middle, unless it is an error already."""
        body = b"" if self._request.method == "HEAD" else reply.body
        struck = self._plan.keys() if reply.status == 200 else frozenset()
        if FaultKind.FREEZE_STREAM in struck:
            await self._hold(self._plan[FaultKind.FREEZE_STREAM])
        if FaultKind.MALFORMED in struck:
            body = body[: len(body) // 2]
        if body and (FaultKind.BAD_CHUNK in struck or self._is_streamed(body)):
            await self.begin(reply.content_type, reply.headers, status=reply.status)
            if FaultKind.BAD_CHUNK in struck:
                await self.bad_chunk()
            await self.piece(body)
            await self.end()
            return
        is_head = self._request.method == "HEAD"
        size = len(reply.body) if is_head else len(body)
        length = () if reply.status == 204 or (is_head and not size) else (("Content-Length", str(size)),)
        await self._send_head(reply.status, reply.content_type, reply.headers, length)
        if not struck.isdisjoint(_CUTS):
            await self._put(self._take_held() + body[: len(body) // 2])
            raise Cut(is_reset=FaultKind.RESET in struck)
        await self._put(self._take_held() + body)
        await self._after()

    def _is_streamed(self, body: bytes) -> bool:
        if not self._plan.keys().isdisjoint(_FRAMINGS):
            return True
        is_long = self._counts_up_to is not None and len(body) > self._counts_up_to
        return is_long and self._plan.keys().isdisjoint(_CUTS)

    async def begin(self, content_type: str, headers: Headers = (), *, status: int = 200) -> None:
        """Start a stream. Its head is sent with the first piece."""
        self._start = (status, content_type, headers)
        if FaultKind.LYING_LENGTH in self._plan:
            self._framing = Framing.COLLECT
            return
        framing: Headers = (("Transfer-Encoding", "chunked"),)
        if self._request.is_http_1_0 or FaultKind.CLOSE_DELIMITED in self._plan:
            self._framing, framing, self.must_close = Framing.CLOSE, (), True
        await self._send_head(status, content_type, headers, framing)

    async def piece(self, data: bytes) -> None:
        """Send a part of the body as one chunk."""
        if not data:
            return
        if self._framing is Framing.COLLECT:
            self._collected += data
            return
        framed = chunk(data) if self._framing is Framing.CHUNKED else data
        if self._held:
            framed = self._take_held() + framed
        await self._put(framed)

    async def flush(self) -> None:
        """Send the head if it still waits for the first piece."""
        if self._held:
            await self._put(self._take_held())

    async def bad_chunk(self) -> None:
        """Send a chunk whose size is not a number, then end the connection."""
        await self._put(self._take_held() + b"zz\r\nnot a chunk\r\n")
        raise Cut

    async def end(self) -> None:
        """End the stream."""
        if self._framing is Framing.COLLECT:
            status, content_type, headers = self._start
            length = len(self._collected) + int(self._plan[FaultKind.LYING_LENGTH].number)
            await self._send_head(status, content_type, headers, (("Content-Length", str(max(length, 0))),))
            await self._put(self._take_held() + bytes(self._collected))
        else:
            last = LAST_CHUNK if self._framing is Framing.CHUNKED else b""
            await self._put(self._take_held() + last)
        await self._after()

    async def _send_head(self, status: int, content_type: str, headers: Headers, framing: Headers) -> None:
        """Keep the head for the first piece, or send it alone if a fault requires that."""
        if hints := self._plan.get(FaultKind.EARLY_HINTS):
            link = (("Link", "</style.css>; rel=preload"),) if hints.number == 103 else ()
            await self._put(head_bytes(int(hints.number), link))
        if fault := self._plan.get(FaultKind.ENDLESS_HEADERS):
            await self._endless(fault)
        self._seen.status = status
        typed = (("Content-Type", content_type),) if content_type else ()
        date = (("Date", formatdate(usegmt=True)),)
        close = (("Connection", "close"),) if self.must_close else ()
        named = sorted((*headers, *typed, *self._headers))
        self._held = head_bytes(status, (*named, *date, *framing, *close))
        if fault := self._plan.get(FaultKind.HEAD_THEN_SILENCE):
            await self._put(self._take_held())
            await self._hold(fault)

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    async def _endless(self, fault: InjectedFault) -> None:
        await self._put(b"HTTP/1.1 200 OK\r\n")
        line = 0
        while not fault.is_cleared:
            line += 1
            await self._put(f"X-Endless-{line}: {'x' * 1000}\r\n".encode())
            await asyncio.sleep(0.001)

    async def _after(self) -> None:
        if fault := self._plan.get(FaultKind.EXTRA_BYTES):
            await self._put(fault.text.encode())

    async def _put(self, data: bytes) -> None:
        while fault := self._frozen():
            await self._hold(fault)
        if fault := self._plan.get(FaultKind.TRICKLE):
            await self._trickle(data, fault)
            return
        self._outlet.write(data)
        await self._outlet.drain()

    async def _trickle(self, data: bytes, fault: InjectedFault) -> None:
        pause = fault.number if math.isfinite(fault.number) else 0.0
        for index in range(len(data)):
            if fault.is_cleared:
                self._outlet.write(data[index:])
                return
            self._outlet.write(data[index : index + 1])
            await self._outlet.drain()
            await asyncio.sleep(pause)
