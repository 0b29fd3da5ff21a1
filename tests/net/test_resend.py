"""A request whose connection dies before the engine has got it: it goes out again, once, on a fresh connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hive import errors
from hive.errors import Kind
from hive.net import engine_connection
from hive.net.dialed import DialedLink
from hive.net.engine_connection import EngineConnection
from hive.net.link import Connection
from hive.net.outbox import Outbox
from hive.wire.responses import ResponseHead

from ..node.engine import ANSWER, Call, RawEngine
from ..node.hub import break_dial, get, post, run, until

REQUEST = get("/api/tags")
BROKE_OFF = errors.NODE_BROKE_OFF


class Sink:
    """Notes how an answer ends."""

    def __init__(self) -> None:
        self.ends: list[Kind | None] = []
        """None is a whole answer."""
        self.heard: list[bytes] = []
        self.connections: list[Connection] = []
        """Those that the request moved to."""

    def on_head(self, head: ResponseHead) -> None:
        """Only the end counts here."""

    def on_body(self, data: bytes) -> None:
        self.heard.append(data)

    def on_complete(self) -> None:
        self.ends.append(None)

    def on_failure(self, kind: Kind, reason: str) -> None:
        self.ends.append(kind)

    def on_moved(self, connection: Connection) -> None:
        self.connections.append(connection)

    def on_full(self, is_full: bool) -> None:
        """A question is short."""


def link_to(engine: RawEngine) -> DialedLink:
    return DialedLink(engine.url, Outbox(), connect_timeout=3, max_head_bytes=65536)


async def end_of(sink: Sink) -> Kind | None:
    await until(lambda: sink.ends)
    (end,) = sink.ends
    return end


async def used(link: DialedLink) -> EngineConnection:
    """Return a connection that has carried an exchange."""
    connection, sink = await link.dial(), Sink()
    connection.send(REQUEST, b"", sink)
    assert await end_of(sink) is None
    pooled = link.take_idle()
    assert pooled is connection
    return connection


def test_a_request_on_a_used_connection_that_was_lost_goes_out_on_a_fresh_one() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            link, sink = link_to(engine), Sink()
            connection = await used(link)
            engine.drop()
            await until(lambda: connection._transport is None)
            connection.send(REQUEST, b"", sink)
            assert await end_of(sink) is None
            assert sink.connections == [link.take_idle()]

    run(main())


def test_a_request_on_a_fresh_connection_that_was_lost_fails_once() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            connection, sink = await link_to(engine).dial(), Sink()
            connection.close()
            await until(lambda: connection._transport is None)
            connection.send(REQUEST, b"", sink)
            assert sink.ends == [BROKE_OFF]
            closing, late = await link_to(engine).dial(), Sink()
            closing.close()
            closing.send(REQUEST, b"", late)
            assert await end_of(late) is BROKE_OFF

    run(main())


def dying(*deaths: int) -> Callable[[RawEngine], object]:
    """Return a script that aborts the calls of these numbers and answers the others."""

    def make(engine: RawEngine) -> object:
        async def script(call: Call) -> None:
            await call.read_body()
            if len(engine.calls) in deaths:
                call.writer.transport.abort()
            else:
                await call.send(ANSWER)

        return script

    return make


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_connection_that_dies_unheard_costs_nothing_and_only_once(pieces: int) -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            engine.script = dying(2, 4, 5)(engine)  # type: ignore[assignment]
            link = link_to(engine)
            request = post("/api/chat", b"x" * 300)
            assert (await sent(link, await link.dial(), request, pieces)).ends == [None]
            for expected in ([None], [BROKE_OFF]):
                connection = link.take_idle()
                assert connection is not None
                sink = await sent(link, connection, request, pieces)
                assert (sink.ends, len(sink.connections)) == (expected, 1)
            assert [call.body for call in engine.calls] == [b"x" * 300] * 5

    run(main())


async def sent(link: DialedLink, connection: EngineConnection, request: bytes, pieces: int) -> Sink:
    """Send a request whole or in pieces; return its sink at the end."""
    sink = Sink()
    if pieces == 1:
        connection.send(request, b"", sink)
    else:
        connection.begin(request[:200], sink)
        connection.write(request[200:300])
        connection.write(request[300:])
        connection.finish()
    await end_of(sink)
    return sink


def test_pieces_that_come_while_it_is_dialed_anew_go_out_too() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            link, sink = link_to(engine), Sink()
            connection = await used(link)
            engine.drop()
            await until(lambda: connection._transport is None)
            request = post("/api/chat", b"abc")
            connection.begin(request[:-3], sink)
            connection.write(request[-3:])
            connection.finish()
            assert await end_of(sink) is None
            assert engine.calls[-1].body == b"abc"
            assert link.take_idle() is sink.connections[0]

    run(main())


def test_what_was_heard_or_is_late_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            for heard, late in ((b"H", 0.0), (b"", engine_connection.STALE_AFTER + 0.1)):
                link, sink = link_to(engine), Sink()
                connection = await used(link)
                monkeypatch.setattr(engine_connection, "monotonic", lambda: 0.0)
                connection.send(REQUEST, b"", sink)
                if heard:
                    connection.data_received(heard)
                monkeypatch.setattr(engine_connection, "monotonic", lambda late=late: late)
                assert connection._transport is not None
                connection._transport.abort()
                assert await end_of(sink) is BROKE_OFF
                assert not sink.connections

    run(main())


def test_cancelled_while_it_is_dialed_anew_it_leaves_nothing() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            link, sink = link_to(engine), Sink()
            connection = await used(link)
            engine.drop()
            await until(lambda: connection._transport is None and not engine.writers)
            for turns in range(4):
                connection.send(REQUEST, b"", sink)
                for _ in range(turns):
                    await asyncio.sleep(0)
                connection.cancel()
                await until(lambda: len(asyncio.all_tasks()) <= 2 + len(engine.writers))
                await until(lambda: not engine.writers)
            assert (sink.ends, sink.connections, link.take_idle()) == ([], [], None)

    run(main())


def test_a_second_dial_that_fails_is_the_end() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            link, sink = link_to(engine), Sink()
            connection = await used(link)
            engine.drop()
            await until(lambda: connection._transport is None)
            break_dial(engine.port)
            connection.send(REQUEST, b"", sink)
            assert await end_of(sink) is errors.NODE_UNREACHABLE

    run(main())
