"""A session with the hub: data sockets as many as wanted, heartbeats, reports, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from hive.node import session
from hive.testing import SimKind, SimOptions, SimulatedEngine
from hive.wire import link_dial
from hive.wire.link_messages import NOTHING
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import LinkSocket

from .engine import ANSWER, Call, RawEngine
from .hub import KEY, ScriptedHub, agent, break_dial, joined, options, post, run, until

NO_ENGINE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after a tenth of the time."""
    monkeypatch.setattr(link_dial, "_FIRST_SECONDS", 0.1)


def test_hello_says_who_dials_and_what_there_is() -> None:
    async def main() -> None:
        engine = SimulatedEngine(SimOptions(models=("tiny", "other")))
        async with engine, joined(engine.url, slots=3, labels={"room": "lab 2"}) as hub:
            hello = hub.hellos[0]
            assert hello.labels == {"room": "lab 2"}
            assert len(hello.instance) == 32
            assert hello.agent.startswith("hive ")
            (described,) = hello.engines
            assert (described.kind, described.version, described.slots) == ("ollama", "0.33.0", 3)
            assert described.is_alive
            assert b'"other:latest"' in bytes(described.tags)
            assert bytes(described.ps) == b'{"models":[]}'
            assert bytes(described.v1_models) == bytes(NOTHING)
            assert hub.heads[0].fields[b"authorization"] == b"Bearer " + KEY.encode()

    run(main())


def test_a_llama_cpp_lists_its_model_and_says_its_slots() -> None:
    async def main() -> None:
        async with SimulatedEngine(SimOptions(kind=SimKind.LLAMA_CPP, slots=7)) as engine, joined(engine.url) as hub:
            (described,) = hub.hellos[0].engines
            assert (described.kind, described.slots) == ("llama.cpp", 7)
            assert b'"data"' in bytes(described.v1_models)
            assert bytes(described.tags) == bytes(NOTHING)

    run(main())


def test_heartbeats_come_every_two_seconds_with_machine_and_engines() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            await until(lambda: len(hub.heartbeats) >= 3)
            first, second, third = hub.heartbeats[:3]
            assert (first.seq, second.seq, third.seq) == (1, 2, 3)
            assert third.engines[f"port-{engine.port}"].alive
            assert third.machine.cpu is not None
            assert third.machine.memory_total_bytes
            assert third.machine.memory_used_bytes
            assert third.machine.disk_free_bytes
            assert third.machine.gpus == ()

    run(main())


# --- data sockets ---


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

    monkeypatch.setattr(session, "redial_seconds", redial_seconds)
    return counts


def test_who_accepts_data_sockets_and_closes_them_is_dialed_less_and_less(attempts: list[int]) -> None:
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
                assert one._session._failures >= 3
                monkeypatch.setattr(session, "STEADY_SECONDS", 0.0)
                await until(lambda: one._session is not None and one._session._failures == 0)
                before = len(attempts)
                hub.spares()[0].transport.abort()
                await until(lambda: len(attempts) > before)
                assert attempts[before] == 1

    run(main())


def test_a_dial_that_fails_as_nobody_has_foreseen_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_session_that_is_over_begins_with_a_control_socket() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            end = hub.spares()[0]
            end.data.close(CloseCode.SESSION_OVER)
            end.flush()
            await until(lambda: len(hub.hellos) == 2)
            await hub.joined()

    run(main())


# --- what the hub gets wrong ---

WRONG = {
    "a masked frame": (b"\x82\x81abcde", 1002),
    "no JSON": (b"\x81\x02{]", 4000),
    "a reserved bit": (b"\xf1\x00", 1002),
    "a long text": (b"\x81\x7e\x13\x88" + b"x" * 5000, 1009),
    "a giant frame": (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), 1009),
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=list(WRONG))
def test_a_violation_closes_that_socket_alone(sent: bytes, code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            end = hub.spares()[0]
            end.transport.write(sent)
            await until(lambda: end.closed is not None)
            assert end.closed is not None
            assert end.closed.code == code
            await until(lambda: end.is_lost)
            await hub.joined()
            assert len(hub.hellos) == 1

    run(main())
    told = [record.message for record in caplog.records if "a data socket is closed" in record.message]
    assert len(told) == 1


def test_binary_on_the_control_socket_ends_the_session() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            end = hub.control_end
            end.control.socket.send_binary(b"x")
            end.flush()
            await until(lambda: end.closed is not None)
            assert end.closed is not None
            assert end.closed.code == CloseCode.VIOLATION
            await until(lambda: len(hub.hellos) == 2)

    run(main())


# --- the end ---


def test_with_the_control_socket_everything_ends_and_begins_anew() -> None:
    async def endless(call: Call) -> None:
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await call.gone()
        call.body = b"gone"

    async def main() -> None:
        async with RawEngine(endless) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = end.open(post("/api/chat"), engine.name)
            await until(lambda: answer.raw)
            old = hub.data_ends()
            hub.control_end.transport.abort()
            await until(lambda: all(each.is_lost for each in old), 1)
            await until(lambda: engine.calls[0].body == b"gone", 1)
            await until(lambda: len(hub.hellos) == 2)
            assert hub.hellos[0].instance == hub.hellos[1].instance
            await hub.joined()

    run(main())


def test_bye_opens_nothing_more_and_the_close_is_followed_by_a_dial() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            hub.control.say_bye("the hub stops")
            hub.control_end.flush()
            end = hub.spares()[0]
            end.transport.abort()
            dialed = len(hub.heads)
            await until(lambda: len(hub.heartbeats) >= 2)
            assert len(hub.heads) == dialed
            hub.control.close(CloseCode.GOING_AWAY, "the hub stops")
            hub.control_end.flush()
            await until(lambda: len(hub.hellos) == 2)

    run(main())


def test_a_hub_that_is_silent_is_dialed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stand, and nothing comes: a machine that lost its power behind a firewall."""
    monkeypatch.setattr("hive.wire.link_rules.HUB_SILENT_SECONDS", 1.5)

    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            assert isinstance(hub.control.socket, LinkSocket)
            hub.is_ticking = False
            hub.control_end.transport.pause_reading()
            await until(lambda: len(hub.hellos) == 2)

    run(main())


# --- reports ---


def test_a_change_of_the_models_is_reported_within_two_seconds() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            loop = asyncio.get_running_loop()
            for models in (("tiny:latest", "new:latest"), ("new:latest",)):
                began = loop.time()
                engine.models = models
                before = len(hub.reports)
                await until(lambda count=before: len(hub.reports) > count)
                assert loop.time() - began < 2.5
                assert bytes(hub.reports[-1].engines[0].tags).count(b'"name"') == len(models)

    run(main())


def test_without_a_change_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.node.engine_watcher.LISTING_SECONDS", 0.1)

    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            await until(lambda: sum(b"/api/tags" in probe for probe in engine.probes) >= 4)
            assert hub.reports == []

    run(main())


def test_refresh_asks_at_once_and_reports_whatever_it_says() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            asked = len(engine.probes)
            hub.control.refresh(engine.name)
            hub.control.refresh("port-22")
            hub.control_end.flush()
            await until(lambda: hub.reports, 1)
            assert len(engine.probes) > asked

    run(main())


def test_an_engine_that_dies_and_comes_back_is_reported() -> None:
    async def main() -> None:
        engine = RawEngine()
        async with AsyncExitStack() as stack:
            await engine.__aenter__()
            hub = await stack.enter_async_context(joined(engine.url))
            await engine.__aexit__()
            await until(lambda: hub.reports)
            down = hub.reports[-1].engines[0]
            assert (down.is_alive, down.kind) == (False, "ollama")
            assert "connection refused" in down.error
            await until(lambda: hub.heartbeats and not hub.heartbeats[-1].engines[down.id].alive)
            await stack.enter_async_context(engine)
            await until(lambda: hub.reports[-1].engines[0].is_alive)

    run(main())


def test_an_engine_that_freezes_gives_no_sign_of_life_within_five_seconds() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            loop = asyncio.get_running_loop()
            began = loop.time()
            engine.set_fault("freeze")
            await until(lambda: hub.heartbeats and not hub.heartbeats[-1].engines[f"port-{engine.port}"].alive)
            assert loop.time() - began < 7
            assert all(each.engines[0].is_alive for each in hub.reports), "it may only be slow"
            engine.clear_faults()
            await until(lambda: hub.heartbeats[-1].engines[f"port-{engine.port}"].alive)

    run(main())


def test_an_engine_that_starts_later_is_reported() -> None:
    async def main() -> None:
        engine = RawEngine()
        async with engine:
            pass
        async with ScriptedHub() as hub, agent(options(hub.url, engine.url)):
            await hub.joined()
            assert not hub.hellos[0].engines[0].is_alive
            async with engine:
                await until(lambda: hub.reports and bytes(hub.reports[-1].engines[0].tags) != b"null")
                assert hub.reports[-1].engines[0].kind == "ollama"

    run(main())
