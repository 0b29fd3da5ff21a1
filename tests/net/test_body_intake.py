"""A body that streams to its handler: when it comes, how it is held back, and what its client may do meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from hive.errors import UNAUTHENTICATED, Fault
from hive.net.body_intake import BodyIntake
from hive.net.outbox import Outbox
from hive.net.reception import ServerLimits
from hive.net.server import HttpServer, Listener
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead

from ..node.hub import run, until

HOST = b"Host: localhost\r\n"
POST = b"POST /blob HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
EXPECT = b"Expect: 100-continue\r\n"
SMALL = ServerLimits(max_body_bytes=10, max_bodies_bytes=10, body_timeout=0.2, linger_timeout=0.2)
LARGE = 32 << 20
"""More than the system holds on the way to a server that does not read."""


def counted(length: int, more: bytes = b"") -> bytes:
    return POST + more + b"Content-Length: %d\r\n\r\n" % length


class Taker:
    """A handler that lets bodies stream, and notes what comes; `reads` at once, if not told otherwise."""

    def __init__(self) -> None:
        self.streams: list[ClientStream] = []
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.reads = True
        self.on_begin: Callable[[ClientStream], None] = lambda stream: None
        self.on_judge: Callable[[ClientStream], None] = self.let_stream

    @staticmethod
    def let_stream(stream: ClientStream) -> None:
        stream.intake = BodyIntake()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def intake(self) -> BodyIntake:
        intake = self.streams[-1].intake
        assert intake is not None
        return intake

    def judge(self, stream: ClientStream) -> None:
        self.on_judge(stream)

    def begin(self, stream: ClientStream) -> None:
        self.streams.append(stream)
        self.events.append("begin")
        stream.on_departure = lambda: self.events.append("departure")
        self.on_begin(stream)
        if stream.intake is None:
            stream.send(200, b"", stream.body)
        elif self.reads:
            stream.intake.read(self)

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        return fault.kind.status, b"", fault.kind.code.encode()

    def on_piece(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_end(self) -> None:
        self.events.append("end")
        self.streams[-1].send(200, b"", b"%d" % len(self.body))


class Client:
    """A client, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Return status, head and body of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int((head.lower() + b"content-length: 0\r\n").partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split(b" ")[1]), head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        with suppress(ConnectionError):
            return await self.reader.read()
        return b"reset"


@asynccontextmanager
async def taking(limits: ServerLimits = SMALL) -> AsyncIterator[tuple[Taker, HttpServer, Client]]:
    """A server with such a handler, and a client of it."""
    taker = Taker()
    server = HttpServer(limits, Outbox())
    port = await server.listen(Listener("127.0.0.1", 0, taker))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield taker, server, Client(reader, writer)
        assert server.held_body_bytes == 0
    finally:
        writer.close()
        server.close()
        await until(lambda: not server.connections)


def test_the_handler_begins_at_the_end_of_the_head_and_nothing_is_read_before_it_wants_the_body() -> None:
    async def main() -> None:
        async with taking() as (taker, server, client):
            taker.reads = False
            client.send(counted(LARGE) + b"abc")
            await until(lambda: taker.events)
            client.send(bytes(LARGE - 3))
            await asyncio.sleep(0.3)  # until the system takes no more
            (connection,) = server.connections
            assert client.writer.transport.get_write_buffer_size() > LARGE // 8
            assert (taker.pieces, connection.is_busy) == ([], True)
            taker.intake.read(taker)
            assert (taker.events, taker.pieces) == (["begin"], [b"abc"])
            assert (await client.answer())[::2] == (200, b"%d" % LARGE)

    run(main())


@pytest.mark.parametrize("cut", [1, 30, 80, 95, 104, 107, 1000])
@pytest.mark.parametrize(
    "sent",
    [
        counted(30) + b"x" * 30,
        CHUNKED + b"a\r\n" + b"x" * 10 + b"\r\n14;a=b\r\n" + b"x" * 20 + b"\r\n0\r\nT: x\r\n\r\n",
    ],
)
def test_pieces_come_as_they_come_then_the_end_and_the_connection_goes_on(sent: bytes, cut: int) -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            for _ in range(2):
                taker.pieces, taker.events = [], []
                client.send(sent[:cut])
                await asyncio.sleep(0.01)
                client.send(sent[cut:])
                status, head, body = await client.answer()
                assert (status, body, taker.body) == (200, b"30", b"x" * 30)
                assert taker.events == ["begin", "end"]
                assert b"Connection: close" not in head

    run(main())


def test_a_request_without_body_ends_at_once() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            for data in (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", counted(0)):
                client.send(data)
                assert (await client.answer())[2] == b"0"
            assert taker.events == ["begin", "end"] * 2

    run(main())


def test_100_continue_is_sent_when_the_handler_wants_the_body() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            taker.reads = False
            client.send(counted(3, EXPECT))
            await until(lambda: taker.events)
            taker.intake.read(taker)
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            assert (await client.answer())[0] == 200
            taker.on_begin = lambda stream: stream.send(403, b"", b"no")
            client.send(counted(3, EXPECT))
            assert (await client.answer())[0] == 403
            assert await client.rest() == b""

    run(main())


def test_a_handler_that_pauses_holds_its_client_back_and_its_time_stands_still() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            client.send(counted(LARGE))
            await until(lambda: taker.events)
            taker.intake.pause()
            client.send(bytes(LARGE))
            before = -1
            await asyncio.sleep(1.2)  # longer than the body may be silent, and a sweep
            before = client.writer.transport.get_write_buffer_size()
            assert before > LARGE // 8
            assert len(taker.body) < 1 << 20
            taker.intake.resume()
            assert (await client.answer())[2] == b"%d" % LARGE

    run(main())


def test_a_client_that_falls_silent_inside_the_body_is_408_and_the_handler_hears_of_it() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            client.send(counted(10) + b"abc")
            status, head, body = await client.answer()
            assert (status, body) == (408, b"request_timeout")
            assert b"Connection: close" in head
            assert (taker.events, taker.body) == (["begin", "departure"], b"abc")
            assert await client.rest() == b""

    run(main())


def test_a_malformed_piece_is_400_and_the_handler_hears_of_it() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            client.send(CHUNKED + b"3\r\nabc\r\n")
            await until(lambda: taker.pieces)
            client.send(b"zz\r\n")
            assert (await client.answer())[::2] == (400, b"bad_request")
            assert taker.events == ["begin", "departure"]

    run(main())


def test_a_malformed_piece_behind_the_start_of_an_answer_cuts_it() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            client.send(CHUNKED + b"3\r\nabc\r\n")
            await until(lambda: taker.pieces)
            taker.streams[0].start(200, b"")
            taker.streams[0].write(b"begun")
            await client.reader.readuntil(b"begun\r\n")
            client.send(b"zz\r\n")
            assert b"0\r\n\r\n" not in await client.rest()
            assert taker.events == ["begin", "departure"]

    run(main())


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_departure_in_the_middle_is_told_once(how: str) -> None:
    async def main() -> None:
        async with taking() as (taker, server, client):
            client.send(counted(10) + b"abc")
            await until(lambda: taker.pieces)
            if how == "close":
                client.writer.close()
            elif how == "half":
                client.writer.write_eof()
            else:
                client.writer.transport.abort()
            await until(lambda: not server.connections)
            assert taker.events == ["begin", "departure"]
            taker.streams[0].send(200, b"", b"")  # does nothing any more
            taker.intake.resume()

    run(main())


@pytest.mark.parametrize("is_paused", [False, True])
def test_an_answer_before_the_body_is_whole_is_an_answer(is_paused: bool) -> None:
    async def main() -> None:
        async with taking() as (taker, server, client):
            taker.reads = not is_paused
            client.send(counted(300_000) + b"abc")
            await until(lambda: taker.events)
            taker.streams[0].send(200, b"", b"known")
            client.send(bytes(200_000))
            status, head, body = await client.answer()
            assert (status, body) == (200, b"known")
            assert b"Connection: close" in head
            assert await client.rest() == b""
            client.writer.close()
            await until(lambda: not server.connections)
            assert taker.events == ["begin"]

    run(main())


def test_a_second_request_behind_the_body_is_not_started() -> None:
    async def main() -> None:
        async with taking() as (taker, _, client):
            client.send(counted(20) + b"x" * 10)
            await until(lambda: taker.pieces)
            client.send(b"x" * 10 + counted(0))
            status, head, _ = await client.answer()
            assert (status, b"Connection: close" in head) == (200, True)
            assert await client.rest() == b""
            assert taker.events == ["begin", "end"]

    run(main())


def test_the_end_of_the_server_refuses_a_body_that_still_comes() -> None:
    async def main() -> None:
        async with taking(ServerLimits()) as (taker, server, client):
            client.send(counted(10) + b"abc")
            await until(lambda: taker.pieces)
            server.stop_accepting()
            await server.finish(0.01)
            assert (await client.answer())[::2] == (503, b"draining")
            assert taker.events == ["begin", "departure"]

    run(main())


# --- the longest body depends on who asks ---


def test_the_handler_judges_before_the_length_and_may_change_the_limit() -> None:
    def judge(stream: ClientStream) -> None:
        key = stream.head.fields.get(b"x-api-key")
        if key is None:
            raise Fault(UNAUTHENTICATED, "no key")
        stream.takes_body = True
        if key == b"large":
            stream.max_body_bytes = 20

    async def main() -> None:
        limits = ServerLimits(max_body_bytes=10)
        for key, framing, status in (
            (b"", b"Content-Length: 1000\r\n\r\n", 401),
            (b"X-Api-Key: a\r\n", b"Content-Length: 11\r\n\r\n", 413),
            (b"X-Api-Key: a\r\n", b"Content-Length: 10\r\n\r\n" + b"x" * 10, 200),
            (b"X-Api-Key: large\r\n", b"Content-Length: 20\r\n\r\n" + b"x" * 20, 200),
            (b"X-Api-Key: large\r\n", b"Content-Length: 21\r\n\r\n", 413),
            (b"X-Api-Key: a\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n", 413),
            (b"X-Api-Key: large\r\n", b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n", 200),
        ):
            async with taking(limits) as (taker, _, client):
                taker.on_judge = judge
                client.send(POST + key + framing)
                assert (await client.answer())[0] == status, (key, framing)

    run(main())


def test_a_draining_server_refuses_before_it_judges() -> None:
    async def main() -> None:
        async with taking() as (taker, server, client):
            taker.on_judge = lambda stream: pytest.fail("judged")
            client.send(POST)
            await until(lambda: any(not one._reader.is_idle for one in server.connections))
            server.stop_accepting()
            client.send(b"Content-Length: 1000\r\n\r\n")
            assert (await client.answer())[0] == 503

    run(main())
