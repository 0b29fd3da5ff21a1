"""The wait for a slot: in order, bounded, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hive.testing import SimOptions, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, ScriptedEngine, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, metric, request

OK = b'{"response":"whole","done":true}'


class Gate:
    """A script that answers one request for each time it is opened."""

    def __init__(self) -> None:
        self._open = threading.Semaphore(0)

    def __call__(self, call: Call) -> None:
        assert self._open.acquire(timeout=8)
        call.answer(OK)

    def open(self, count: int = 1) -> None:
        self._open.release(count)


@contextmanager
def one_slot(**settings: object) -> Iterator[tuple[Gate, ScriptedEngine, ThreadedHub]]:
    gate = Gate()
    with run_scripted(gate) as engine, run_hub({"a": engine.url}, slots=1, **settings) as hub:
        yield gate, engine, hub


def waiting(hub: ThreadedHub, count: int) -> None:
    eventually(lambda: metric(hub.port, "hive_queue_waiting", hub.admin_key) == count)


def test_an_engine_never_gets_more_than_its_slots() -> None:
    with one_slot() as (gate, engine, hub):
        wires = [Wire(hub.port) for _ in range(4)]
        for wire in wires:
            wire.send(request(body=GENERATE))
        waiting(hub, 3)
        for count in range(1, 5):
            engine.call_number(count - 1)
            assert len(engine.calls) == count
            gate.open()
        assert [wire.answer().status for wire in wires] == [200] * 4
        for wire in wires:
            wire.sock.close()


def test_who_came_first_is_served_first() -> None:
    with one_slot() as (gate, engine, hub):
        wires = []
        for number in range(5):
            wire = Wire(hub.port)
            wire.send(request(body={**GENERATE, "prompt": f"number {number}"}))
            wires.append(wire)
            waiting(hub, number)
        gate.open(5)
        for wire in wires:
            assert wire.answer().status == 200
            wire.sock.close()
        assert [f"number {number}".encode() in call.body for number, call in enumerate(engine.calls)] == [True] * 5


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/v1/messages"])
def test_a_full_queue_is_503_with_retry_after_at_once(path: str) -> None:
    with one_slot(queue_limit=2) as (gate, _, hub):
        wires = [Wire(hub.port) for _ in range(3)]
        for wire in wires:
            wire.send(request(body=STREAM))
        waiting(hub, 2)
        began = time.monotonic()
        answer = ask(hub.port, request(path, {"model": "tiny", "messages": []}))
        assert time.monotonic() - began < 1
        assert answer.status == 503
        assert int(answer.header("Retry-After") or 0) > 0
        assert b"queue" in answer.body
        gate.open(3)
        for wire in wires:
            wire.answer()
            wire.sock.close()
        gate.open()
        assert ask(hub.port, request(body=GENERATE)).status == 200


def test_a_wait_has_an_end() -> None:
    with one_slot(queue_timeout=0.3) as (gate, engine, hub), Wire(hub.port) as first:
        first.send(request(body=GENERATE))
        engine.call_number(0)
        began = time.monotonic()
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.header("Retry-After") is not None) == (503, True)
        assert 0.2 < time.monotonic() - began < 2
        gate.open()
        assert first.answer().status == 200
        assert len(engine.calls) == 1


def test_one_model_does_not_wait_for_another() -> None:
    gate = Gate()
    with (
        run_scripted(gate, models=("tiny:latest",)) as busy,
        run_scripted(lambda call: call.answer(OK), models=("other:latest",)) as idle,
        run_hub({"a": busy.url, "b": idle.url}, slots=1) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
    ):
        for wire in (first, second):
            wire.send(request(body=GENERATE))
        waiting(hub, 1)
        assert ask(hub.port, request(body={**GENERATE, "model": "other"})).status == 200
        gate.open(2)
        assert (first.answer().status, second.answer().status) == (200, 200)


def test_a_slot_that_comes_free_on_any_node_is_taken() -> None:
    gate = Gate()
    with (
        run_scripted(gate) as a,
        run_scripted(gate) as b,
        run_hub({"a": a.url, "b": b.url}, slots=1) as hub,
    ):
        wires = [Wire(hub.port) for _ in range(6)]
        for wire in wires:
            wire.send(request(body=GENERATE))
        waiting(hub, 4)
        gate.open(6)
        assert {wire.answer().header("X-Hive-Node") for wire in wires} == {"a", "b"}
        for wire in wires:
            wire.sock.close()
        assert len(a.calls) + len(b.calls) == 6


def test_who_waits_inside_an_engine_is_taken_back_and_served_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ollama that runs one at a time takes a second one, and lets it wait behind the first."""
    monkeypatch.setattr("hive.hub.attempt.LONG_INSIDE", 0.3)
    monkeypatch.setattr("hive.hub.queue.MEASURE_PAUSE", 0.0)
    words = SimOptions(slots=1, tokens_per_second=20, default_tokens=200)
    with run_in_thread(words) as serial, run_hub({"a": serial.url}) as hub, Wire(hub.port) as long:
        for _ in range(4):  # its pace is known, and that it may do more was guessed of it
            assert ask(hub.port, request(body={**STREAM, "options": {"num_predict": 1}})).status == 200
        assert hub.call(lambda server: server.hub.fleet.engines[0].model_slots) >= 2
        long.send(request(body=STREAM))
        long.until(b'"done":false')
        with Wire(hub.port) as second:
            second.send(request(body={**STREAM, "options": {"num_predict": 1}}))
            hub.until(lambda server: server.hub.queue.waiting_count == 1)
            assert hub.call(lambda server: server.hub.fleet.engines[0].model_slots) == 1
            long.reset()
            answer = second.answer()
            assert (answer.status, answer.header("X-Hive-Attempts")) == (200, "1")
        assert serial.state().received["/api/generate"] == 7


UNLOAD = {"model": "tiny", "keep_alive": 0}


def test_a_request_to_unload_needs_no_slot_and_no_load_and_reaches_every_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hive.hub.probes.LOADED_INTERVAL", 0.1)
    with (
        run_in_thread(SimOptions(slots=1)) as a,
        run_in_thread(SimOptions(slots=1)) as b,
        run_hub({"a": a.url, "b": b.url}, slots=1, probe_interval=0.2) as hub,
    ):
        assert ask(hub.port, request(body=UNLOAD)).json()["done_reason"] == "unload"
        assert [each.state().received.get("/api/embed", 0) for each in (a, b)] == [0, 0], "nothing was loaded for it"
        for each in (a, b):
            assert ask(each.port, request(body=GENERATE)).status == 200
        hub.until(lambda server: all(engine.loaded for engine in server.hub.fleet.engines), 8)
        with Wire(hub.port) as busy:
            a.set_fault("head-then-silence")
            b.set_fault("head-then-silence")
            busy.send(request(body=STREAM))
            hub.until(lambda server: any(engine.running for engine in server.hub.fleet.engines))
            a.clear_faults()
            b.clear_faults()
            assert ask(hub.port, request(body=UNLOAD)).status == 200
            hub.until(lambda server: not any(engine.loaded for engine in server.hub.fleet.engines))
        eventually(lambda: sum(each.state().received["/api/generate"] for each in (a, b)) >= 5)
