"""Answers on their way to a client: a slow one pauses its own engine only, one that takes nothing is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hive.app import HubServer
from hive.net.client import ClientConnection
from hive.testing import SimOptions, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, ScriptedEngine, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, metric, request

LINE = b'{"response":"' + b"x" * 4_000 + b'","done":false}\n'
DONE = b'{"response":"","done":true}\n'


class Firehose:
    """A script that sends lines as fast as they are taken, and counts them."""

    def __init__(self, lines: int = 20_000) -> None:
        self.lines = lines
        self.sent = 0
        self.has_ended = threading.Event()
        self.is_cut = False

    def __call__(self, call: Call) -> None:
        try:
            call.begin()
            for _ in range(self.lines):
                call.chunk(LINE)
                self.sent += 1
            call.chunk(DONE)
            call.chunk(b"")
        except OSError:
            self.is_cut = call.is_over = True
        finally:
            self.has_ended.set()

    def wait_until_stuck(self) -> int:
        """Return how many lines it could send before the connection took no more."""
        while True:
            before = self.sent
            time.sleep(0.15)
            if self.sent == before and before:
                return before


@contextmanager
def hub_over(
    *scripts: object, use_uvloop: bool = True, **settings: object
) -> Iterator[tuple[ScriptedEngine, ThreadedHub]]:
    with (
        run_scripted(*scripts) as engine,  # type: ignore[arg-type]
        run_hub({"a": engine.url}, use_uvloop=use_uvloop, slots=4, probe_interval=60, **settings) as hub,
    ):
        yield engine, hub


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_slow_reader_pauses_its_engine_and_gets_everything_in_the_end(use_uvloop: bool) -> None:
    firehose = Firehose(24_000)  # 96 MB: Linux alone may hold 32 MB on its way into each of two sockets
    with (
        hub_over(firehose, use_uvloop=use_uvloop) as (_, hub),
        Wire(hub.port, receive_buffer=4096) as wire,
    ):
        wire.send(request(body=STREAM))
        stuck_at = firehose.wait_until_stuck()
        assert stuck_at < 23_000, "nothing held the engine back"
        answer = wire.answer()
        assert answer.is_whole
        assert answer.body == LINE * 24_000 + DONE


def test_a_slow_reader_pauses_no_other_client() -> None:
    firehose = Firehose()

    def script(call: Call) -> None:
        if call.number == 0:
            firehose(call)
        else:
            call.answer(b'{"done":true}')

    with hub_over(script) as (_, hub), Wire(hub.port, receive_buffer=4096) as slow:
        slow.send(request(body=STREAM))
        firehose.wait_until_stuck()
        for _ in range(20):
            assert ask(hub.port, request(body=GENERATE)).status == 200
        assert not firehose.has_ended.is_set()


def test_the_gap_timer_stops_while_the_client_is_slow() -> None:
    firehose = Firehose(4_000)
    with hub_over(firehose, stream_gap_timeout=1) as (_, hub), Wire(hub.port, receive_buffer=4096) as wire:
        wire.send(request(body=STREAM))
        firehose.wait_until_stuck()
        resumes_at = hub.call(lambda server: server.hub.now()) + 2.5  # several gaps and ticks
        hub.until(lambda server: server.hub.now() >= resumes_at)
        answer = wire.answer()
        assert (answer.is_whole, answer.body.endswith(DONE)) == (True, True)


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_client_that_takes_no_byte_is_dropped_and_its_engine_stops(use_uvloop: bool) -> None:
    firehose = Firehose()
    with (
        hub_over(firehose, use_uvloop=use_uvloop, send_timeout=0.3) as (_, hub),
        Wire(hub.port, receive_buffer=4096) as wire,
    ):
        wire.send(request(body=STREAM))
        firehose.wait_until_stuck()
        assert firehose.has_ended.wait(10)
        assert firehose.is_cut
        eventually(lambda: metric(hub.port, "hive_node_running", hub.admin_key) == 0)


def test_a_client_that_reads_slowly_but_reads_is_not_dropped() -> None:
    """It takes a few bytes every 50 seconds, by the clock of the sweep, and may take 60 for each."""
    firehose = Firehose(8_000)

    def sweep(server: HubServer, ahead: float) -> None:
        for connection in list(server.server.connections):
            connection.sweep(server.server.reception.now() + ahead)

    def taken(server: HubServer) -> int:
        (connection,) = server.server.connections
        assert isinstance(connection, ClientConnection)
        assert connection._unsent is not None
        return connection._written_bytes - connection._unsent.waiting_bytes()

    with hub_over(firehose, send_timeout=60) as (_, hub), Wire(hub.port, receive_buffer=65536) as wire:
        wire.send(request(body=STREAM))
        firehose.wait_until_stuck()
        for ahead in (0, 50, 100, 150):
            before, seen = hub.call(taken), b""
            while hub.call(taken) == before:
                seen = wire.sock.recv(16_384)
                assert seen
            hub.call(lambda server, ahead=ahead: sweep(server, ahead))
        while not seen.endswith(b"0\r\n\r\n"):
            more = wire.sock.recv(1 << 20)
            assert more
            seen = seen[-5:] + more


BIG = b'{"response":"' + b"x" * 12_000_000 + b'","done":true}'


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_big_unstreamed_answer_to_a_slow_reader_does_not_stop_the_connection_it_came_on(
    use_uvloop: bool,
) -> None:
    """The engine is done, its connection pooled; the client has not read. The next exchange gets that connection."""

    def script(call: Call) -> None:
        call.answer(BIG if call.number == 0 else b'{"done":true}')

    with (
        hub_over(script, use_uvloop=use_uvloop, held_answer_bytes=1 << 26) as (engine, hub),
        Wire(hub.port, receive_buffer=4096) as slow,
    ):
        slow.send(request(body=GENERATE))
        eventually(lambda: metric(hub.port, "hive_exchanges_total", hub.admin_key) == 1)
        with Wire(hub.port) as other:
            other.send(request(body=GENERATE))
            engine.call_number(1)
            other.sock.settimeout(2)
            assert other.answer().body == b'{"done":true}'
        assert slow.answer().body == BIG


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_the_end_of_a_stream_to_a_slow_reader_does_not_stop_the_connection_it_came_on(
    use_uvloop: bool,
) -> None:
    """All of a stream arrives in one piece, head to end, larger than what the client's socket takes."""
    whole = b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in [LINE] * 3_000 + [DONE]) + b"0\r\n\r\n"

    def script(call: Call) -> None:
        if call.number == 0:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            call.send(head + whole)
        else:
            call.answer(b'{"done":true}')

    with hub_over(script, use_uvloop=use_uvloop) as (_, hub), Wire(hub.port, receive_buffer=4096) as slow:
        slow.send(request(body=STREAM))
        time.sleep(0.3)
        for _ in range(3):
            assert ask(hub.port, request(body=GENERATE)).body == b'{"done":true}'
        assert slow.answer().body == LINE * 3_000 + DONE
        for _ in range(3):
            assert ask(hub.port, request(body=GENERATE)).body == b'{"done":true}'


def test_tokens_arrive_as_they_come() -> None:
    may_go_on = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        for text in (b"one", b"two", b"three"):
            call.chunk(b'{"response":"%b","done":false}\n' % text)
            assert may_go_on.wait(5)
            may_go_on.clear()
        call.chunk(DONE)
        call.chunk(b"")

    with hub_over(script) as (_, hub), Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        for text in (b"one", b"two", b"three"):
            wire.until(text)
            may_go_on.set()
        wire.until(b"0\r\n\r\n")


def test_a_hundred_streams_at_once_are_all_whole() -> None:
    options = SimOptions(slots=100, tokens_per_second=400, default_tokens=60)
    with run_in_thread(options) as engine, run_hub({"a": engine.url}, slots=100) as hub:
        wires = [Wire(hub.port) for _ in range(100)]
        try:
            for wire in wires:
                wire.send(request(body=STREAM))
            for wire in wires:
                answer = wire.answer()
                lines = answer.ndjson()
                assert (answer.is_whole, lines[-1]["done"], len(lines)) == (True, True, 61)
        finally:
            for wire in wires:
                wire.sock.close()
