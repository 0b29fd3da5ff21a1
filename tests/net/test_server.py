"""All client connections together: listening, ids, refusals that are held back, and the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from hive.errors import FORBIDDEN, Fault
from hive.net import reception
from hive.net.outbox import Outbox
from hive.net.reception import ServerLimits
from hive.net.server import HttpServer, Listener
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Refusing:
    """A handler that refuses every request."""

    def __init__(self, delay: float = 0.0, words: str = "no") -> None:
        self.delay = delay
        self.words = words

    def judge(self, stream: ClientStream) -> None:
        raise Fault(FORBIDDEN, self.words, delay=self.delay)

    def begin(self, stream: ClientStream) -> None:
        raise AssertionError("every request is refused")

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        return 403, b"X-Id: %b\r\n" % request_id.encode(), fault.message.encode()


class Client:
    """A connection to the server, in its loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head + await self.reader.readexactly(2)


async def until(is_true: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    while not is_true():  # noqa: ASYNC110
        await asyncio.sleep(0)


def with_server(
    test: Callable[[HttpServer, Callable[[], Awaitable[Client]]], Awaitable[None]],
    *,
    delay: float = 0.0,
    limits: ServerLimits | None = None,
) -> None:
    """Run a test with a server that listens, and what connects to it."""

    async def run() -> None:
        server = HttpServer(limits or ServerLimits(), Outbox())
        port = await server.listen(Listener("127.0.0.1", 0, Refusing(delay)))
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
            return clients[-1]

        try:
            async with asyncio.timeout(10):
                await test(server, connect)
        finally:
            server.close()
            for client in clients:
                client.writer.close()
                await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)

    asyncio.run(run())


def test_a_refusal_is_answered_in_the_handlers_words() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        client.writer.write(GET)
        answer = await client.answer()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"\r\n\r\nno")
        assert server.reception.date_line in answer

    with_server(test)


def test_a_connection_is_counted_until_it_is_lost() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        client.writer.write(GET)
        await client.answer()
        assert len(server.connections) == 1
        client.writer.close()
        await until(lambda: not server.connections)

    with_server(test)


def test_no_request_has_the_id_of_another() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        other = HttpServer(ServerLimits(), Outbox())
        ids = [each.reception.next_request_id() for each in (server, other) for _ in range(100)]
        assert len(set(ids)) == 200
        assert all(each.startswith("req_") for each in ids)

    with_server(test)


def test_a_port_that_is_taken_is_told() -> None:
    async def run() -> None:
        server = HttpServer(ServerLimits(), Outbox())
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
            await server.listen(Listener("127.0.0.1", taken.getsockname()[1], Refusing()))
        server.close()

    asyncio.run(run())


def test_each_listener_has_its_own_handler() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        port = await server.listen(Listener("127.0.0.1", 0, Refusing(words="not here")))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(8) == b"not here"
        writer.close()
        await writer.wait_closed()

    with_server(test)


def test_a_refusal_that_is_held_back_comes_after_its_delay() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        client.writer.write(GET)
        assert (await client.answer()).startswith(b"HTTP/1.1 403 ")
        assert loop.time() - began >= 0.1

    with_server(test, delay=0.1)


def test_when_too_many_refusals_are_held_the_next_is_cut_off_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_HELD_REFUSALS", 1)

    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        held, refused = await connect(), await connect()
        held.writer.write(GET)
        await until(lambda: any("HELD" in repr(connection) for connection in server.connections))
        refused.writer.write(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await refused.answer()

    with_server(test, delay=3600.0)


def test_a_server_that_stops_accepting_closes_idle_connections_and_takes_no_more() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        idle = await connect()
        idle.writer.write(GET)
        await idle.answer()
        server.stop_accepting()
        assert server.reception.is_draining
        assert await idle.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect()

    with_server(test)


def test_the_end_waits_for_what_is_under_way_and_then_refuses_it() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        client.writer.write(GET)
        await until(lambda: any("HELD" in repr(connection) for connection in server.connections))
        await server.finish(0.05)
        assert (await client.answer()).startswith(b"HTTP/1.1 403 ")

    with_server(test, delay=3600.0)


def test_the_end_of_an_idle_server_waits_for_nothing() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        await connect()
        await server.finish(3600.0)

    with_server(test)


def test_a_connection_that_never_speaks_is_closed() -> None:
    async def test(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        assert await client.reader.read() == b""

    with_server(test, limits=ServerLimits(head_timeout=0))
