"""The dialed link: connects to an engine's URL and keeps a bounded pool of connections to it.

A hub uses this link for the engines that it dials. A node uses it for its own engines.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from urllib.parse import urlsplit

from hive import errors
from hive.errors import Fault
from hive.net.engine_connection import EngineConnection
from hive.net.outbox import Outbox
from hive.net.reasons import in_words

_PORTS = {"http": 80, "https": 443}
_EXTRA_IDLE = 4
"""Idle connections kept beyond the engine's slots."""


class DialedLink:
    """Connections to one engine by its URL. The connection that was used last is used first."""

    def __init__(
        self,
        url: str,
        outbox: Outbox,
        *,
        connect_timeout: float,
        max_head_bytes: int,
        credential: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`credential`: the engine's own, as a header line. `tls`: for an https URL; the system's trust if None."""
        parts = urlsplit(url)
        self.url = url
        self._outbox = outbox
        self.base_path = parts.path.rstrip("/").encode()
        self.host_field = parts.netloc.encode()
        self.credential = credential
        self._max_idle = _EXTRA_IDLE
        self._host = parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._ssl = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connect_timeout = connect_timeout
        self._max_head_bytes = max_head_bytes
        self._idle: list[EngineConnection] = []

    def __repr__(self) -> str:
        return f"<DialedLink {self.url} idle={len(self._idle)}>"

    def take_idle(self) -> EngineConnection | None:
        """Return a pooled connection that still looks alive, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def dial(self) -> EngineConnection:
        """Open a new connection. Raises `Fault` (node_unreachable)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    self._make_connection, self._host, self._port, ssl=self._ssl
                )
        except TimeoutError:
            reason = f"no connection to {self.url} within {self._connect_timeout:g} s"
            raise Fault(errors.NODE_UNREACHABLE, reason) from None
        except (OSError, ssl.SSLError) as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise Fault(errors.OVERLOADED, "this machine has as many connections as its system allows") from None
            raise Fault(errors.NODE_UNREACHABLE, f"no connection to {self.url}: {in_words(error)}") from None
        return connection

    def _make_connection(self) -> EngineConnection:
        return EngineConnection(self._max_head_bytes, self._outbox, self)

    def expect(self, slots: int) -> None:
        """Keep as many idle connections as the engine has slots, and a few more."""
        self._max_idle = slots + _EXTRA_IDLE

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().close()

    def put_back(self, connection: EngineConnection) -> None:
        """Keep a connection for another exchange, or close it when there are enough."""
        if len(self._idle) < self._max_idle:
            self._idle.append(connection)
        else:
            connection.close()
