"""One connection to an engine: a failure is told once, whenever the connection was lost."""

from __future__ import annotations

import asyncio

import pytest

from hive.net.outbox import Outbox
from hive.node.engine_connection import EngineConnection
from hive.wire.link_messages import EndCode

from .engine import RawEngine
from .hub import get, run, until

REQUEST = get("/api/version")


class Sink:
    """Notes how an answer ends."""

    has_sent_all = True

    def __init__(self) -> None:
        self.ends: list[tuple[EndCode, bool] | None] = []
        """None is a whole answer."""

    def on_answer(self, data: bytes, body: bytes) -> None:
        """Only the end counts here."""

    def on_complete(self) -> None:
        self.ends.append(None)

    def on_failure(self, code: EndCode, reason: str, *, is_stale: bool) -> None:
        self.ends.append((code, is_stale))

    def on_full(self, is_full: bool) -> None:
        """A question is short."""


async def connect(engine: RawEngine) -> EngineConnection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: EngineConnection(Outbox(), lambda _: None), "127.0.0.1", engine.port
    )
    return connection


async def outcome(connection: EngineConnection) -> tuple[EndCode, bool] | None:
    """Send a request and wait for its end."""
    sink = Sink()
    connection.send(REQUEST, sink)
    await until(lambda: sink.ends)
    (end,) = sink.ends
    return end


@pytest.mark.parametrize("is_used", [False, True])
def test_a_request_on_a_connection_that_was_lost_fails_at_once(is_used: bool) -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            connection = await connect(engine)
            if is_used:
                assert await outcome(connection) is None
            await until(lambda: engine.writers)
            engine.drop()
            await until(lambda: not connection.is_usable)
            await until(lambda: connection._transport is None)
            sink = Sink()
            connection.send(REQUEST, sink)
            assert sink.ends == [(EndCode.ENGINE_BROKE_OFF, is_used)]

    run(main())


def test_a_request_on_a_connection_that_closes_fails_once() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            connection = await connect(engine)
            connection.close()
            sink = Sink()
            connection.send(REQUEST, sink)
            await until(lambda: connection._transport is None)
            assert sink.ends == [(EndCode.ENGINE_BROKE_OFF, False)]

    run(main())


@pytest.mark.parametrize(("heard", "is_stale"), [(b"", True), (b"H", False)])
def test_a_connection_used_before_is_stale_if_it_dies_unheard(heard: bytes, is_stale: bool) -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            connection = await connect(engine)
            assert await outcome(connection) is None
            (writer,) = engine.writers
            sink = Sink()
            connection.send(REQUEST, sink)
            if heard:
                connection.data_received(heard)
            writer.close()
            await until(lambda: sink.ends)
            assert sink.ends == [(EndCode.ENGINE_BROKE_OFF, is_stale)]

    run(main())
