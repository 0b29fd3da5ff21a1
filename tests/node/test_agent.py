"""The agent's life: it joins, joins again, says once what is wrong, and leaves in order."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hive.node.agent import Agent, AgentError, AgentVoice, ExitCode
from hive.node.machine_watch import NoGpus
from hive.testing import SimulatedEngine
from hive.testing.hub import ThreadedHub
from hive.wire import link_dial
from hive.wire.link_rules import CloseCode

from .engine import Call, RawEngine
from .hub import ScriptedHub, agent, break_dial, joined, options, post, refuse, run, until

PAGE = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno"
PORTAL = refuse(403, "log in first").replace(b"X-Hive-Request-Id: 1\r\n", b"").replace(b"Refused", b"Forbidden")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after a tenth of the time."""
    monkeypatch.setattr(link_dial, "_FIRST_SECONDS", 0.1)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def ended(hub: ScriptedHub) -> AgentError:
    """Run an agent until it gives up."""
    with pytest.raises(AgentError) as caught:
        await Agent(options(hub.url, "http://127.0.0.1:1"), {}, NoGpus).run()
    return caught.value


# --- what only people can change ---

FINAL = {
    401: ("the hub refuses the key: unknown key", ExitCode.KEY_REFUSED),
    403: ("the hub refuses the key: unknown key", ExitCode.KEY_REFUSED),
    426: ("the hub and this agent speak no common version: unknown key", ExitCode.NO_COMMON_VERSION),
}


@pytest.mark.parametrize("status", FINAL)
def test_a_refusal_of_the_hub_ends_the_agent_with_its_sentence(status: int) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            hub.refusal = refuse(status, "unknown key")
            error = await ended(hub)
            assert (str(error), error.code) == FINAL[status]

    run(main())


def test_a_real_hub_that_knows_no_such_key_ends_the_agent(shared_hub: ThreadedHub) -> None:
    async def main() -> None:
        with pytest.raises(AgentError) as caught:
            await Agent(options(f"http://127.0.0.1:{shared_hub.port}", "http://127.0.0.1:1"), {}, NoGpus).run()
        assert caught.value.code == ExitCode.KEY_REFUSED

    run(main())


def test_a_key_that_is_revoked_ends_the_agent() -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            task = asyncio.create_task(ended(hub))
            await hub.joined()
            hub.control.close(CloseCode.KEY_REVOKED, "the key desk was revoked")
            hub.control_end.flush()
            error = await task
            assert str(error) == "the hub has ended this node's session: the key desk was revoked"
            assert error.code == ExitCode.KEY_REFUSED

    run(main())


# --- what passes ---


@pytest.mark.parametrize(("page", "why"), [(PAGE, "Forbidden"), (PORTAL, "log in first")], ids=["proxy", "portal"])
def test_a_refusal_that_is_no_hubs_is_tried_again(
    page: bytes, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_dial, "_LONGEST_SECONDS", 0.2)

    async def main() -> None:
        async with ScriptedHub() as hub, agent(options(hub.url, "http://127.0.0.1:1")):
            hub.refusal = page
            await until(lambda: len(hub.heads) >= 3)
            hub.refusal = None
            await hub.joined()
            said = [line for line in warnings(caplog) if "let" in line]
            assert said == [f"{hub.url} does not let this node in (403): {why}; trying again"]

    run(main())


def test_a_place_without_a_link_is_no_hub(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub, agent(options(hub.url, "http://127.0.0.1:1")):
            hub.refusal = PAGE.replace(b"403 Forbidden", b"404 Not Found")
            wanted = f"{hub.url} is no Hive hub, or has another path: it has no /hive/link; trying again"
            await until(lambda: wanted in warnings(caplog))

    run(main())


def test_an_engine_that_is_away_is_a_warning_with_its_url_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub, agent(options(hub.url, "http://127.0.0.1:1")):
            await hub.joined()
            assert warnings(caplog) == ["engine http://127.0.0.1:1: connection refused"]

    run(main())


def test_a_dial_with_an_unexpected_error_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            break_dial(hub.port)
            async with agent(options(hub.url, "http://127.0.0.1:1")):
                await hub.joined()

    run(main())
    assert "nobody has foreseen this" in caplog.text


def test_a_name_that_is_taken_is_tried_until_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ScriptedHub() as hub, agent(options(hub.url, "http://127.0.0.1:1")):
            hub.turn_away = (CloseCode.NAME_TAKEN, "the hub's settings have a node 'a'")
            await until(lambda: len(hub.hellos) >= 3)
            hub.turn_away = None
            await hub.joined()
            said = [line for line in warnings(caplog) if hub.url in line]
            assert said == [f"{hub.url} does not let this node in: the hub's settings have a node 'a'; trying again"]
            assert len({hello.instance for hello in hub.hellos}) == 1

    run(main())


def test_a_hub_that_is_away_is_dialed_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        hub = ScriptedHub()
        async with hub, agent(options(hub.url, "http://127.0.0.1:1")):
            await hub.joined()
            await hub.vanish()
            await until(lambda: any("connection refused" in line for line in warnings(caplog) if "hub" in line))
            await hub.listen()
            await until(lambda: len(hub.hellos) == 2)
            await hub.joined()
            said = [line for line in warnings(caplog) if "no way to the hub" in line]
            assert said == [f"no way to the hub {hub.url}: connection refused; trying again"]

    run(main())


def test_a_draining_hub_says_how_long_to_wait() -> None:
    async def main() -> None:
        async with ScriptedHub() as hub:
            hub.refusals = [refuse(503, "draining", "Retry-After: 2")]
            began = asyncio.get_running_loop().time()
            async with agent(options(hub.url, "http://127.0.0.1:1")):
                await until(lambda: len(hub.heads) >= 2)
                assert asyncio.get_running_loop().time() - began > 1.9

    run(main())


def test_the_same_trouble_is_said_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    voice = AgentVoice(lambda: now)
    for sentence in ("a", "a", "b", "a"):
        voice.say(sentence)
    assert warnings(caplog) == ["a", "b", "a"]
    now = 601.0
    voice.say("a")
    voice.note_recovery()
    voice.say("a")
    assert warnings(caplog) == ["a", "b", "a", "a", "a"]


# --- leaving ---


async def waiting(call: Call) -> None:
    await call.read_body()
    await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await MAY_END[0].wait()
    await call.send(b"0\r\n\r\n")


MAY_END: list[asyncio.Event] = []


@pytest.fixture
def may_end() -> asyncio.Event:
    """Lets the engine end its answers."""
    MAY_END[:] = [asyncio.Event()]
    return MAY_END[0]


def test_a_stop_lets_what_runs_end(may_end: asyncio.Event) -> None:
    async def main() -> None:
        async with RawEngine(waiting) as engine, ScriptedHub() as hub:
            one = Agent(options(hub.url, engine.url), {}, NoGpus)
            task = asyncio.create_task(one.run())
            await hub.joined()
            first, second = hub.spares()[:2]
            answer = first.open(post("/api/chat"), engine.name)
            await until(lambda: answer.raw)
            one.stop()
            await until(lambda: hub.is_draining)
            late = second.open(post("/api/chat"), engine.name)
            await until(lambda: late.raw)
            assert not task.done()
            may_end.set()
            assert await task == ExitCode.STOPPED
            assert answer.ended is not None
            assert (answer.error, late.error) == (None, None)
            assert {end.closed.code for end in hub.ends if end.closed} == {CloseCode.GOING_AWAY}

    run(main())


def test_a_second_stop_ends_at_once(may_end: asyncio.Event) -> None:
    async def main() -> None:
        async with RawEngine(waiting) as engine, ScriptedHub() as hub:
            one = Agent(options(hub.url, engine.url), {}, NoGpus)
            task = asyncio.create_task(one.run())
            await hub.joined()
            answer = hub.spares()[0].open(post("/api/chat"), engine.name)
            await until(lambda: answer.raw)
            one.stop()
            await until(lambda: hub.is_draining)
            one.stop()
            async with asyncio.timeout(1):
                assert await task == ExitCode.CUT_OFF
            may_end.set()

    run(main())


def test_exchanges_that_do_not_end_are_cut_off_after_the_time(
    may_end: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive.node.agent.DRAIN_SECONDS", 0.3)

    async def main() -> None:
        async with RawEngine(waiting) as engine, ScriptedHub() as hub:
            one = Agent(options(hub.url, engine.url), {}, NoGpus)
            task = asyncio.create_task(one.run())
            await hub.joined()
            answer = hub.spares()[0].open(post("/api/chat"), engine.name)
            await until(lambda: answer.raw)
            one.stop()
            async with asyncio.timeout(5):
                assert await task == ExitCode.STOPPED
            may_end.set()

    run(main())


def test_a_stop_while_the_hub_is_away_ends_at_once() -> None:
    async def main() -> None:
        one = Agent(options("http://127.0.0.1:1", "http://127.0.0.1:1"), {}, NoGpus)
        task = asyncio.create_task(one.run())
        await asyncio.sleep(0)
        one.stop()
        async with asyncio.timeout(1):
            assert await task == ExitCode.STOPPED

    run(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine:
            async with joined(engine.url):
                pass
            await engine.until(lambda state: state.connections_open == 0)
        assert len(asyncio.all_tasks()) == 1

    run(main())
