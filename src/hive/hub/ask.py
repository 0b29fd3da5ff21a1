"""The hub's own small requests to an engine: whole answers, bounded in size and time."""

from __future__ import annotations

import asyncio

from hive.errors import NODE_GARBLED, NODE_SILENT, Fault, Kind
from hive.net.link import Link
from hive.wire.responses import ResponseHead

MAX_ANSWER_BYTES = 16 << 20


class _Collector:
    """Keeps a whole answer."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.size = 0
        self.pieces: list[bytes] = []
        self.is_complete = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= MAX_ANSWER_BYTES:
            self.pieces.append(data)
        else:
            self.on_failure(NODE_GARBLED, f"an answer larger than {MAX_ANSWER_BYTES} bytes")

    def on_complete(self) -> None:
        self.is_complete = True
        if not self.done.done():
            self.done.set_result(None)

    def on_failure(self, kind: Kind, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(Fault(kind, reason))


async def ask(link: Link, path: str, timeout: float, body: bytes | None = None) -> tuple[ResponseHead, bytes]:
    """GET a path of an engine, or POST JSON to it; return head and body of the answer.

    A pooled connection that dies unused is replaced by a new one. One that dies later is not: the request may be the
    cause. Raises `Fault`: unreachable, silent, broken off or garbled.
    """
    head, now = _head(link, path, body), asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(timeout):
            connection = link.take_idle()
            is_reused = connection is not None
            while True:
                connection = connection or await link.dial()
                collector, sent_at = _Collector(), now()
                try:
                    connection.send(head, body or b"", collector)
                    await collector.done
                except Fault:
                    if not is_reused or not connection.is_lost_unheard(now() - sent_at):
                        raise
                    connection, is_reused = None, False
                    continue
                finally:
                    if connection is not None and not collector.is_complete:
                        connection.cancel()
                assert collector.head is not None
                return collector.head, b"".join(collector.pieces)
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
