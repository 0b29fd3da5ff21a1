"""An administrator cancels a request: an honest error wherever it is, its slot free at once, its engine left."""

from __future__ import annotations

import asyncio
import gzip
import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hive.app import HubServer
from hive.errors import Fault
from hive.hub.exchange import Exchange
from hive.hub.progress import Stage
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, ScriptedEngine, run_scripted

from ..raw import GENERATE, STREAM, Answer, Wire, ask, eventually, request

OK = b'{"response":"whole","done":true}'
SENTENCE = "an administrator cancelled this request"
MANY_THREADS = 64


def only(server: HubServer) -> Exchange:
    """Return the one exchange that runs."""
    (exchange,) = server.hub.register.running
    return exchange


def until_stage(hub: ThreadedHub, stage: Stage, count: int = 1) -> None:
    hub.until(lambda server: [each.progress().stage for each in server.hub.register.running].count(stage) == count)


def cancel(hub: ThreadedHub, stage: Stage) -> bool:
    """Cancel the exchange that is there; return whether it did anything. Fails when it is not over at once."""

    def act(server: HubServer) -> bool:
        (exchange,) = [each for each in server.hub.register.running if each.progress().stage is stage]
        try:
            server.hub.request_cases.cancel(exchange.record.request_id)
            is_cancelled = True
        except Fault:
            is_cancelled = False
        assert exchange not in server.hub.register.running
        assert all(not lease.is_held for lease in exchange.leases)
        return is_cancelled

    return hub.call(act)


def is_idle(hub: ThreadedHub) -> bool:
    def look(server: HubServer) -> bool:
        taken = sum(engine.running.count for engine in server.hub.fleet.engines)
        return not (
            server.hub.register.running or taken or server.hub.queue.waiting_count or server.server.held_body_bytes
        )

    return hub.call(look)


def assert_cancelled(hub: ThreadedHub, answer: Answer, node: str | None = None) -> None:
    assert (answer.status, answer.json()) == (410, {"error": SENTENCE})
    assert answer.header("x-should-retry") == "false"
    assert answer.header("Retry-After") is None
    assert answer.header("X-Hive-Node") == node
    record, _ = hub.call(lambda server: server.hub.register.history[-1])
    assert (record.outcome, record.error, record.status) == ("cancelled", "cancelled", 410)


@pytest.fixture
def silent() -> Iterator[ScriptedEngine]:
    """An engine that takes a request and says nothing until the hub leaves."""
    with run_scripted(lambda call: call.wait_for_departure()) as engine:
        yield engine


# --- before a slot ---


def test_while_its_body_is_unpacked(engine: ThreadedEngine) -> None:
    may_go_on = threading.Event()
    with run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:

        async def occupy_threads(server: HubServer) -> None:
            for _ in range(MANY_THREADS):
                asyncio.get_running_loop().run_in_executor(None, may_go_on.wait)

        hub.run(occupy_threads)
        try:
            wire.send(request(body=gzip.compress(json.dumps(GENERATE).encode()), head="Content-Encoding: gzip\r\n"))
            until_stage(hub, Stage.READING)
            assert cancel(hub, Stage.READING)
            assert_cancelled(hub, wire.answer())
            assert is_idle(hub)
        finally:
            may_go_on.set()
        wire.send(request(body=GENERATE))
        assert wire.answer().status == 200


def test_while_its_model_is_looked_for(engine: ThreadedEngine) -> None:
    engine.set_fault("freeze")
    with run_hub({"a": engine.url}, link="dialed", wait=False) as hub, Wire(hub.port) as wire:
        wire.send(request(body=GENERATE))
        until_stage(hub, Stage.READING)
        assert cancel(hub, Stage.READING)
        assert_cancelled(hub, wire.answer())
        engine.clear_faults()


def test_while_it_waits_in_the_queue(silent: ScriptedEngine) -> None:
    with run_hub({"a": silent.url}, slots=1) as hub, Wire(hub.port) as first, Wire(hub.port) as second:
        first.send(request(body=GENERATE))
        silent.call_number(0)
        second.send(request(body=GENERATE))
        until_stage(hub, Stage.QUEUED)
        assert cancel(hub, Stage.QUEUED)
        assert_cancelled(hub, second.answer())
        assert hub.call(lambda server: server.hub.queue.waiting_count) == 0
        assert len(silent.calls) == 1


def test_in_the_very_turn_in_which_it_gets_its_slot(silent: ScriptedEngine) -> None:
    """The end of the first request gives its slot to the second, whose exchange does not know it yet."""
    with run_hub({"a": silent.url}, slots=1) as hub, Wire(hub.port) as first, Wire(hub.port) as second:
        first.send(request(body=GENERATE))
        silent.call_number(0)
        second.send(request(body=GENERATE))
        until_stage(hub, Stage.QUEUED)

        def cancel_both(server: HubServer) -> int:
            oldest_first = sorted(server.hub.register.running, key=lambda each: each.began_at)
            for each in oldest_first:
                server.hub.request_cases.cancel(each.record.request_id)
            return sum(engine.running.count for engine in server.hub.fleet.engines)

        assert hub.call(cancel_both) == 0
        assert_cancelled(hub, first.answer(), "a")
        assert_cancelled(hub, second.answer())
        assert is_idle(hub)
        assert len(silent.calls) == 1


# --- with a slot ---


@pytest.fixture
def unreachable() -> Iterator[tuple[ScriptedEngine, Callable[[], None]]]:
    """An engine, and what makes every later connection to it take for ever: a full queue of the system's own."""
    with run_scripted(lambda call: call.answer(OK)) as engine, ExitStack() as sockets:

        def clog() -> None:
            engine.close()
            full = sockets.enter_context(socket.socket())
            full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            full.bind(("127.0.0.1", engine.port))
            full.listen(0)
            for _ in range(3):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", engine.port))

        yield engine, clog


def test_while_its_node_is_dialed(unreachable: tuple[ScriptedEngine, Callable[[], None]]) -> None:
    engine, clog = unreachable
    with (
        run_hub({"a": engine.url}, link="dialed", slots=1, probe_interval=60, connect_timeout=30) as hub,
        Wire(hub.port) as wire,
    ):
        clog()
        wire.send(request(body=GENERATE))
        until_stage(hub, Stage.SENT)
        assert hub.call(lambda server: only(server).attempt.relay) is None
        assert cancel(hub, Stage.SENT)
        assert_cancelled(hub, wire.answer(), "a")
        assert is_idle(hub)


def test_before_the_first_byte_of_the_answer() -> None:
    left = threading.Event()

    def script(call: Call) -> None:
        call.wait_for_departure()
        left.set()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        engine.call_number(0)
        assert cancel(hub, Stage.SENT)
        assert_cancelled(hub, wire.answer(), "a")
        assert is_idle(hub)
        assert left.wait(2)


def test_while_an_answer_that_does_not_stream_is_held() -> None:
    def script(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + OK)
        call.wait_for_departure()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request(body=GENERATE))
        until_stage(hub, Stage.ANSWERING)
        assert cancel(hub, Stage.ANSWERING)
        assert_cancelled(hub, wire.answer(), "a")
        assert is_idle(hub)


def test_an_answer_too_long_to_be_held_is_cut_and_so_not_whole() -> None:
    def script(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n[" + b"x" * 5000)
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, held_answer_bytes=1000) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=GENERATE))
        wire.until(b"x" * 5000)
        assert cancel(hub, Stage.ANSWERING)
        assert wire.is_closed()


STREAMS = {
    "/api/generate": (
        b'{"response":"a","done":false}\n',
        "application/x-ndjson",
        b'{"error":"an administrator cancelled this request"}\n',
    ),
    "/v1/chat/completions": (
        b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
        "text/event-stream",
        b'"code":"cancelled"}}\n\n',
    ),
    "/v1/messages": (
        b'event: message_start\ndata: {"type":"message_start"}\n\n',
        "text/event-stream",
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"an administrator cancelled',
    ),
    "/v1/responses": (
        b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n',
        "text/event-stream",
        b"event: response.failed\n",
    ),
}


@pytest.mark.parametrize(("path", "said"), STREAMS.items(), ids=STREAMS)
def test_a_stream_that_has_begun_ends_with_its_dialects_own_error(path: str, said: tuple[bytes, str, bytes]) -> None:
    first, kind, ending = said
    left = threading.Event()

    def script(call: Call) -> None:
        call.begin(kind)
        call.chunk(first)
        call.wait_for_departure()
        left.set()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request(path, {"model": "tiny", "messages": [], "input": "a", "stream": True}))
        until_stage(hub, Stage.ANSWERING)
        assert cancel(hub, Stage.ANSWERING)
        answer = wire.answer()
        assert (answer.status, answer.is_whole) == (200, True)
        assert answer.body.startswith(first)
        assert ending in answer.body[len(first) :]
        assert b"[DONE]" not in answer.body
        assert is_idle(hub)
        assert left.wait(2)
        record, _ = hub.call(lambda server: server.hub.register.history[-1])
        assert (record.outcome, record.error, record.status) == ("cancelled", "cancelled", 200)


def test_a_real_stream_stops_at_its_engine() -> None:
    with (
        run_in_thread(SimOptions(slots=1, tokens_per_second=20, default_tokens=400)) as engine,
        run_hub({"a": engine.url}, slots=1) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM))
        wire.until(b'"done":false}\n\r\n')
        assert cancel(hub, Stage.ANSWERING)
        engine.until(lambda state: state.running == 0 and state.cancelled == 1, 5)  # by itself it would take 20 s
        assert wire.until(b"0\r\n\r\n").endswith(b'"an administrator cancelled this request"}\n\r\n0\r\n\r\n')


def test_a_slow_reader_is_no_reason_to_wait() -> None:
    line = b'{"response":"%b","done":false}\n' % (b"x" * 60_000)

    def script(call: Call) -> None:
        call.begin()
        for _ in range(400):
            call.chunk(line)
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, slots=1) as hub,
        Wire(hub.port, receive_buffer=4096) as wire,
    ):
        wire.send(request(body=STREAM))
        hub.until(lambda server: only(server)._stream.is_paused)
        assert cancel(hub, Stage.ANSWERING)
        assert hub.call(lambda server: sum(each.running.count for each in server.hub.fleet.engines)) == 0
        assert wire.answer().body.endswith(b'"an administrator cancelled this request"}\n')


# --- between attempts, and what a cancelled one leaves ---


def test_between_two_attempts() -> None:
    """The first node breaks off, the second is full: the request is in the queue again, its first attempt over."""

    def breaks_off(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        call.close()

    with (
        run_scripted(breaks_off) as bad,
        run_scripted(lambda call: call.wait_for_departure(), models=("tiny:latest", "other:latest")) as full,
        run_hub({"bad": bad.url, "full": full.url}, slots=1) as hub,
        Wire(hub.port) as other,
        Wire(hub.port) as wire,
    ):
        other.send(request(body={**GENERATE, "model": "other"}))
        full.call_number(0)
        wire.send(request(body=GENERATE))
        bad.call_number(0)
        until_stage(hub, Stage.QUEUED)
        assert cancel(hub, Stage.QUEUED)
        answer = wire.answer()
        assert_cancelled(hub, answer, "bad")
        assert answer.header("X-Hive-Attempts") == "1"
        assert len(full.calls) == 1


def test_an_engine_is_not_blamed_for_what_was_cancelled(silent: ScriptedEngine, engine: ThreadedEngine) -> None:
    with run_hub({"a": silent.url, "b": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        while not silent.calls:
            wire.send(request(body=GENERATE))
            eventually(lambda: bool(silent.calls) or bool(select.select([wire.sock], [], [], 0)[0]))
            if not silent.calls:
                assert wire.answer().status == 200
        assert cancel(hub, Stage.SENT)
        assert_cancelled(hub, wire.answer(), "a")

        def look(server: HubServer) -> list[tuple[int, bool]]:
            now = server.hub.now()
            return [(each.signs.blames, each.running.rests_until <= now) for each in server.hub.fleet.engines]

        assert hub.call(look) == [(0, True), (0, True)]


def test_the_slot_goes_to_the_request_that_waits_for_it() -> None:
    def script(call: Call) -> None:
        if call.number:
            call.answer(OK)
        else:
            call.wait_for_departure()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub:
        with Wire(hub.port) as first, Wire(hub.port) as second:
            first.send(request(body=GENERATE))
            engine.call_number(0)
            second.send(request(body=GENERATE))
            until_stage(hub, Stage.QUEUED)
            assert cancel(hub, Stage.SENT)
            assert second.answer().body == OK
            assert first.answer().status == 410
        assert ask(hub.port, request(body=GENERATE)).status == 200


def test_an_answer_that_is_whole_already_is_not_cancelled() -> None:
    """Its end mark has gone to the client; the engine only keeps its connection open."""

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"","done":true}\n')
        call.wait_for_departure()

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        until_stage(hub, Stage.ANSWERING)
        assert not cancel(hub, Stage.ANSWERING)
        answer = wire.answer()
        assert (answer.status, answer.body, answer.is_whole) == (200, b'{"response":"","done":true}\n', True)
        record, _ = hub.call(lambda server: server.hub.register.history[-1])
        assert (record.outcome, record.error) == ("ok", "")
