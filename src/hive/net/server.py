"""The HTTP/1.1 server: the listener, and all client connections with what they share.

Deadlines are checked by one sweep over all connections, so that a request costs no timer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import ssl
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from hive.errors import Fault
from hive.net.client import ClientConnection
from hive.net.outbox import Outbox
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead

_log = logging.getLogger(__name__)

SWEEP_INTERVAL = 0.5
MAX_HELD_REFUSALS = 1000
FLUSH_STEP = 0.02
SHORTEST_SHUTDOWN = 0.1


class Handler(Protocol):
    """What the server serves."""

    def judge(self, stream: ClientStream) -> None:
        """Decide from the head alone whether the request may go on. Raises `Fault`."""

    def begin(self, stream: ClientStream) -> None:
        """Answer a request whose body is whole (`stream.body`), or streams from now on (`stream.intake`)."""

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body that tell a client of a fault."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much a client may send and how long it may take (bytes, seconds)."""

    max_head_bytes: int = 32 << 10
    max_body_bytes: int = 64 << 20
    max_bodies_bytes: int = 512 << 20
    head_timeout: float = 10
    body_timeout: float = 60
    keep_alive_timeout: float = 75
    send_timeout: float = 60
    linger_timeout: float = 2


@dataclass(frozen=True, slots=True)
class Listener:
    """An address at which clients connect, and what serves them there."""

    host: str
    port: int
    """0 takes a free one."""
    handler: Handler
    context: ssl.SSLContext | None = None
    """With a context the listener speaks HTTPS."""


class HttpServer:
    """The listeners of a hub and all connections of their clients."""

    def __init__(self, limits: ServerLimits, outbox: Outbox) -> None:
        self.limits = limits
        self.outbox = outbox
        self.connections: set[ClientConnection] = set()
        self.held_body_bytes = 0
        """Bytes of request bodies in memory."""
        self.is_draining = False
        self._held_refusals = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.date_line = b""
        """The header line Date, as of the last sweep."""
        self._listening: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._id_prefix = f"req_{secrets.token_hex(6)}"
        self._ids = itertools.count(1)

    def next_request_id(self) -> str:
        """Return an id that no other request of any hub has."""
        return f"{self._id_prefix}{next(self._ids):08x}"

    async def listen(self, listener: Listener) -> int:
        """Let clients connect at one more address; return its port. Raises `OSError` when the port is taken."""
        limits, context = self.limits, listener.context
        server = await self._loop.create_server(
            lambda: ClientConnection(self, listener.handler),
            listener.host,
            listener.port,
            backlog=4096,
            ssl=context,
            ssl_handshake_timeout=limits.head_timeout if context else None,
            ssl_shutdown_timeout=max(limits.linger_timeout, SHORTEST_SHUTDOWN) if context else None,
        )
        self._listening.append(server)
        if self._sweeper is None:
            self._sweep()
        return int(server.sockets[0].getsockname()[1])

    def hold(self, connection: ClientConnection, fault: Fault) -> bool:
        """Hold a refusal back for its delay; False when too many are held already."""
        if self._held_refusals >= MAX_HELD_REFUSALS:
            return False
        self._held_refusals += 1
        self._loop.call_later(fault.delay, self._release_refusal, connection, fault)
        return True

    def _release_refusal(self, connection: ClientConnection, fault: Fault) -> None:
        self._held_refusals -= 1
        connection.refuse_now(fault)

    def stop_accepting(self) -> None:
        """Take no more connections, no more requests on those there are, and close the idle ones."""
        self.is_draining = True
        for server in self._listening:
            server.close()
        for connection in list(self.connections):
            connection.close_if_idle()

    async def finish(self, timeout: float) -> None:
        """Wait until every request is answered and its answer taken; after `timeout` seconds refuse what arrives."""
        self.outbox.flush()
        deadline = self.now() + timeout
        while any(c.is_busy for c in self.connections) and self.now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_STEP)
        for connection in list(self.connections):
            connection.end()
        self.outbox.flush()

    def close(self) -> None:
        """Drop every connection."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        now = self.now()
        self.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in list(self.connections):
            try:
                connection.sweep(now)
            except Exception:
                _log.exception("sweep of %r", connection)
                connection.abort()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
