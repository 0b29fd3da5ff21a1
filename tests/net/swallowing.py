"""An engine as a program of its own: an Ollama to probes, and to everything else a counter of bytes.

    swallowing.py [SLEEP]       (seconds that it rests after each read)

It prints its port. The answer to a POST is the number of body bytes and their CRC-32 (of a chunked body with its
framing), or, if it has a field X-Answer-Bytes, as many bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from typing import cast

TINY = {"name": "tiny:latest", "model": "tiny:latest", "size": 1, "digest": "a" * 64}
PROBES: dict[str, object] = {
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {"models": [TINY | {"modified_at": "2026-01-01T00:00:00Z"}]},
    "/api/ps": {"models": []},
}
PIECE = bytes(range(256)) * 256


class Swallower(asyncio.Protocol):
    """One connection."""

    rest_seconds = 0.0

    def __init__(self) -> None:
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._head = b""
        self._path = ""
        self._left = 0
        self._is_chunked = False
        self._count = self._crc = self._owed = self._wanted = 0
        self._tail = b""
        self._can_write = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.rest_seconds:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self.rest_seconds, self._transport.resume_reading)
        if not self._path:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._begin(head.decode())
        self._take(data)

    def _begin(self, head: str) -> None:
        self._head = b""
        method, self._path, _ = head.split(" ", 2)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
        self._left = int(fields.get("content-length", "0"))
        self._is_chunked = "transfer-encoding" in fields
        self._count = self._crc = 0
        self._tail = b""
        self._wanted = int(fields.get("x-answer-bytes", "0"))
        if method == "GET":
            self._answer(json.dumps(PROBES.get(self._path, {})).encode())

    def _take(self, data: bytes) -> None:
        if not self._path:
            return
        self._count += len(data)
        self._crc = zlib.crc32(data, self._crc)
        self._left -= len(data)
        self._tail = (self._tail + data)[-5:]
        is_whole = self._tail == b"0\r\n\r\n" if self._is_chunked else self._left <= 0
        if is_whole and self._wanted:
            self._owed = self._wanted
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._owed)
            self._pour()
        elif is_whole:
            self._answer(json.dumps({"count": self._count, "crc": self._crc}).encode())

    def _answer(self, body: bytes) -> None:
        self._path = ""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    def _pour(self) -> None:
        while self._owed and self._can_write:
            piece = PIECE[: self._owed]
            self._owed -= len(piece)
            self._transport.write(piece)
        if not self._owed:
            self._path = ""

    def pause_writing(self) -> None:
        self._can_write = False

    def resume_writing(self) -> None:
        self._can_write = True
        self._pour()


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(Swallower, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    Swallower.rest_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    uvloop.run(_main())
