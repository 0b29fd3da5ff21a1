"""An engine of this node by its address: new and pooled connections to it, and small questions."""

from __future__ import annotations

import asyncio
import ssl

from hive import errors
from hive.errors import Fault
from hive.fleet.identity import Reply
from hive.net.outbox import Outbox
from hive.node.agent_options import EngineAddress
from hive.node.dialing import reason
from hive.node.engine_connection import EngineConnection
from hive.wire.link_messages import EndCode
from hive.wire.link_rules import MARK_OF_HUB
from hive.wire.responses import ResponseHead

CONNECT_SECONDS = 3.0
MAX_IDLE = 64
MAX_REPLY_BYTES = 8 << 20
_MARK_OF_HUB = MARK_OF_HUB.encode()
_FAULTS = {
    EndCode.ENGINE_BROKE_OFF: errors.NODE_BROKE_OFF,
    EndCode.ENGINE_GARBLED: errors.NODE_GARBLED,
}


class EngineServer:
    """One engine's server, and the idle connections to it, the last one used first."""

    def __init__(self, address: EngineAddress, name: str, outbox: Outbox, tls: ssl.SSLContext | None) -> None:
        host = f"[{address.host}]" if ":" in address.host else address.host
        self.id = name
        """What the hub calls it."""
        self.address = address
        self.host_field = f"{host}:{address.port}".encode()
        self.credential = address.credential
        self._outbox = outbox
        self._tls = tls if address.is_tls else None
        self._idle: list[EngineConnection] = []
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<EngineServer {self.id} {self.address.url} idle={len(self._idle)}>"

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
        address = self.address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(self._outbox, self._put_back), address.host, address.port, ssl=self._tls
                )
        except TimeoutError:
            why = f"no connection within {CONNECT_SECONDS:g} s"
        except OSError as error:
            why = reason(error)
        else:
            return connection
        raise Fault(errors.NODE_UNREACHABLE, f"{address.url}: {why}")

    async def ask(self, path: str, timeout: float) -> Reply:
        """GET a path; return the whole answer. Raises `Fault`: unreachable, silent, broken off or garbled."""
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\n%bAccept: application/json\r\n\r\n" % (
            path.encode(),
            self.host_field,
            self.credential,
        )
        try:
            async with asyncio.timeout(timeout):
                connection = self.take_idle()
                if connection is not None:
                    try:
                        return await _ask(connection, head)
                    except _StaleError:
                        pass
                return await _ask(await self.dial(), head)
        except TimeoutError:
            raise Fault(errors.NODE_SILENT, f"no answer to {path} within {timeout:g} s") from None

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _put_back(self, connection: EngineConnection) -> None:
        if len(self._idle) < MAX_IDLE and not self._is_closed:
            self._idle.append(connection)
        else:
            connection.close()


class _StaleError(Exception):
    """A pooled connection was dead."""


async def _ask(connection: EngineConnection, head: bytes) -> Reply:
    collector = _ReplyCollector(connection)
    try:
        connection.send(head, collector)
        answer = await collector.done
    finally:
        if not collector.done.done() or collector.done.cancelled():
            connection.cancel()
    if any(name == _MARK_OF_HUB for name, _ in answer.fields):
        raise Fault(errors.NODE_GARBLED, "this is a Hive hub and no engine: its requests would run in a circle")
    return Reply(answer.status, b"".join(collector.pieces))


class _ReplyCollector:
    """Keeps a whole answer."""

    has_sent_all = True

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self._size = 0
        self.pieces: list[bytes] = []
        self.done: asyncio.Future[ResponseHead] = asyncio.get_running_loop().create_future()

    def on_answer(self, data: bytes, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_REPLY_BYTES:
            self.pieces.append(body)
            return
        self._connection.cancel()
        self.on_failure(EndCode.ENGINE_GARBLED, f"an answer larger than {MAX_REPLY_BYTES} bytes", is_stale=False)

    def on_complete(self) -> None:
        head = self._connection.answer_head
        assert head is not None
        if not self.done.done():  # later the connection may be another exchange's
            self.done.set_result(head)

    def on_failure(self, code: EndCode, reason: str, *, is_stale: bool) -> None:
        if not self.done.done():
            self.done.set_exception(_StaleError() if is_stale else Fault(_FAULTS[code], reason))

    def on_full(self, is_full: bool) -> None:
        """A question is a few hundred bytes."""
