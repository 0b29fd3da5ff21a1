"""A request that streams through a hub to one engine and the answer back, dialed and through a real agent.

All of it in one loop: the hub, the agent, the engine and the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive.app import HubServer
from hive.auth.keys import Role
from hive.config import NodeSettings, Secret, Settings
from hive.errors import NODE_BROKE_OFF, Fault
from hive.net import passage
from hive.net.joined_data import JoinedConnection
from hive.net.server import HttpServer

from ..node.engine import ANSWER, Call, RawEngine, Script, plain
from ..node.hub import agent, options, run, until
from .passing import Passing, listen

BLOB = "/api/blobs/sha256:" + "a" * 64
LARGE = 64 << 20
"""More than the system holds for three connections that are not read."""


@dataclass
class Scene:
    """A hub over one engine, and one client."""

    hub: HubServer
    handler: Passing
    server: HttpServer
    engine: RawEngine
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, length: int, path: str = BLOB, *lines: str) -> None:
        more = "".join(f"{line}\r\n" for line in lines)
        self.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\n\r\n".encode())

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
async def scene(link: str, directory: Path, script: Script = plain) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(RawEngine(script))
        nodes = (NodeSettings(name="a", url=engine.url),) if link == "dialed" else ()
        settings = Settings(port=0, data_dir=directory / "data", admin_key=Secret("test-admin"), nodes=nodes)
        hub = HubServer(settings)
        await hub.start()
        stack.push_async_callback(hub.stop)
        if link == "joined":
            key = await hub.keys.create("desk", Role.WORKER, manage=False)
            given = options(f"http://127.0.0.1:{hub.port}", engine.url, key=key.secret)
            await stack.enter_async_context(agent(given))
        await until(lambda: hub.hub.roster.links and hub.hub.roster.has_looked)
        handler, server, port = await listen(hub.hub)
        stack.callback(server.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        yield Scene(hub, handler, server, engine, reader, writer)


Play = Callable[[Scene], Coroutine[Any, Any, None]]


def play(link: str, directory: Path, script: Script, main: Play) -> None:
    async def all_of_it() -> None:
        async with scene(link, directory, script) as one:
            await main(one)

    run(all_of_it())


@pytest.fixture(params=["dialed", "joined"])
def link(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_counted_body_passes_and_the_connection_goes_on(link: str, tmp_path: Path) -> None:
    async def main(one: Scene) -> None:
        for _ in range(2):
            one.post(6, BLOB, "Authorization: Bearer of-a-client", "X-Own: kept")
            await until(lambda: one.handler.passages)
            one.send(b"abc")
            one.send(b"def")
            status, head, body = await one.answer()
            assert (status, body) == (200, b"{}")
            assert b"X-Passed: yes\r\n" in head
            assert b"Connection: close" not in head
            call = one.engine.calls[-1]
            assert (call.lines[0], call.body) == (f"POST {BLOB} HTTP/1.1", b"abcdef")
            assert call.fields["x-own"] == "kept"
            assert "authorization" not in call.fields
        assert one.handler.ends == ["whole", "whole"]

    play(link, tmp_path, plain, main)


def test_a_chunked_body_is_framed_anew(link: str, tmp_path: Path) -> None:
    async def main(one: Scene) -> None:
        one.send(f"POST {BLOB} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        one.send(b"3;a=b\r\nabc\r\n")
        await until(lambda: one.engine.calls)
        one.send(b"2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
        assert (await one.answer())[0] == 200
        assert one.engine.calls[0].body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    play(link, tmp_path, plain, main)


def test_a_request_without_body_passes_too(link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        is_head = call.lines[0].startswith("HEAD")
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" if is_head else ANSWER)

    async def main(one: Scene) -> None:
        one.send(f"HEAD {BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await one.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Length: 100\r\n" in head
        one.post(0)
        assert (await one.answer())[::2] == (200, b"{}")

    play(link, tmp_path, script, main)


def test_the_client_is_asked_for_the_body_when_the_engine_is_there(link: str, tmp_path: Path) -> None:
    async def main(one: Scene) -> None:
        one.post(3, BLOB, "Expect: 100-continue")
        assert await one.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.send(b"abc")
        assert (await one.answer())[0] == 200
        assert "expect" not in one.engine.calls[0].fields

    play(link, tmp_path, plain, main)


async def settled(size: Callable[[], int]) -> int:
    """Return a size once it stays as it is."""
    sizes = [-1, size()]
    while sizes[-1] != sizes[-2] or not sizes[-1]:
        await asyncio.sleep(0.2)
        sizes.append(size())
    return sizes[-1]


def test_a_slow_engine_pauses_its_client(link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await may_read.wait()
        await plain(call)

    may_read = asyncio.Event()

    async def main(one: Scene) -> None:
        one.post(LARGE)
        one.send(bytes(LARGE))
        await until(lambda: one.engine.calls)
        assert await settled(one.writer.transport.get_write_buffer_size) > LARGE // 8, "it was held in between"
        may_read.set()
        assert (await one.answer())[0] == 200
        assert len(one.engine.calls[0].body) == LARGE

    play(link, tmp_path, script, main)


def test_a_slow_client_pauses_its_engine(link: str, tmp_path: Path) -> None:
    sent = 0

    async def script(call: Call) -> None:
        nonlocal sent
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
        while sent < LARGE:
            await call.send(bytes(64 << 10))
            sent += 64 << 10

    async def main(one: Scene) -> None:
        one.post(3)
        one.send(b"abc")
        await one.reader.readexactly(1)
        assert await settled(lambda: sent) < LARGE * 7 // 8, "it was held in between"
        head = await one.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"TTP/1.1 200 ")
        assert len(await one.reader.readexactly(LARGE)) == LARGE
        assert one.handler.ends == ["whole"]

    play(link, tmp_path, script, main)


def test_an_answer_before_the_body_is_whole_is_no_failure(link: str, tmp_path: Path) -> None:
    """As Ollama gives one for a blob that it has, and reads on for a while."""

    async def script(call: Call) -> None:
        await call.send(ANSWER)
        await call.gone()

    async def main(one: Scene) -> None:
        one.post(LARGE)
        one.send(b"abc")
        status, head, body = await one.answer()
        assert (status, body) == (200, b"{}")
        assert b"Connection: close" in head
        assert one.handler.ends == ["whole"]
        assert await one.rest() == b""

    play(link, tmp_path, script, main)


# --- ends ---


def test_a_departure_in_the_middle_ends_the_engines_side(link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.gone()
        call.body = b"gone"

    async def main(one: Scene) -> None:
        one.post(LARGE)
        one.send(bytes(1 << 20))
        await until(lambda: one.engine.calls)
        one.writer.transport.abort()
        await until(lambda: one.engine.calls[0].body == b"gone", 2)
        assert one.handler.ends == ["gone"]

    play(link, tmp_path, script, main)


def test_a_departure_while_it_is_dialed_leaves_nothing(link: str, tmp_path: Path) -> None:
    async def main(one: Scene) -> None:
        for turns in range(5):
            _, writer = await asyncio.open_connection(*one.writer.get_extra_info("peername"))
            count = len(one.handler.passages)
            writer.write(f"POST {BLOB} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode())
            await until(lambda count=count: len(one.handler.passages) > count)
            for _ in range(turns):
                await asyncio.sleep(0)
            writer.transport.abort()
            await until(lambda count=count: len(one.handler.ends) > count)
        assert one.handler.ends == ["gone"] * 5
        one.post(3)
        one.send(b"abc")
        assert (await one.answer())[0] == 200
        await until(lambda: all(call.body in (b"", b"abc") for call in one.engine.calls))

    play(link, tmp_path, plain, main)


def test_an_engine_that_dies_before_its_answer_is_one_honest_error(link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.reader.readexactly(3)
        call.writer.transport.abort()

    async def main(one: Scene) -> None:
        one.post(1000)
        one.send(b"abc")
        status, head, body = await one.answer()
        assert status == 502
        assert b"broke the connection off" in body
        assert b"Connection: close" in head
        assert one.handler.ends == [NODE_BROKE_OFF.code]

    play(link, tmp_path, script, main)


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_an_engine_that_dies_inside_its_answer_cuts_it(framing: bytes, link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc\r\n" % framing)
        await until(lambda: may_die.is_set())
        call.writer.transport.abort()

    may_die = asyncio.Event()

    async def main(one: Scene) -> None:
        one.post(3)
        one.send(b"abc")
        await one.reader.readuntil(b"abc")
        may_die.set()
        assert await one.rest() in (b"\r\n", b"reset", b"")
        assert one.handler.ends == [NODE_BROKE_OFF.code]

    play(link, tmp_path, script, main)


def test_an_engine_that_is_away_is_one_honest_error(link: str, tmp_path: Path) -> None:
    async def main(one: Scene) -> None:
        one.engine._server.close()  # type: ignore[union-attr]
        one.engine.drop()
        one.post(3)
        one.send(b"abc")
        assert (await one.answer())[0] == 502

    play(link, tmp_path, plain, main)


def test_a_passage_that_is_given_up_stops_the_engine_and_answers(link: str, tmp_path: Path) -> None:
    async def script(call: Call) -> None:
        await call.gone()
        call.body = b"gone"

    async def main(one: Scene) -> None:
        one.post(1000)
        one.send(b"abc")
        await until(lambda: one.engine.calls)
        one.handler.passages[0].give_up(Fault(NODE_BROKE_OFF, "enough"))
        one.handler.passages[0].give_up(Fault(NODE_BROKE_OFF, "enough"))
        assert (await one.answer())[0] == 502
        await until(lambda: one.engine.calls[0].body == b"gone", 2)
        assert one.handler.ends == [NODE_BROKE_OFF.code]

    play(link, tmp_path, script, main)


def test_an_engine_that_takes_nothing_for_too_long_is_given_up(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(call: Call) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(passage, "STUCK_SECONDS", 0.5)

    async def main(one: Scene) -> None:
        one.post(LARGE)
        one.send(bytes(LARGE))
        status, _, body = await one.answer()
        assert status == 502
        assert b"takes no more of the request" in body

    play(link, tmp_path, script, main)


def test_a_spare_that_proves_dead_costs_nothing_of_the_body(tmp_path: Path) -> None:
    """The body is not asked for before the node has accepted the exchange."""

    async def main(one: Scene) -> None:
        sockets = one.hub.hub.joining.sockets
        await until(lambda: sum(isinstance(each, JoinedConnection) for each in sockets) >= 3)
        dead = next(iter(one.hub.hub.roster.links.values())).take_idle()
        assert isinstance(dead, JoinedConnection)
        dead.close()  # it is the next one again
        dead.abort()
        one.post(3)
        one.send(b"abc")
        assert (await one.answer())[0] == 200
        assert [call.body for call in one.engine.calls] == [b"abc"]

    play("joined", tmp_path, plain, main)
