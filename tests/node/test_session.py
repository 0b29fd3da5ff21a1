"""A session with the hub: hello, heartbeats, reports, and how it ends."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from hive.node.engine_watcher import LISTING_SECONDS
from hive.testing import SimKind, SimOptions, SimulatedEngine
from hive.wire import link_dial
from hive.wire.link_messages import NOTHING
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import LinkSocket

from .engine import Call, RawEngine
from .hub import KEY, ScriptedHub, agent, joined, options, post, run, until

NO_ENGINE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after a tenth of the time."""
    monkeypatch.setattr(link_dial, "_FIRST_SECONDS", 0.1)


def test_hello_names_the_node_and_its_engines() -> None:
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


def test_a_change_of_the_models_is_reported_after_the_next_listing() -> None:
    assert LISTING_SECONDS <= 2, "docs/node.md promises it"

    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            for models in (("tiny:latest", "new:latest"), ("new:latest",)):
                engine.models = models
                before = len(hub.reports)
                await until(lambda count=before: len(hub.reports) > count)
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


def test_an_engine_that_freezes_gives_no_sign_of_life() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, joined(engine.url) as hub:
            engine.set_fault("freeze")
            await until(lambda: hub.heartbeats and not hub.heartbeats[-1].engines[f"port-{engine.port}"].alive)
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
