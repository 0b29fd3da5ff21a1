"""A whole hub for a test: what it is over, what can be done to it, and what it must not leave behind."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from hive.app import HubServer
from hive.testing import ThreadedEngine
from hive.testing.hub import HubNotClean, run_hub

from ..raw import GENERATE, ask, get, request


def test_a_hub_serves_its_nodes_from_the_first_request(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.header("X-Hive-Node")) == (200, "a")


@pytest.mark.parametrize(("link", "agents"), [("dialed", set()), ("joined", {"a"})])
def test_a_node_is_dialed_or_joins(engine: ThreadedEngine, link: str, agents: set[str]) -> None:
    with run_hub({"a": engine.url}, link=link) as hub:
        assert ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") == "a"
        assert set(hub.agents) == agents


def test_any_setting_is_a_keyword() -> None:
    with run_hub(queue_limit=7) as hub:
        assert hub.call(lambda server: server.settings.queue_limit) == 7


def test_a_hub_may_begin_before_it_has_looked(engine: ThreadedEngine) -> None:
    engine.set_fault("freeze")
    with run_hub({"a": engine.url}, link="dialed", wait=False) as hub:
        assert not hub.call(lambda server: server.hub.roster.has_looked)


def test_keys_are_made_and_revoked() -> None:
    with run_hub(local_access="off") as hub:
        head = f"Authorization: Bearer {hub.create_key('me')}\r\n"
        assert ask(hub.port, get("/api/tags", head)).status == 200
        hub.revoke_key("me")
        assert ask(hub.port, get("/api/tags", head)).status == 401


def test_what_a_call_raises_reaches_the_test() -> None:
    with run_hub() as hub, pytest.raises(ZeroDivisionError):
        hub.call(lambda _: 1 // 0)


def test_a_condition_that_does_not_come_true_is_a_timeout() -> None:
    with run_hub() as hub, pytest.raises(TimeoutError, match="did not come true within"):
        hub.until(lambda _: False, timeout=0.05)


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    was_cancelled = threading.Event()

    async def hang(_: HubServer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    with run_hub() as hub:
        with pytest.raises(TimeoutError):
            hub.run(hang, timeout=0.05)
        assert was_cancelled.wait(10)


def test_a_hub_stops_once_however_often_it_is_told(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}) as hub:
        hub.begin_stop()
        hub.stop()
        hub.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", hub.port), timeout=10)


def test_its_files_and_its_thread_end_with_the_block() -> None:
    before = set(threading.enumerate())
    with run_hub() as hub:
        assert hub.data_dir.is_dir()
    assert not hub.data_dir.exists()
    assert [each.name for each in threading.enumerate() if each.name == "hub" and each not in before] == []


def test_a_task_that_is_left_behind_is_a_failure() -> None:
    async def forget(_: HubServer) -> None:
        left.append(asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten"))

    left: list[asyncio.Task[object]] = []
    with pytest.raises(HubNotClean, match="left behind: the task forgotten"), run_hub(use_uvloop=False) as hub:
        hub.run(forget)


def test_an_error_that_nothing_handled_is_a_failure() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(HubNotClean, match="ZeroDivisionError"), run_hub() as hub:
        hub.call(lambda _: asyncio.get_running_loop().call_soon(fail))


def test_what_the_test_itself_raises_is_not_hidden() -> None:
    with pytest.raises(KeyError), run_hub():
        raise KeyError
