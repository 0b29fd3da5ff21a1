"""The data sockets of a session: as many as the hub wants, and dialed again when they are lost."""

from __future__ import annotations

import asyncio

import pytest

from hive.node import data_sockets
from hive.testing import SimulatedEngine
from hive.wire import link_dial
from hive.wire.link_rules import CloseCode

from .engine import ANSWER, Call, RawEngine
from .hub import ScriptedHub, agent, break_dial, joined, options, post, run, until

NO_ENGINE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after a tenth of the time."""
    monkeypatch.setattr(link_dial, "_FIRST_SECONDS", 0.1)


def test_the_hub_may_want_more_sockets_and_fewer() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            hub.control.want_links(40)
            hub.control_end.flush()
            await until(lambda: len(hub.data_ends()) == 40)
            hub.control.want_links(2)
            hub.control_end.flush()
            await until(lambda: len(hub.data_ends()) == 2)
            gone = [end.closed.code for end in hub.ends if end.closed is not None]
            assert set(gone) == {CloseCode.NORMAL}

    run(main())


def test_a_busy_socket_that_is_too_many_is_closed_when_it_is_free() -> None:
    async def slow(call: Call) -> None:
        await call.read_body()
        await may_answer.wait()
        await call.send(ANSWER)

    may_answer = asyncio.Event()

    async def main() -> None:
        async with RawEngine(slow) as engine, joined(engine.url) as hub:
            ends = hub.spares()
            answers = [end.open(post("/api/chat"), engine.name) for end in ends]
            await until(lambda: len(engine.calls) == 3)
            hub.control.want_links(1)
            hub.control_end.flush()
            may_answer.set()
            await until(lambda: all(answer.ended for answer in answers))
            assert [answer.status for answer in answers] == [200, 200, 200]
            await until(lambda: len(hub.data_ends()) == 1)

    run(main())


def test_too_many_is_dialed_again_a_little_later() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            end = hub.spares()[0]
            end.data.close(CloseCode.TOO_MANY)
            end.flush()
            await until(lambda: end.is_lost)
            dialed = len(hub.heads)
            await until(lambda: len(hub.heads) == dialed + 1)

    run(main())


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The count by which the pause before each new dial of data sockets was chosen."""
    counts: list[int] = []

    def redial_seconds(attempt: int, why: int, chance: float) -> float:
        counts.append(attempt)
        return link_dial.redial_seconds(attempt, why, chance) / 10

    monkeypatch.setattr(data_sockets, "redial_seconds", redial_seconds)
    return counts


def test_a_hub_that_accepts_data_sockets_and_closes_them_is_dialed_less_and_less(attempts: list[int]) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            hub.drops_data = True
            async with agent(options(hub.url, NO_ENGINE)):
                await until(lambda: len(attempts) >= 6)
                assert attempts[:6] == [1, 2, 3, 4, 5, 6]
                assert len(hub.heads) - 1 <= hub.links * len(attempts)

    run(main())


def test_a_hub_that_asks_for_more_does_not_shorten_the_pause(attempts: list[int]) -> None:
    async def main() -> None:
        async with joined(NO_ENGINE) as hub:
            hub.drops_data = True
            hub.spares()[0].transport.abort()
            await until(lambda: attempts)
            while len(attempts) < 5:
                hub.control.want_links(3)
                hub.control_end.flush()
                await asyncio.sleep(0.001)
            assert len(hub.heads) - 1 - 3 <= len(attempts)

    run(main())


def test_a_data_socket_that_has_carried_an_exchange_begins_the_count_anew(attempts: list[int]) -> None:
    async def main() -> None:
        async with RawEngine() as engine, ScriptedHub() as hub:
            hub.drops_data = True
            async with agent(options(hub.url, engine.url)):
                await until(lambda: len(attempts) >= 3)
                hub.drops_data = False
                await hub.joined()
                assert (await hub.ask(post("/api/chat"), engine.name)).status == 200
                before = len(attempts)
                hub.spares()[0].transport.abort()
                await until(lambda: len(attempts) > before)
                assert attempts[before] == 1

    run(main())


def test_a_data_socket_that_has_lived_for_a_while_begins_the_count_anew(
    attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            hub.drops_data = True
            async with agent(options(hub.url, NO_ENGINE)) as one:
                await until(lambda: len(attempts) >= 3)
                hub.drops_data = False
                await hub.joined()
                assert one._session is not None
                assert one._session.sockets._failures >= 3
                monkeypatch.setattr(data_sockets, "STEADY_SECONDS", 0.0)
                await until(lambda: one._session is not None and one._session.sockets._failures == 0)
                before = len(attempts)
                hub.spares()[0].transport.abort()
                await until(lambda: len(attempts) > before)
                assert attempts[before] == 1

    run(main())


def test_a_dial_with_an_unexpected_error_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub(links=1) as hub:
            break_dial(hub.port, 2)  # the first is the control socket's
            async with agent(options(hub.url, NO_ENGINE)):
                await hub.joined()
                assert len(hub.hellos) == 1

    run(main())
    (told,) = [record for record in caplog.records if record.message == "dialing a data socket"]
    assert told.exc_info is not None
    assert "nobody has foreseen this" in caplog.text
