"""The HTTP/1.1 server: its listeners, and all client connections with the state that they share.

Deadlines are checked by one sweep over all connections, so that a request costs no timer.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from email.utils import formatdate

from hive.net.client import ClientConnection
from hive.net.outbox import Outbox
from hive.net.reception import Handler, Reception, ServerLimits, Visitor

_log = logging.getLogger(__name__)

SWEEP_INTERVAL = 0.5
FLUSH_STEP = 0.02
SHORTEST_SHUTDOWN = 0.1


@dataclass(frozen=True, slots=True)
class Listener:
    """An address at which clients connect, and the handler that answers there."""

    host: str
    port: int
    """The port; 0 takes a free port."""
    handler: Handler
    context: ssl.SSLContext | None = None
    """The listener speaks HTTPS if it has a context."""


class HttpServer:
    """The listeners of a hub and all connections of their clients."""

    def __init__(self, limits: ServerLimits, outbox: Outbox) -> None:
        self.reception = Reception(limits, outbox)
        self._loop = asyncio.get_running_loop()
        self._listening: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> set[Visitor]:
        """Return the open connections of clients."""
        return self.reception.connections

    @property
    def held_body_bytes(self) -> int:
        """Return how many bytes of request bodies are in memory."""
        return self.reception.held_body_bytes

    async def listen(self, listener: Listener) -> int:
        """Let clients connect at one more address; return its port. Raises `OSError` when the port is taken."""
        limits, context = self.reception.limits, listener.context
        server = await self._loop.create_server(
            lambda: ClientConnection(self.reception, listener.handler),
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

    def stop_accepting(self) -> None:
        """Accept no more connections and no more requests, and close the idle connections."""
        self.reception.is_draining = True
        for server in self._listening:
            server.close()
        for connection in list(self.connections):
            connection.close_if_idle()

    async def finish(self, timeout: float) -> None:
        """Wait until each client has taken its answer; after `timeout` seconds refuse requests that still arrive."""
        self.reception.outbox.flush()
        deadline = self.reception.now() + timeout
        while any(c.is_busy for c in self.connections) and self.reception.now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_STEP)
        for connection in list(self.connections):
            connection.end()
        self.reception.outbox.flush()

    def close(self) -> None:
        """Drop every connection."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        now = self.reception.now()
        self.reception.date_line = f"Date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in list(self.connections):
            try:
                connection.sweep(now)
            except Exception:
                _log.exception("sweep of %r", connection)
                connection.abort()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL, self._sweep)
