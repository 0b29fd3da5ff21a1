"""The hub as a whole: ready when it has looked, draining when it is told, empty at the end."""

from __future__ import annotations

import os
import threading
import time

import pytest

from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import run_hub
from hive.testing.scripted import Call, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, metric, request

OK = b'{"response":"whole","done":true}'


def test_ready_says_503_until_every_node_was_asked(engine: ThreadedEngine) -> None:
    engine.set_fault("freeze")
    with run_hub({"a": engine.url}, link="dialed", wait=False) as hub:
        answer = ask(hub.port, get("/readyz"))
        assert (answer.status, answer.header("Retry-After") is not None) == (503, True)
        assert ask(hub.port, get("/healthz")).status == 200
        engine.clear_faults()
        eventually(lambda: ask(hub.port, get("/readyz")).status == 200)


def test_a_hub_without_nodes_answers() -> None:
    with run_hub({}) as hub:
        assert ask(hub.port, get("/api/tags")).json() == {"models": []}
        assert ask(hub.port, request(body=GENERATE)).status == 404


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_the_end_of_a_busy_hub_leaves_nothing(use_uvloop: bool) -> None:
    def sockets() -> int:
        count = 0
        for number in os.listdir("/proc/self/fd"):
            try:
                count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
            except OSError:
                continue
        return count

    options = SimOptions(slots=4, tokens_per_second=20, default_tokens=400)
    with run_in_thread(options) as engine:
        before = sockets() - engine.state().connections_open
        wires = []
        with run_hub({"a": engine.url, "dead": "http://127.0.0.1:1"}, slots=4, use_uvloop=use_uvloop) as hub:
            for data in (request(body=STREAM),) * 8 + (get("/api/tags"), b"GET /", request(body=b"{"), b""):
                wire = Wire(hub.port)
                wire.send(data)
                wires.append(wire)
            ask(hub.port, get("/hive/v1/keys", f"Authorization: Bearer {hub.admin_key}\r\n"))
            engine.until(lambda state: state.running == 4)
        for wire in wires:
            wire.sock.close()
        engine.until(lambda state: state.running == 0 and state.connections_open == 0, 2)
        eventually(lambda: sockets() <= before, 2)


def test_stopping_twice_does_no_harm(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}) as hub:
        hub.stop()
        hub.stop()


def test_a_hub_that_drains_finishes_what_runs_and_refuses_the_rest() -> None:
    may_end = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"a","done":false}\n')
        may_end.wait(5)
        call.chunk(b'{"response":"","done":true}\n')
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}, drain_timeout=5) as hub:
        with Wire(hub.port) as runs, Wire(hub.port) as idle, Wire(hub.port) as half:
            assert idle.is_open()
            half.send(request(body=STREAM)[:40])
            runs.send(request(body=STREAM))
            runs.until(b'"done":false}\n\r\n')
            hub.begin_stop()
            assert idle.is_closed()
            with pytest.raises(ConnectionRefusedError):
                Wire(hub.port)
            half.send(request(body=STREAM)[40:])
            refused = half.answer()
            assert (refused.status, refused.header("Connection")) == (503, "close")
            assert refused.header("Retry-After") is not None
            may_end.set()
            assert runs.rest().endswith(b'{"response":"","done":true}\n\r\n0\r\n\r\n')
        hub.stop()


def test_what_waits_in_the_queue_is_finished_too() -> None:
    may_end = threading.Semaphore(0)

    def script(call: Call) -> None:
        may_end.acquire(timeout=5)
        call.answer(OK)

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, slots=1, drain_timeout=5) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
    ):
        for wire in (first, second):
            wire.send(request(body=GENERATE))
        eventually(lambda: metric(hub.port, "hive_queue_waiting", hub.admin_key) == 1)
        hub.begin_stop()
        may_end.release(2)
        assert [wire.answer().body for wire in (first, second)] == [OK, OK]


@pytest.mark.parametrize("stream", [True, False])
def test_what_runs_longer_than_the_drain_ends_with_an_honest_error(stream: bool) -> None:
    with (
        run_in_thread(SimOptions(tokens_per_second=20, default_tokens=400)) as engine,
        run_hub({"a": engine.url}, drain_timeout=0.3) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM if stream else GENERATE))
        engine.until(lambda state: state.running == 1)
        if stream:
            wire.until(b'"done":false}\n\r\n')
        began = time.monotonic()
        hub.begin_stop()
        if stream:
            rest = wire.rest()
            assert b'{"error":' in rest
            assert rest.endswith(b"0\r\n\r\n")
        else:
            assert wire.answer().status == 503
        assert time.monotonic() - began < 2
        hub.stop()


def test_a_slow_reader_gets_its_whole_answer_before_the_hub_ends() -> None:
    """The engine is done and the hub has written everything: what runs is not finished before the client has it."""
    big = b'{"response":"' + b"x" * 12_000_000 + b'","done":true}'
    with (
        run_scripted(lambda call: call.answer(big)) as engine,
        run_hub({"a": engine.url}, drain_timeout=30, held_answer_bytes=1 << 26) as hub,
        Wire(hub.port, receive_buffer=65_536) as wire,
    ):
        wire.send(request(body=GENERATE))
        eventually(lambda: metric(hub.port, "hive_exchanges_total", hub.admin_key) == 1)
        hub.begin_stop()
        hub.until(lambda server: server.server.reception.is_draining)
        assert hub.call(lambda server: any(each.has_unsent for each in server.server.connections))
        answer = wire.answer()
        assert (answer.is_whole, len(answer.body)) == (True, len(big))


def test_an_early_answer_is_not_reset_by_the_end_of_the_hub(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, drain_timeout=2) as hub, Wire(hub.port) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        hub.until(lambda server: any("LINGER" in repr(c) for c in server.server.connections))
        hub.begin_stop()
        assert wire.answer().status == 404


@pytest.mark.long
def test_an_engine_that_freezes_ends_no_stream_of_another_engine_and_gets_no_work(
    engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    with run_hub({"a": engine.url, "b": second_engine.url}, probe_interval=0.5, probe_timeout=0.5) as hub:
        engine.set_fault("freeze")
        answers: list[tuple[int, float]] = []

        def client() -> None:
            began = time.monotonic()
            answers.append((ask(hub.port, request(body=STREAM)).status, time.monotonic() - began))

        threads = [threading.Thread(target=client) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [status for status, _ in answers] == [200] * 12
        assert max(took for _, took in answers) < 9
        engine.clear_faults()
