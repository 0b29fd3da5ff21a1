"""Small requests of our own to an engine: whole answers, bounded in size and time."""

from __future__ import annotations

import asyncio

from hive.errors import NODE_GARBLED, NODE_SILENT, Fault, Kind
from hive.net.link import Connection, Link
from hive.wire.responses import ResponseHead

MAX_ANSWER_BYTES = 16 << 20


class _Collector:
    """Keeps a whole answer."""

    def __init__(self, connection: Connection, max_bytes: int) -> None:
        self.connection = connection
        self._max_bytes = max_bytes
        self._size = 0
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._max_bytes:
            self.pieces.append(data)
        else:
            self.connection.cancel()
            self.on_failure(NODE_GARBLED, f"an answer larger than {self._max_bytes} bytes")

    def on_complete(self) -> None:
        self.is_complete = True
        if not self.done.done():
            self.done.set_result(None)

    def on_failure(self, kind: Kind, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(Fault(kind, reason))

    def on_moved(self, connection: Connection) -> None:
        self.connection = connection


async def ask(
    link: Link, path: str, timeout: float, body: bytes | None = None, max_bytes: int | None = None
) -> tuple[ResponseHead, bytes]:
    """GET a path of an engine, or POST JSON to it; return head and body of the answer.

    If a pooled connection proves dead at once, a new connection replaces it. If a connection dies later, the request
    may be the cause, so it is not sent again. Raises `Fault`: unreachable, silent, broken off or garbled. An answer of
    more than `max_bytes` counts as garbled.
    """
    try:
        async with asyncio.timeout(timeout):
            connection = link.take_idle() or await link.dial()
            collector = _Collector(connection, MAX_ANSWER_BYTES if max_bytes is None else max_bytes)
            try:
                connection.send(_head(link, path, body), body or b"", collector)
                await collector.done
                assert collector.head is not None
                return collector.head, b"".join(collector.pieces)
            finally:
                if not collector.is_complete:
                    collector.connection.cancel()
                del collector  # it holds the fault, whose traceback holds this frame
    except TimeoutError:
        raise Fault(NODE_SILENT, f"no answer to {path} within {timeout:g} s") from None


def _head(link: Link, path: str, body: bytes | None) -> bytes:
    target = link.base_path + path.encode()
    fields = b"" if body is None else b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%bAccept: application/json\r\n\r\n" % (
        b"GET" if body is None else b"POST",
        target,
        link.host_field,
        link.credential,
        fields,
    )
