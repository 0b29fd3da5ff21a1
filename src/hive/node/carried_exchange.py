"""One exchange on its way through the node: the hub's request to an engine, the engine's answer back.

The request is parsed and written anew as it comes; the answer goes back as the bytes came. A pooled connection to the
engine that turns out to be dead is replaced once; for that a short request is kept until the first byte of its answer,
and a long one gets a connection of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from hive.errors import Fault
from hive.node.allowed_routes import refusal
from hive.node.engine_connection import EngineConnection
from hive.node.engine_server import EngineServer
from hive.wire.forwarding import node_request_head
from hive.wire.link_messages import EndCode, EndError, one_line
from hive.wire.requests import RequestHead, RequestReader

MAX_KEPT_BYTES = 64 << 10
"""Of a request that can be sent again, and of one that waits for a connection."""

_log = logging.getLogger(__name__)


class Back(Protocol):
    """The way back to the hub."""

    def answer(self, exchange: str, data: bytes) -> None:
        """Send bytes of the answer."""

    def finish(self, exchange: str, error: EndError | None) -> None:
        """End the exchange."""

    def pause_request(self) -> None:
        """Read no more of the request until `resume_request`."""

    def resume_request(self) -> None:
        """Read on."""


class CarriedExchange:
    """A request of the hub and its answer. Whoever made it calls `take`, and `cancel` if it must end early."""

    __slots__ = (
        "_back",
        "_connection",
        "_dialing",
        "_engine",
        "_head",
        "_is_bodiless",
        "_is_hub_full",
        "_is_over",
        "_is_repeatable",
        "_kept",
        "_kept_bytes",
        "_reader",
        "id",
    )

    def __init__(self, name: str, engine: EngineServer, reader: RequestReader, back: Back) -> None:
        self.id = name
        self._engine = engine
        self._reader = reader
        self._back = back
        self._connection: EngineConnection | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._head: RequestHead | None = None
        self._is_bodiless = False
        self._is_hub_full = False
        self._is_over = False
        self._is_repeatable = False
        """Can what was sent be sent again?"""
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    def __repr__(self) -> str:
        return f"<Exchange {self.id} {self._engine.id}>"

    # --- from the hub ---

    def take(self, data: bytes) -> None:
        """Take bytes of the request."""
        if self._is_over:
            return
        reader = self._reader
        try:
            reader.feed(data)
        except Fault as fault:
            self._refuse(fault.message)
            return
        if reader.has_excess:
            self._refuse("bytes behind the request")
        elif self._head is not None:
            self._pass_on(self._framed(reader.take_body()))
        elif reader.head is not None:
            self._start(reader.head)

    def cancel(self) -> None:
        """Leave: the engine stops, and nothing more goes back."""
        self._is_over = True
        self._kept = []
        if self._dialing is not None:
            self._dialing.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()

    def give_up(self, code: EndCode, reason: str) -> None:
        """Leave, and say why."""
        self.cancel()
        self._back.finish(self.id, EndError(code, one_line(reason)))

    def take_reader(self) -> RequestReader | None:
        """Return the reader if another request can be read with it."""
        reader = self._reader
        if not reader.is_complete or reader.has_excess:
            return None
        reader.restart()
        return reader

    def set_hub_full(self, is_full: bool) -> None:
        """The hub takes no more of the answer for now, or takes it again."""
        self._is_hub_full = is_full
        connection = self._connection
        if connection is not None:
            if is_full:
                connection.pause()
            else:
                connection.resume()

    def _refuse(self, reason: str) -> None:
        self.give_up(EndCode.REQUEST_REFUSED, reason)

    def _start(self, head: RequestHead) -> None:
        refused = refusal(head)
        if refused is not None:
            self._refuse(refused)
            return
        engine = self._engine
        self._head = head
        self._is_bodiless = head.method == "HEAD"
        self._is_repeatable = not head.is_chunked and (head.content_length or 0) <= MAX_KEPT_BYTES
        data = node_request_head(head, head.path.encode("latin-1"), engine.host_field, engine.credential)
        data += self._framed(self._reader.take_body())
        connection = engine.take_idle() if self._is_repeatable else None
        self._keep(data)
        if connection is not None:
            self._connection = connection
            connection.send(data, self, is_bodiless=self._is_bodiless)
            if self._is_hub_full:
                connection.pause()
        else:
            self._dial()

    def _framed(self, body: bytes) -> bytes:
        """Return a piece of the body as it goes to the engine."""
        if self._head is None or not self._head.is_chunked:
            return body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk + b"0\r\n\r\n" if self._reader.is_complete else chunk

    def _pass_on(self, data: bytes) -> None:
        if not data:
            return
        connection = self._connection
        if connection is None or self._is_repeatable:
            self._keep(data)
        if connection is not None:
            connection.write(data)
        elif self._kept_bytes > MAX_KEPT_BYTES:
            self._back.pause_request()

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)

    # --- to the engine ---

    def _dial(self) -> None:
        self._dialing = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = await self._engine.dial()
        except Fault as fault:
            self._fail_to_dial(fault.message)
            return
        except Exception as error:
            _log.exception("exchange %s: dialing %s", self.id, self._engine.address.url)
            self._fail_to_dial(f"{self._engine.address.url}: {str(error) or type(error).__name__}")
            return
        self._dialing = None
        self._connection = connection
        kept, self._kept = self._kept, []
        self._is_repeatable = False  # it cannot be stale
        connection.send(b"".join(kept), self, is_bodiless=self._is_bodiless)
        if self._is_hub_full:
            connection.pause()
        self._back.resume_request()

    def _fail_to_dial(self, why: str) -> None:
        self._dialing = None
        self.give_up(EndCode.ENGINE_UNREACHABLE, why)

    # --- from the engine ---

    @property
    def has_sent_all(self) -> bool:
        """Is the whole request handed over?"""
        return self._reader.is_complete

    def on_answer(self, data: bytes, body: bytes) -> None:
        """Send it back as it came."""
        if self._is_repeatable:
            self._is_repeatable = False
            self._kept = []
        self._back.answer(self.id, data)

    def on_complete(self) -> None:
        """The answer is whole."""
        self._is_over = True
        self._connection = None
        self._back.finish(self.id, None)

    def on_failure(self, code: EndCode, reason: str, *, is_stale: bool) -> None:
        """The engine is gone, or talks nonsense; a pooled connection may only have been dead."""
        self._connection = None
        if is_stale and self._is_repeatable:
            self._dial()
        else:
            self.give_up(code, reason)

    def on_full(self, is_full: bool) -> None:
        """Hold the hub's request back while the engine does not take it."""
        if is_full:
            self._back.pause_request()
        else:
            self._back.resume_request()
