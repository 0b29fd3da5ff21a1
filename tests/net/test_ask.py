"""Small questions to an engine: whole answers or one fault, and no connection is left behind."""

from __future__ import annotations

import asyncio

import pytest

from hive import errors
from hive.errors import Fault
from hive.net.ask import ask
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox

from ..node.engine import ANSWER, Call, RawEngine
from ..node.hub import run, until


def link_to(engine: RawEngine) -> DialedLink:
    return DialedLink(f"{engine.url}", Outbox(), connect_timeout=3, max_head_bytes=65536)


def test_a_question_has_the_whole_answer_and_its_connection_is_used_again() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            link = link_to(engine)
            head, body = await ask(link, "/api/version", 2)
            assert (head.status, body) == (200, b'{"version":"0.33.0"}')
            assert await ask(link, "/api/embed", 2, b'{"model":"tiny"}')
            assert (engine.calls[0].body, engine.connections) == (b'{"model":"tiny"}', 1)

    run(main())


async def fault_of(question: object) -> Fault:
    with pytest.raises(Fault) as caught:
        await question  # type: ignore[misc]
    return caught.value


def test_silence_is_bounded_and_closes_the_connection() -> None:
    async def silent(call: Call) -> None:
        await call.gone()

    async def main() -> None:
        async with RawEngine(silent) as engine:
            fault = await fault_of(ask(link_to(engine), "/api/show", 0.1, b"{}"))
            assert (fault.kind, fault.message) == (errors.NODE_SILENT, "no answer to /api/show within 0.1 s")
            await until(lambda: not engine.writers)

    run(main())


def test_a_long_answer_is_not_kept() -> None:
    async def long(call: Call) -> None:
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(1000))
        await call.gone()

    async def main() -> None:
        async with RawEngine(long) as engine:
            fault = await fault_of(ask(link_to(engine), "/api/show", 2, b"{}", max_bytes=999))
            assert (fault.kind, fault.message) == (errors.NODE_GARBLED, "an answer larger than 999 bytes")
            await until(lambda: not engine.writers)

    run(main())


def test_a_departure_in_the_middle_closes_the_connection_that_it_is_on_now() -> None:
    """Also when the pooled one had died and the question has moved."""

    async def script(call: Call) -> None:
        await call.read_body()
        if len(engine.calls) == 1:
            await call.send(ANSWER)
        elif len(engine.calls) == 2:
            call.writer.transport.abort()
        else:
            await call.gone()

    engine = RawEngine(script)

    async def main() -> None:
        async with engine:
            link = link_to(engine)
            await ask(link, "/api/show", 2, b"{}")
            task = asyncio.create_task(ask(link, "/api/show", 5, b"{}"))
            await until(lambda: len(engine.calls) == 3)
            task.cancel()
            await asyncio.wait([task])
            await until(lambda: not engine.writers)
            assert link.take_idle() is None

    run(main())
