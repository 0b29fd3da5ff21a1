"""Connects to the hub until a socket is open: through a proxy if one is set, with TLS if the URL is https."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

from hive.net.trust import why_no_tls
from hive.node.proxies import MAX_ANSWER_BYTES, Proxy, read_answer
from hive.wire.link_dial import Dial

DIAL_SECONDS = 10.0
DEFAULT_PORT: Final = 4483


class DialError(Exception):
    """No connection to the hub. The message says why in a sentence."""


class Opening(Protocol):
    """A protocol that opens a socket to the hub. `opened` is done when the socket is open, or fails with `Refused`."""

    opened: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on this transport."""

    def abort(self) -> None:
        """Drop the connection, if there is one."""


class Dialer:
    """Makes connections to one hub."""

    def __init__(self, hub: str, key: str, agent: str, proxy: Proxy | None, tls: ssl.SSLContext | None) -> None:
        """Remember how to connect. `tls` is used for https hubs and https proxies."""
        parts = urlsplit(hub)
        is_tls = parts.scheme == "https"
        self.hub = f"{parts.scheme}://{parts.netloc}"
        self._url = hub
        self._key = key
        self._agent = agent
        self._host = (parts.hostname or "").encode("idna").decode()
        self._port = parts.port or (443 if is_tls else 80)
        self._is_port_given = parts.port is not None
        self._proxy = proxy
        self._tls = tls if is_tls else None
        self._proxy_tls = tls if proxy is not None and proxy.is_tls else None

    def begin(self) -> Dial:
        """Return a new dial for one socket."""
        return Dial(self._url, self._key, self._agent)

    async def open(self, opening: Opening) -> None:
        """Connect, and wait until the socket is open. Raises `DialError` or `Refused`."""
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await self._connect(opening)
                await opening.opened
        except TimeoutError:
            opening.abort()
            raise DialError(f"no answer within {DIAL_SECONDS:g} s") from None
        except ssl.SSLError as error:
            raise DialError(why_no_tls(error) or reason(error)) from None
        except OSError as error:
            raise DialError(self._why_unreached(error)) from None
        except BaseException:
            opening.abort()
            raise

    def _why_unreached(self, error: OSError) -> str:
        if isinstance(error, ConnectionRefusedError) and not self._is_port_given:
            return f"{reason(error)} (port {self._port}; a hub listens on {DEFAULT_PORT} if not told otherwise)"
        return reason(error)

    async def _connect(self, opening: Opening) -> None:
        loop = asyncio.get_running_loop()
        protocol = cast(asyncio.Protocol, opening)
        if self._proxy is None:
            await loop.create_connection(lambda: protocol, self._host, self._port, ssl=self._tls)
            return
        proxy = self._proxy
        tunnel = _Tunnel(proxy.connect(self._host, self._port))
        try:
            await loop.create_connection(lambda: tunnel, proxy.host, proxy.port, ssl=self._proxy_tls)
        except OSError as error:
            raise DialError(f"no connection to the proxy {proxy.host}:{proxy.port}: {reason(error)}") from None
        transport = await tunnel.open()
        try:
            if self._tls is not None:
                encrypted = await loop.start_tls(transport, protocol, self._tls, server_hostname=self._host)
                assert encrypted is not None
                protocol.connection_made(encrypted)
            else:
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
        except BaseException:
            transport.abort()
            raise


class _Tunnel(asyncio.Protocol):
    """A connection to a proxy until CONNECT is answered. Its creator then takes the transport over."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._answer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> asyncio.Transport:
        """Return the transport of the open tunnel. Raises `DialError`."""
        assert self._transport is not None
        try:
            await self._done
        except BaseException:
            self._transport.abort()
            raise
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        is_whole = b"\r\n\r\n" in self._answer
        if self._done.done() or (not is_whole and len(self._answer) <= MAX_ANSWER_BYTES):
            return
        refusal = read_answer(bytes(self._answer)) if is_whole else "the proxy's answer is too long"
        if refusal is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(DialError(refusal))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(DialError("the proxy closed the connection"))


def reason(error: Exception) -> str:
    """Return in a few words why a connection could not be made."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    text = getattr(error, "strerror", None) or str(error)
    return text.split("\n")[0][:200] or type(error).__name__
