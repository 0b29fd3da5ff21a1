"""The wait for a slot: in order, bounded, with an end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine
from hive.hub.queue import MEASURE_PAUSE, Queue
from hive.scheduling.failover import BLAMED_REST, LONGEST_REST
from hive.scheduling.tickets import Lease, LoadEnd, LoadOrder, Ticket
from hive.testing import SimOptions, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, ScriptedEngine, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, metric, request
from ..scheduling.fleets import Floor

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


def test_the_request_that_came_first_is_served_first() -> None:
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
        answer = ask(hub.port, request(path, {"model": "tiny", "messages": []}))  # it would wait for minutes
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
        assert time.monotonic() - began > 0.2
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


def test_a_request_that_waits_inside_an_engine_is_taken_back_and_served_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An Ollama that runs one at a time takes a second one, and lets it wait behind the first."""
    monkeypatch.setattr("hive.scheduling.silence.LONG_INSIDE", 0.3)
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
        hub.until(lambda server: all(engine.known.loaded for engine in server.hub.fleet.engines), 8)
        with Wire(hub.port) as busy:
            a.set_fault("head-then-silence")
            b.set_fault("head-then-silence")
            busy.send(request(body=STREAM))
            hub.until(lambda server: any(engine.running.count for engine in server.hub.fleet.engines))
            a.clear_faults()
            b.clear_faults()
            assert ask(hub.port, request(body=UNLOAD)).status == 200
            hub.until(lambda server: not any(engine.known.loaded for engine in server.hub.fleet.engines))
        eventually(lambda: sum(each.state().received["/api/generate"] for each in (a, b)) >= 5)


# --- with a clock that tests turn ---


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still until it is told otherwise."""

    now = 100.0

    def time(self) -> float:
        return self.now


class Counter:
    """A queue over a floor of engines, in a loop of its own; `run` lets waiting tickets go on."""

    def __init__(self, loop: Clock) -> None:
        self.loop = loop
        self.floor = Floor()
        self.ordered: list[LoadOrder] = []
        self.queue = loop.run_until_complete(self._make())
        self.waits: dict[Ticket, asyncio.Task[Lease]] = {}

    async def _make(self) -> Queue:
        return Queue(self.floor.dispatcher, self.ordered.append)

    def ask(self, model: str = "m", **more: object) -> Lease | None:
        """Ask for a slot; a ticket that gets none waits."""
        ticket = self.floor.ticket(model, **more)  # type: ignore[arg-type]
        lease = self.queue.try_lease(ticket)
        if lease is None:
            self.waits[ticket] = self.loop.create_task(self.queue.wait(ticket))
            self.run()
        return lease

    def run(self) -> None:
        """Let every ticket go on that can."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def served(self) -> list[Lease]:
        """Return the leases of the tickets that waited, in the order in which the leases came."""
        self.run()
        return [wait.result() for wait in self.waits.values() if wait.done()]


@pytest.fixture
def counter() -> Iterator[Counter]:
    loop = Clock()
    counter = Counter(loop)
    yield counter
    for wait in counter.waits.values():
        wait.cancel()
    counter.run()
    loop.close()


def test_an_engine_that_fails_by_its_own_fault_rests_the_longer_the_more_it_fails(counter: Counter) -> None:
    engine = counter.floor.add("a", loaded="m")
    rests = []
    for _ in range(12):
        counter.queue.note_blamed(engine)
        rests.append(engine.running.rests_until - counter.loop.now)
    assert rests == [pytest.approx(min(BLAMED_REST * (1 + place), LONGEST_REST)) for place in range(12)]
    assert (rests[0], rests[-1]) == (pytest.approx(0.5), pytest.approx(5.0))


def test_a_served_request_ends_the_row_of_failures(counter: Counter) -> None:
    engine = counter.floor.add("a", loaded="m")
    for _ in range(5):
        counter.queue.note_blamed(engine)
    counter.loop.now += LONGEST_REST
    lease = counter.ask()
    assert lease is not None
    counter.queue.note_served(lease, Measured)
    counter.queue.note_blamed(engine)
    assert engine.running.rests_until - counter.loop.now == pytest.approx(BLAMED_REST)


def test_an_engine_that_rests_gets_nothing_until_the_rest_is_over(counter: Counter) -> None:
    engine = counter.floor.add("a", loaded="m")
    counter.queue.note_blamed(engine)
    assert counter.ask() is None
    counter.queue.tick()
    assert counter.served() == []
    counter.loop.now += BLAMED_REST
    counter.queue.tick()
    assert [lease.engine for lease in counter.served()] == [engine]


def test_while_it_is_held_nothing_is_decided_and_at_the_end_all_at_once(counter: Counter) -> None:
    """A report of several engines is one change: otherwise all waiting tickets would go to the first engine."""
    a = counter.floor.add("a", models="x", slots=2)
    for _ in range(4):
        counter.ask()
    with counter.queue.held():
        engines = [a, counter.floor.add("b", loaded="m", slots=2), counter.floor.add("c", loaded="m", slots=2)]
        counter.queue.serve()
        assert counter.served() == []
    assert sorted(lease.engine.node for lease in counter.served()) == ["b", "b", "c", "c"]
    assert [engine.running.count for engine in engines] == [0, 2, 2]


def test_an_error_meanwhile_holds_no_ticket_up(counter: Counter) -> None:
    def fail() -> None:
        with counter.queue.held():
            counter.floor.add("a", loaded="m")
            raise ZeroDivisionError

    counter.ask()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(counter.served()) == 1


def test_a_slot_that_comes_free_while_it_is_held_is_given_at_the_end(counter: Counter) -> None:
    counter.floor.add("a", loaded="m")
    lease = counter.ask()
    assert lease is not None
    counter.ask()
    with counter.queue.held():
        counter.queue.release(lease)
        assert counter.served() == []
    assert len(counter.served()) == 1


class Measure:
    """Counts how often an answer was measured."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Measured:
        self.count += 1
        return Measured(prompt_tokens=200, prompt_seconds=0.1)


def test_not_each_of_many_answers_is_measured(counter: Counter) -> None:
    engine = counter.floor.add("a", "mn", loaded="mn", slots=100)
    measure = Measure()
    for _ in range(10):
        lease = counter.ask()
        assert lease is not None
        counter.queue.note_served(lease, measure)
    assert measure.count == 1
    counter.loop.now += 1.5 * MEASURE_PAUSE
    counter.queue.note_served(lease, measure)
    assert measure.count == 2
    other = counter.ask("n")
    assert other is not None
    counter.queue.note_served(other, measure)
    assert measure.count == 3, "each model for itself"
    assert engine.signs.served == 12, "all of them count for health"


def test_a_load_is_ordered_for_tickets_that_wait_and_its_end_serves_them_all(counter: Counter) -> None:
    engine = counter.floor.add("a", slots=2)
    assert (counter.ask(), counter.ask()) == (None, None)
    (order,) = counter.ordered
    assert (order.engine, order.model) == (engine, "m")
    counter.loop.now += 60
    counter.queue.tick()
    assert (counter.served(), len(counter.ordered)) == ([], 1)
    counter.queue.load_finished(order, LoadEnd.DONE)
    assert [lease.engine for lease in counter.served()] == [engine, engine]


def test_a_ticket_that_leaves_during_the_load_does_not_end_the_load(counter: Counter) -> None:
    engine: Engine = counter.floor.add("a")
    counter.ask()
    (ticket,) = counter.waits
    counter.waits.pop(ticket).cancel()
    counter.run()
    counter.queue.forget(ticket)
    (order,) = counter.ordered
    assert engine.running.loading == "m"
    counter.queue.load_finished(order, LoadEnd.DONE)
    assert counter.ask() is not None
    assert len(counter.ordered) == 1


def test_a_request_that_was_broken_off_is_not_overtaken_by_later_ones() -> None:
    order: list[str] = []
    may_break = threading.Event()

    def breaks(call: Call) -> None:
        order.append(json.loads(call.body)["prompt"] + "!")
        may_break.wait(5)
        call.send(b"HTTP/1.1 200 OK\r\n")  # else it may be a pooled connection that had died before
        call.reset()

    def answers(call: Call) -> None:
        order.append(json.loads(call.body)["prompt"])
        call.answer(b'{"done":true}')

    with run_scripted(breaks, answers) as engine, run_hub({"a": engine.url}, slots=1) as hub, ExitStack() as stack:
        wires = [stack.enter_context(Wire(hub.port)) for _ in "ABC"]
        for place, (wire, name) in enumerate(zip(wires, "ABC", strict=True)):
            wire.send(request("/api/generate", {"model": "tiny", "prompt": name, "stream": False}))
            if not place:
                engine.call_number(0)
            else:
                hub.until(lambda server, place=place: server.hub.queue.waiting_count == place)
        may_break.set()
        answers = [wire.answer() for wire in wires]
        assert [(answer.status, answer.header("X-Hive-Attempts")) for answer in answers] == [
            (200, "2"),
            (200, "1"),
            (200, "1"),
        ]
    assert order == ["A!", "A", "B", "C"]
