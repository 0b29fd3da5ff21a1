"""Small questions to an engine, and the pool of connections that they share with exchanges."""

from __future__ import annotations

import asyncio

import pytest

from hive import errors
from hive.errors import Fault
from hive.net.outbox import Outbox
from hive.node import engine_server
from hive.node.agent_options import EngineAddress
from hive.node.engine_server import EngineServer

from .engine import RawEngine
from .hub import gathered, run, until


def server_of(engine: RawEngine) -> EngineServer:
    return EngineServer(EngineAddress("127.0.0.1", engine.port), "e", Outbox(), None)


def test_questions_share_connections() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            server = server_of(engine)
            for _ in range(5):
                assert (await server.ask("/api/version", 2)).body == b'{"version":"0.33.0"}'
            assert engine.connections == 1
            replies = await gathered(80, lambda: server.ask("/api/tags", 2))
            assert {reply.status for reply in replies} == {200}
            assert len(server.link._idle) >= engine_server.MAX_EXCHANGES
            server.close()
            assert server.link.take_idle() is None

    run(main())


def test_a_connection_that_died_in_the_pool_is_replaced() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            server = server_of(engine)
            await server.ask("/api/version", 2)
            engine.drop()
            assert (await server.ask("/api/version", 2)).status == 200
            server.close()

    run(main())


async def fault_of(question: object) -> Fault:
    with pytest.raises(Fault) as caught:
        await question  # type: ignore[misc]
    return caught.value


def test_silence_is_bounded() -> None:
    async def main() -> None:
        async with RawEngine(lambda call: call.gone()) as engine:
            engine._probe = lambda path: None  # type: ignore[method-assign]
            server = server_of(engine)
            fault = await fault_of(server.ask("/api/version", 0.1))
            assert (fault.kind, fault.message) == (errors.NODE_SILENT, "no answer to /api/version within 0.1 s")
            assert server.link.take_idle() is None

    run(main())


def test_a_long_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_server, "MAX_REPLY_BYTES", 10)

    async def main() -> None:
        async with RawEngine() as engine:
            server = server_of(engine)
            fault = await fault_of(server.ask("/api/tags", 2))
            assert (fault.kind, fault.message) == (errors.NODE_GARBLED, "an answer larger than 10 bytes")
            assert server.link.take_idle() is None

    run(main())


def test_a_cancelled_question_closes_its_connection() -> None:
    async def main() -> None:
        async with RawEngine(lambda call: call.gone()) as engine:
            engine._probe = lambda path: None  # type: ignore[method-assign]
            server = server_of(engine)
            task = asyncio.create_task(server.ask("/api/version", 5))
            await until(lambda: engine.calls)
            task.cancel()
            await asyncio.wait([task])
            await until(lambda: not engine.writers)

    run(main())
