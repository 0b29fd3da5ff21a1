"""Models that an Ollama only relays to other machines: they need no slot, and their errors blame no node."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hive.app import HubServer
from hive.fleet.engines import MOST_RELAYED, Engine
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, Script, run_scripted

from ..raw import Answer, Wire, ask, eventually, metric, request

FAR = "big:cloud"
ASKED = request(body=b'{"model":"big:cloud","stream":false}')
OK = b'{"response":"from afar","done":true}'
SIGN_IN = b'{"error":"unauthorized","signin_url":"https://far.example/connect?name=desk"}'


def refusing(status: str, body: bytes) -> Script:
    def script(call: Call) -> None:
        call.answer(body, status=status)

    return script


def serving(call: Call) -> None:
    call.answer(OK)


@contextmanager
def hub_over(*scripts: Script, models: tuple[str, ...] = (FAR, "tiny:latest")) -> Iterator[ThreadedHub]:
    """A hub with one Ollama for each script, with one slot a model."""
    with run_scripted(scripts[0], models=models) as one, run_scripted(scripts[-1], models=models) as two:
        for engine in (one, two):
            engine.relayed, engine.loaded = (FAR,), models[1:]
        engines = {"a": one.url, "b": two.url} if len(scripts) > 1 else {"a": one.url}
        with run_hub(engines, slots=1, probe_interval=60) as hub:
            yield hub


def engine_of(server: HubServer, node: str) -> Engine:
    return next(each for each in server.hub.fleet.engines if each.node == node)


def test_they_run_beside_each_other_and_beside_what_the_engine_does_itself() -> None:
    together = threading.Barrier(5, timeout=5)

    def script(call: Call) -> None:
        together.wait()
        call.answer(OK)

    answers: list[Answer] = []
    with hub_over(script) as hub:
        bodies = [ASKED] * 4 + [request(body=b'{"model":"tiny","stream":false}')]
        threads = [threading.Thread(target=lambda body=body: answers.append(ask(hub.port, body))) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers] == [200] * 5
        assert metric(hub.port, "hive_queue_waiting", hub.admin_key) == 0
        eventually(lambda: hub.call(lambda server: not server.hub.register.running), 1)
        assert hub.call(lambda server: engine_of(server, "a").running.count) == 0


@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        ("401 Unauthorized", SIGN_IN, 502),
        ("403 Forbidden", b'{"error":"no"}', 502),
        ("429 Too Many Requests", b'{"error":"slow down"}', 503),
        ("502 Bad Gateway", b'{"error":"far away"}', 502),
    ],
)
def test_what_they_refuse_is_tried_elsewhere_and_blames_no_node(status: str, body: bytes, seen: int) -> None:
    with hub_over(refusing(status, body), serving) as hub:
        for _ in range(8):
            assert ask(hub.port, ASKED).body == OK
        assert hub.call(lambda server: engine_of(server, "a").signs.blames) == 0
    with hub_over(refusing(status, body)) as hub:
        answer = ask(hub.port, ASKED)
        assert (answer.status, b"signin" in answer.body) == (seen, False), "nobody is told how to sign our machine in"
        assert (b"the service behind it refused" in answer.body) == (status[:3] != "502")
        assert (b"far away" in answer.body) == (status[:3] == "502")
        engine = hub.call(lambda server: engine_of(server, "a"))
        assert (engine.learned.guess, engine.signs.blames, engine.running.rests_until) == (1.0, 0, 0.0)


def test_many_of_them_leave_room_for_what_the_engine_does_itself() -> None:
    """Also on a joined node, which has one connection for each exchange that it may run."""
    far, held = threading.Semaphore(0), threading.Event()

    def script(call: Call) -> None:
        if FAR.encode() in call.body:
            far.release()
            held.wait(10)
        call.answer(OK)

    with hub_over(script) as hub, ExitStack() as stack:
        wires = [stack.enter_context(Wire(hub.port)) for _ in range(MOST_RELAYED + 5)]
        for wire in wires:
            wire.send(ASKED)
        for _ in range(MOST_RELAYED):
            assert far.acquire(timeout=5)
        assert hub.call(lambda server: (engine_of(server, "a").running.relaying, server.hub.queue.waiting_count)) == (
            MOST_RELAYED,
            5,
        )
        answer = ask(hub.port, request(body=b'{"model":"tiny","stream":false}'))
        assert (answer.status, answer.header("X-Hive-Attempts")) == (200, "1")
        held.set()
        assert [wire.answer().status for wire in wires] == [200] * len(wires)
        eventually(lambda: hub.call(lambda server: engine_of(server, "a").running.relaying == 0), 1)


def test_a_stream_of_theirs_that_opens_with_an_error_blames_no_engine() -> None:
    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"error":"runner process has terminated"}\n')
        call.chunk(b"")

    with hub_over(script, serving) as hub:
        for _ in range(6):
            assert ask(hub.port, request(body=b'{"model":"big:cloud"}')).status in (200, 502)
        assert hub.call(lambda server: engine_of(server, "a").signs.blames) == 0


def test_where_one_engine_has_it_itself_slots_count() -> None:
    held = threading.Event()

    def script(call: Call) -> None:
        held.wait(5)
        call.answer(OK)

    with (
        run_scripted(script, models=(FAR,)) as relaying,
        run_scripted(script, models=(FAR,)) as own,
    ):
        relaying.relayed, relaying.loaded = (FAR,), ()
        with (
            run_hub({"a": relaying.url, "b": own.url}, slots=1, probe_interval=60) as hub,
            ExitStack() as stack,
        ):
            wires = [stack.enter_context(Wire(hub.port)) for _ in range(3)]
            for wire in wires:
                wire.send(ASKED)
            assert eventually(lambda: metric(hub.port, "hive_queue_waiting", hub.admin_key) == 1, 2) >= 0
            held.set()
            assert [wire.answer().status for wire in wires] == [200] * 3


def test_a_stream_of_theirs_that_stands_still_makes_no_engine_doubtful() -> None:
    held = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"x","done":false}\n')
        held.wait(5)
        call.chunk(b'{"response":"","done":true}\n')
        call.chunk(b"")

    with hub_over(script) as hub, Wire(hub.port) as wire:
        wire.send(request(body=b'{"model":"big:cloud"}'))
        wire.until(b'"x"')

        def is_excused(server: HubServer) -> bool:
            (attempt,) = [each.attempt for each in server.hub.register.running if each.attempt is not None]
            return attempt.is_excused(server.hub.now() + 500)

        assert hub.call(is_excused)
        held.set()
        wire.until(b'"done":true')
        wire.until(b"0\r\n\r\n")
