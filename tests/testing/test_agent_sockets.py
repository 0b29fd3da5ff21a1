"""The sockets of the agent's double: a dial to a hub, and an exchange's connection to an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from hive.testing import ThreadedEngine
from hive.testing.agent_double import run_agent
from hive.testing.agent_sockets import NodeSocket, dial
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted
from hive.wire.link_control import NodeControl
from hive.wire.link_dial import Refused
from hive.wire.link_messages import Hello, MachineState, Welcome
from hive.wire.link_socket import Closed

from ..raw import GENERATE, STREAM, Wire, ask, request

HELLO = Hello("0123456789abcdef", "test 1", "Test", {}, (), MachineState())


@pytest.fixture
def hub() -> Iterator[ThreadedHub]:
    with run_hub() as hub:
        yield hub


async def dialed(hub: str, key: str, events: list[object]) -> NodeSocket:
    return await dial(hub, key, lambda socket, now: NodeControl(socket, HELLO, now), events.append)


def test_a_dial_opens_a_socket_whose_events_are_told(hub: ThreadedHub) -> None:
    async def run(key: str) -> None:
        events: list[object] = []
        socket = await dialed(hub.url, key, events)
        socket.flush()
        async with asyncio.timeout(10):
            while not events:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert isinstance(events[0], Welcome)
        socket.abort()
        await socket.lost
        assert isinstance(events[-1], Closed)

    asyncio.run(run(hub.create_key("desk", "worker")))


def test_a_hub_that_refuses_is_told_with_its_status(hub: ThreadedHub) -> None:
    with pytest.raises(Refused) as raised:
        asyncio.run(dialed(hub.url, "no-key", []))
    assert raised.value.status == 401


def test_a_connection_that_ends_before_an_answer_is_a_refusal_without_a_status() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            with pytest.raises(Refused, match="ended before an answer came") as raised:
                await dialed(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key", [])
        assert raised.value.status == 0

    asyncio.run(run())


def test_a_hub_that_is_not_there_is_an_error_of_the_system() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(dialed("http://127.0.0.1:1", "key", []))


def test_the_engine_reads_its_own_host_and_the_credential() -> None:
    with run_scripted(lambda call: call.answer(b'{"done":true}')) as engine, run_hub() as hub:
        key = hub.create_key("desk", "worker")
        with run_agent(hub.url, key, {"e": engine.url}, credential="secret"):
            hub.until(lambda server: bool(server.hub.fleet.having("tiny:latest")), 10)
            assert ask(hub.port, request(body=GENERATE)).status == 200
        fields = engine.calls[0].fields
    assert (fields["host"], fields["authorization"]) == (engine.url.removeprefix("http://"), "Bearer secret")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Call.close, "node_broke_off"),
        (Call.reset, "node_broke_off"),
        (lambda call: call.send(b"nonsense\r\n\r\n"), "node_garbled"),
    ],
    ids=["close", "reset", "garbled"],
)
def test_an_engine_that_fails_fails_the_exchange(script: object, code: str) -> None:
    with run_scripted(script) as engine, run_hub({"desk": engine.url}, link="joined") as hub:  # type: ignore[arg-type]
        answer = ask(hub.port, request("/v1/completions", GENERATE))
    assert (answer.status, answer.json()["error"]["code"]) == (502, code)  # type: ignore[index]


def test_a_client_that_leaves_ends_the_engines_connection() -> None:
    left = []
    with (
        run_scripted(lambda call: left.append(call.wait_for_departure())) as engine,
        run_hub({"desk": engine.url}, link="joined") as hub,
    ):
        with Wire(hub.port) as wire:
            wire.send(request(body=STREAM))
            engine.call_number(0)
        hub.until(lambda server: not any(each.running.count for each in server.hub.fleet.engines))
    assert len(left) == 1


def test_an_engine_that_is_gone_is_told_as_unreachable(engine: ThreadedEngine) -> None:
    with run_hub({"desk": engine.url}, link="joined", queue_timeout=0.2) as hub:
        engine.set_fault("refuse")
        assert ask(hub.port, request(body=GENERATE)).status == 503
