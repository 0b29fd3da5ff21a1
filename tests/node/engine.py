"""An engine in the test's own loop that plays a script for work, byte by byte; to probes it is an Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

import msgspec

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Call:
    """One request for work: its head, and the streams to read its body from and to answer on."""

    def __init__(
        self, head: bytes, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.head = head
        self.connection = connection
        self.reader = reader
        self.writer = writer
        self.body = b""

    @property
    def lines(self) -> list[str]:
        return self.head.decode().split("\r\n")

    @property
    def fields(self) -> dict[str, str]:
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in self.lines[1:])}

    async def read_body(self) -> bytes:
        """Read the body by its length; a chunked one is returned with its framing."""
        if "transfer-encoding" in self.fields:
            self.body = await self.reader.readuntil(b"0\r\n\r\n")
        else:
            self.body = await self.reader.readexactly(int(self.fields.get("content-length", "0")))
        return self.body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the node has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Call], Awaitable[None]]


async def plain(call: Call) -> None:
    """Read the whole request and answer it."""
    await call.read_body()
    await call.send(ANSWER)


class RawEngine:
    """Plays its script for every request that is not a probe."""

    def __init__(self, script: Script = plain, models: tuple[str, ...] = ("tiny:latest",)) -> None:
        self.script = script
        self.models = models
        self.calls: list[Call] = []
        self.probes: list[bytes] = []
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.errors: list[BaseException] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        """What a node calls it."""
        return f"port-{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        if self.errors:
            raise self.errors[0]

    def drop(self) -> None:
        """Break off every connection."""
        for writer in self.writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                path = head.split(b" ", 2)[1].decode()
                answer = self._probe(path) if head.startswith(b"GET ") else None
                if answer is not None:
                    self.probes.append(head)
                    writer.write(answer)
                    continue
                call = Call(head, number, reader, writer)
                self.calls.append(call)
                await self.script(call)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.writers.discard(writer)
            writer.close()

    def _probe(self, path: str) -> bytes | None:
        models = [{"name": name, "model": name, "digest": "a" * 64, "size": 1} for name in self.models]
        known = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": models}, "/api/ps": {"models": []}}
        if path not in known:
            return None
        body = msgspec.json.encode(known[path])
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
