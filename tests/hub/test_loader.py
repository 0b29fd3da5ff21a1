"""Loads by exchanges of the hub's own: what is asked of an engine, which requests wait for the load, and how it ends.

Most nodes are played by hand: a load takes as long as a test likes.
"""

from __future__ import annotations

import json
import logging
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hive.app import HubServer
from hive.fleet.engines import Engine, Health
from hive.hub.loader import LOAD_PATH, UNLOAD_PATH
from hive.testing import SimKind, SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, ScriptedEngine, run_scripted
from hive.wire import link_messages as messages
from hive.wire.link_messages import Accepted, Draining, EngineBeat, Gpu, Heartbeat, MachineState, Report, json_object

from ..joining import DataWire, RawNode, an_engine, joined
from ..raw import GENERATE, PATIENCE, Wire, ask, eventually, request

OK = b'{"response":"whole","done":true}'
LOADED = b'{"model":"tiny:latest","embeddings":[],"total_duration":9,"load_duration":8}'
BUSY = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
GB = 1_000_000_000


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status.encode(), len(body), body,
    )  # fmt: skip


def listing(*names: str, size: int = 5 * GB) -> messages.Raw:
    entries = [
        {
            "name": name,
            "model": name,
            "size": size,
            "digest": name.encode().hex().ljust(64, "0"),
            "modified_at": "2026-01-01T00:00:00Z",
        }
        for name in names
    ]
    return json_object(json.dumps({"models": entries}).encode())


def cold(
    name: str = "ollama", *models: str, loaded: tuple[str, ...] = (), slots: int | None = 4
) -> messages.ReportedEngine:
    """An Ollama with these models, none of them in memory if nothing is said."""
    return an_engine(name, tags=listing(*(models or ("tiny:latest",))), ps=listing(*loaded), slots=slots)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedHub]:
    """A hub that dials no node, and looks at its deadlines more often than usual."""
    monkeypatch.setattr("hive.hub.ticker.TICK", 0.05)
    with run_hub({}, link="dialed", connect_timeout=1) as hub:
        yield hub


class Node:
    """A node whose engine is played by hand."""

    def __init__(self, node: RawNode) -> None:
        self.raw = node
        self.say = node.control.say
        self._spares: list[DataWire] = []

    def spare(self, count: int = 1) -> Node:
        """Dial data sockets."""
        self._spares += [self.raw.data() for _ in range(count)]
        return self

    def next(self) -> Asked:
        """Return what the hub asks next."""
        by_socket = {wire.sock: wire for wire in self._spares}
        ready, _, _ = select.select(by_socket, (), (), PATIENCE)
        assert ready, "the hub asks nothing"
        wire = by_socket[ready[0]]
        self._spares.remove(wire)
        exchange, head, body = wire.request()
        wire.say(Accepted(exchange))
        return Asked(self, wire, exchange, head.split(b" ", 2)[1].decode(), json.loads(body))

    def back(self, wire: DataWire) -> None:
        self._spares.append(wire)


class Asked:
    """One request that the hub sent to a node."""

    def __init__(self, node: Node, wire: DataWire, exchange: str, path: str, body: dict[str, object]) -> None:
        self.node = node
        self.wire = wire
        self.exchange = exchange
        self.path = path
        self.body = body

    def answer(self, body: bytes = OK, status: str = "200 OK") -> None:
        """Answer it; the socket is a spare again."""
        self.wire.say(whole(body, status), messages.Ended(self.exchange))
        self.node.back(self.wire)

    @property
    def is_load(self) -> bool:
        return self.path == LOAD_PATH and "input" not in self.body


@contextmanager
def node(
    hub: ThreadedHub, name: str = "desk", *engines: messages.ReportedEngine, spares: int = 1, memory: int | None = None
) -> Iterator[Node]:
    """A node that has joined; `memory` is what its engine may fill with models, if that is known."""
    gpus = (Gpu("GPU", memory),) if memory else ()
    with joined(hub, name, *(engines or (cold(),)), machine=MachineState(gpus=gpus)) as raw:
        hub.call(lambda server: setattr(engine_of(server, name).known, "memory_bytes", memory))
        yield Node(raw).spare(spares)


def engine_of(server: HubServer, node: str = "desk") -> Engine:
    (engine,) = [each for each in server.hub.fleet.engines if each.node == node]
    return engine


def is_loading(hub: ThreadedHub, node: str = "desk") -> bool:
    return hub.call(lambda server: bool(engine_of(server, node).running.loading))


def loading(hub: ThreadedHub) -> list[str]:
    """Return the nodes on which loads are under way."""
    return hub.call(lambda server: [load.engine.node for load in server.hub.loader.running.values()])


def until_waiting(hub: ThreadedHub, count: int) -> None:
    hub.until(lambda server: server.hub.queue.waiting_count == count)


@contextmanager
def asking(hub: ThreadedHub, **more: object) -> Iterator[Wire]:
    """A client that has asked, and may leave."""
    with Wire(hub.port) as wire:
        wire.send(request(body=GENERATE | more))
        yield wire


# --- what is asked of the engine ---


def test_a_cold_model_is_loaded_by_a_request_to_embed_nothing_before_anybody_is_served(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        load = desk.next()
        assert (load.path, load.body) == ("/api/embed", {"model": "tiny:latest"})
        until_waiting(hub, 1)
        load.answer(LOADED)
        served = desk.next()
        assert (served.path, served.body) == ("/api/generate", GENERATE)
        served.answer()
        answer = wire.answer()
        assert (answer.body, answer.header("X-Hive-Attempts")) == (OK, "1")


def test_the_options_that_decide_how_it_is_loaded_go_into_the_load_and_no_others(hub: ThreadedHub) -> None:
    options = {"temperature": 0.5, "num_ctx": 8192, "seed": 1, "num_gpu": 3, "use_mmap": False, "num_predict": 9}
    with node(hub) as desk, asking(hub, options=options) as wire:
        load = desk.next()
        assert load.body == {"model": "tiny:latest", "options": {"num_ctx": 8192, "num_gpu": 3, "use_mmap": False}}
        load.answer(LOADED)
        served = desk.next()
        assert served.body["options"] == options
        served.answer()
        assert wire.answer().status == 200


def test_the_engine_hears_its_own_spelling_of_the_name(hub: ThreadedHub) -> None:
    with node(hub, "desk", cold("ollama", "Tiny:Q4")) as desk, asking(hub, model="tiny:q4"):
        assert desk.next().body == {"model": "Tiny:Q4"}


def test_a_model_that_is_in_memory_is_not_loaded(hub: ThreadedHub) -> None:
    with node(hub, "desk", cold(loaded=("tiny:latest",))) as desk, asking(hub, options={"num_ctx": 8192}) as wire:
        served = desk.next()  # the hub does not know with which options another program loaded it
        assert served.path == "/api/generate"
        served.answer()
        assert wire.answer().status == 200


@pytest.mark.parametrize("kind", [SimKind.LLAMA_CPP, SimKind.VLLM, SimKind.OPENAI])
def test_engines_that_load_nothing_are_asked_for_no_load(kind: SimKind) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    with run_in_thread(SimOptions(kind=kind)) as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request("/v1/chat/completions", body)).status == 200
        paths = engine.state().received
        assert LOAD_PATH not in paths
        assert "/v1/embeddings" not in paths


# --- who waits for it ---


def test_all_tickets_for_the_model_wait_for_one_load(hub: ThreadedHub) -> None:
    with node(hub, spares=4) as desk, ExitStack() as wires:
        clients = [wires.enter_context(asking(hub)) for _ in range(4)]
        until_waiting(hub, 4)
        load = desk.next()
        assert load.is_load
        load.answer(LOADED)
        for _ in clients:
            served = desk.next()
            assert served.path == "/api/generate"
            served.answer()
        assert [wire.answer().status for wire in clients] == [200] * 4


def test_a_request_during_the_load_waits_too_and_a_later_request_finds_it_loaded(hub: ThreadedHub) -> None:
    with node(hub, spares=2) as desk, asking(hub) as first:
        load = desk.next()
        with asking(hub) as second:
            until_waiting(hub, 2)
            load.answer(LOADED)
            for _ in range(2):
                desk.next().answer()
            assert [first.answer().status, second.answer().status] == [200, 200]
        with asking(hub) as third:
            later = desk.next()
            assert not later.is_load
            later.answer()
            assert third.answer().status == 200


def test_other_options_wait_and_load_it_anew(hub: ThreadedHub) -> None:
    with node(hub, "desk", cold(slots=1)) as desk, asking(hub, options={"num_ctx": 2048}) as first:
        load = desk.next()
        with asking(hub, options={"num_ctx": 4096}) as second:
            until_waiting(hub, 2)
            load.answer(LOADED)
            served = desk.next()
            assert served.body["options"] == {"num_ctx": 2048}
            served.answer()
            again = desk.next()
            assert (again.is_load, again.body["options"]) == (True, {"num_ctx": 4096})
            again.answer(LOADED)
            desk.next().answer()
            assert [first.answer().status, second.answer().status] == [200, 200]


def test_the_departure_of_the_client_that_caused_it_does_not_end_it(hub: ThreadedHub) -> None:
    with node(hub) as desk:
        with asking(hub):
            load = desk.next()
        until_waiting(hub, 0)
        assert is_loading(hub)
        load.answer(LOADED)
        eventually(lambda: not is_loading(hub))
        with asking(hub) as wire:
            served = desk.next()
            assert not served.is_load
            served.answer()
            assert wire.answer().status == 200


def test_an_engine_that_lists_the_model_while_it_loads_does_not_have_it_yet(hub: ThreadedHub) -> None:
    """Each generation of Ollama does: no request is sent there for that, and no other engine loads it."""
    with node(hub, "desk") as desk, node(hub, "other") as other, asking(hub) as wire:
        nodes = {"desk": desk, "other": other}
        hub.until(lambda server: bool(server.hub.loader.running))
        (first,) = loading(hub)
        load = nodes[first].next()
        nodes[first].say(Report((cold(loaded=("tiny:latest",)),)))
        hub.until(lambda server: bool(engine_of(server, first).known.loaded))
        with asking(hub) as second:
            until_waiting(hub, 2)
            hub.call(lambda server: server.hub.queue.tick())
            assert (loading(hub), hub.call(lambda server: server.hub.queue.waiting_count)) == ([first], 2)
            nodes[first].spare()
            load.answer(LOADED)
            for _ in range(2):
                served = nodes[first].next()
                assert served.path == "/api/generate"
                served.answer()
            assert [each.answer().header("X-Hive-Node") for each in (wire, second)] == [first, first]


def test_a_real_load_survives_its_client_and_is_the_only_one() -> None:
    with run_in_thread(SimOptions(load_time=0.4)) as engine, run_hub({"a": engine.url}) as hub:
        with asking(hub):
            engine.until(lambda state: state.waiting == 1)
        assert ask(hub.port, request(body=GENERATE)).status == 200
        state = engine.state()
        assert (state.loads, state.loads_aborted, state.received[LOAD_PATH]) == (1, 0, 1)


# --- loads that fail ---


def test_a_load_that_fails_goes_elsewhere_and_is_not_tried_there_again(
    hub: ThreadedHub, caplog: pytest.LogCaptureFixture
) -> None:
    failed = b'{"error":"llama runner process has terminated: exit status 2"}'
    with node(hub, "desk") as desk, node(hub, "other") as other:
        nodes = {"desk": desk, "other": other}
        with asking(hub) as wire:
            hub.until(lambda server: bool(server.hub.loader.running))
            (first,) = [name for name in nodes if is_loading(hub, name)]
            second = nodes.keys() - {first}
            load = nodes[first].next()
            load.answer(failed, "500 Internal Server Error")
            again = nodes[next(iter(second))].next()
            assert again.is_load
            again.answer(LOADED)
            nodes[next(iter(second))].next().answer()
            answer = wire.answer()
            assert (answer.status, answer.header("X-Hive-Attempts")) == (200, "1"), "a load is no attempt"
        assert f"node {first}: does not load tiny:latest: 500" in caplog.text
        assert "exit status 2" in caplog.text
        assert hub.call(lambda server: engine_of(server, first).health) is Health.READY
        hub.call(lambda server: server.hub.node_cases.drain(next(iter(second)), True))
        with asking(hub) as wire:
            served = nodes[first].next()
            assert not served.is_load, "the engine itself says why, if it must"
            served.answer(failed, "500 Internal Server Error")
            answer = wire.answer()
            assert (answer.status, answer.body) == (500, failed)


def test_where_every_load_fails_the_client_hears_the_engines_own_reason() -> None:
    with run_in_thread() as a, run_in_thread() as b, run_hub({"a": a.url, "b": b.url}) as hub:
        for engine in (a, b):
            engine.set_fault("load-fails")
        answer = ask(hub.port, request(body=GENERATE))
        assert answer.status == 500
        assert "exit status 2" in str(answer.json()["error"])
        counts = [engine.state().received for engine in (a, b)]
        assert [received[LOAD_PATH] for received in counts] == [1, 1]
        assert all(hub.call(lambda server: [each.health is Health.READY for each in server.hub.fleet.engines]))


def test_a_load_without_a_word_ends_with_the_time_for_a_first_byte() -> None:
    with run_hub({}, link="dialed", first_byte_timeout=0.3) as hub, node(hub) as desk, asking(hub) as wire:
        assert desk.next().is_load
        desk.spare()
        served = desk.next()
        assert not served.is_load
        served.answer()
        assert wire.answer().status == 200


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    """A dialed engine with nothing in memory."""
    with run_scripted(lambda call: call.answer(OK)) as engine:
        engine.loaded = ()
        yield engine


def test_a_connection_that_breaks_off_inside_a_load_is_a_load_that_failed(
    scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have died of the load: only one that had died before is replaced."""
    monkeypatch.setattr("hive.net.engine_connection.STALE_AFTER", 0.05)

    def die(call: Call) -> None:
        time.sleep(0.1)  # longer than a dead connection needs to show that it is
        call.reset()

    scripted.on_load = die
    with run_hub({"a": scripted.url}, link="dialed") as hub:
        assert ask(hub.port, request(body=GENERATE)).status == 200
        assert (len(scripted.loads), len(scripted.calls)) == (1, 1)


def test_a_load_on_a_connection_that_had_died_unused_is_sent_again(scripted: ScriptedEngine) -> None:
    scripted.on_load = lambda call: call.close() if call.number == 0 else call.answer(LOADED)
    with run_hub({"a": scripted.url}, link="dialed") as hub:
        assert ask(hub.port, request(body=GENERATE)).status == 200
        assert len(scripted.loads) == 2
        record, leases = hub.call(lambda server: server.hub.register.history[-1])
        assert "failed" not in leases[-1].reason
        assert record.attempts == 1


def test_an_engine_that_lost_the_model_does_not_load_it_and_the_other_does(
    engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    engine.set_fault("lost-model")
    with run_hub({"a": engine.url, "b": second_engine.url}) as hub:
        for _ in range(4):
            answer = ask(hub.port, request(body=GENERATE))
            assert (answer.status, answer.header("X-Hive-Node")) == (200, "b")


# --- an engine that dies or stands still while it loads ---


def test_an_engine_that_dies_while_it_loads_costs_its_clients_a_load_elsewhere(hub: ThreadedHub) -> None:
    with ExitStack() as stack:
        desk = stack.enter_context(node(hub))
        wire = stack.enter_context(asking(hub))
        desk.next()
        other = stack.enter_context(node(hub, "other"))
        desk.raw.control.reset()
        load = other.next()
        assert load.is_load
        load.answer(LOADED)
        other.next().answer()
        assert wire.answer().header("X-Hive-Node") == "other"
        assert not is_loading(hub)


def test_an_engine_that_its_node_reports_dead_loads_nothing_any_more(hub: ThreadedHub) -> None:
    with node(hub) as desk, node(hub, "other") as other:
        hub.call(lambda server: server.hub.node_cases.drain("other", True))
        with asking(hub) as wire:
            load = desk.next()
            hub.call(lambda server: server.hub.node_cases.drain("other", False))
            desk.say(Report((an_engine(is_alive=False, error="connection refused"),)))
            again = other.next()
            assert (load.is_load, again.is_load) == (True, True)
            assert hub.call(lambda server: [load.engine.node for load in server.hub.loader.running.values()]) == [
                "other"
            ]
            again.answer(LOADED)
            other.next().answer()
            assert wire.answer().header("X-Hive-Node") == "other"


def test_an_engine_that_stands_still_while_it_loads_is_given_up(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        desk.next()
        with node(hub, "other") as other:
            desk.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True, stopped=True)}))
            load = other.next()
            load.answer(LOADED)
            other.next().answer()
            assert wire.answer().header("X-Hive-Node") == "other"
            eventually(lambda: not is_loading(hub))


def test_an_engine_that_gives_signs_may_load_for_as_long_as_it_takes(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        load = desk.next()

        def pass_minutes(server: HubServer) -> None:
            engine, now = engine_of(server), server.hub.now()
            before = engine.signs.last_sign
            for minutes in range(9):
                engine.signs.last_sign = now + 60 * minutes
                server.hub.loader.tick(now + 60 * minutes)
            engine.signs.last_sign = before

        hub.call(pass_minutes)
        assert is_loading(hub)
        load.answer(LOADED)
        desk.next().answer()
        assert wire.answer().status == 200


def test_an_engine_without_a_sign_for_five_seconds_loads_nothing_any_more(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub):
        desk.next()

        def let_pass(seconds: float) -> None:
            hub.call(lambda server: server.hub.loader.tick(engine_of(server).signs.last_sign + seconds))

        let_pass(4.9)
        assert is_loading(hub)
        let_pass(5.0)
        assert not is_loading(hub)


def test_while_it_loads_silent_streams_make_no_engine_doubtful(hub: ThreadedHub) -> None:
    """Everything waits inside an Ollama that loads a model."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    line = b'{"response":"a","done":false}\n'
    engines = cold("ollama", "tiny:latest", "other:latest", loaded=("tiny:latest",))
    with node(hub, "desk", engines, spares=2, memory=100 * GB) as desk, asking(hub, stream=True) as wire:
        stream = desk.next()
        stream.wire.say(begun + b"%x\r\n%b\r\n" % (len(line), line))
        wire.until(line)
        with asking(hub, model="other"):
            assert desk.next().is_load

            def look(server: HubServer) -> tuple[Health, Health]:
                engine, now = engine_of(server), server.hub.now() + 60
                engine.signs.last_sign = now
                running = server.hub.register.attempts()
                server.hub.health._gather([*running, *server.hub.loader.running.values()], now)
                server.hub.health.judge(engine)
                while_loading = engine.health
                server.hub.health._gather(running, now)
                engine.signs.last_stream_byte -= 60
                server.hub.health.judge(engine)
                return while_loading, engine.health

            assert hub.call(look) == (Health.READY, Health.DOUBTFUL)


# --- busy ---


def test_an_engine_that_is_too_busy_to_load_rests_and_another_one_loads(hub: ThreadedHub) -> None:
    with node(hub, "desk") as desk, node(hub, "other") as other, asking(hub) as wire:
        nodes = {"desk": desk, "other": other}
        hub.until(lambda server: bool(server.hub.loader.running))
        (first,) = [name for name in nodes if is_loading(hub, name)]
        (second,) = nodes.keys() - {first}
        nodes[first].next().answer(BUSY, "503 Service Unavailable")
        load = nodes[second].next()
        assert load.is_load
        now = hub.call(lambda server: server.hub.now())
        assert hub.call(lambda server: engine_of(server, first).running.rests_until) > now
        assert hub.call(lambda server: engine_of(server, first).health) is Health.READY
        assert hub.call(lambda server: engine_of(server, first).signs.blames) == 0
        load.answer(LOADED)
        nodes[second].next().answer()
        assert wire.answer().status == 200


def test_a_load_that_the_only_engine_was_too_busy_for_is_asked_again(
    hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive.scheduling.slots.BUSY_REST", 0.05)
    with node(hub) as desk, asking(hub) as wire:
        for _ in range(2):
            load = desk.next()
            assert load.is_load, "the request itself is not sent before its model is there"
            load.answer(BUSY, "503 Service Unavailable")
        desk.next().answer(LOADED)
        desk.next().answer()
        answer = wire.answer()
        assert (answer.status, answer.header("X-Hive-Attempts")) == (200, "1")


def test_a_busy_engine_without_another_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.scheduling.slots.BUSY_REST", 0.05)
    monkeypatch.setattr("hive.hub.ticker.TICK", 0.05)
    with run_in_thread(SimOptions(slots=8)) as engine, run_hub({"a": engine.url}) as hub:
        engine.set_fault("busy", count=3)
        with ExitStack() as wires:
            clients = [wires.enter_context(asking(hub)) for _ in range(4)]
            assert [wire.answer().status for wire in clients] == [200] * 4


# --- unloading ---


def test_what_must_go_first_is_unloaded_by_a_request_that_keeps_it_for_no_time(hub: ThreadedHub) -> None:
    engines = cold("ollama", "tiny:latest", "other:latest", loaded=("tiny:latest",))
    with node(hub, "desk", engines, memory=7 * GB) as desk, asking(hub, model="other") as wire:
        unload = desk.next()
        assert (unload.path, unload.body) == (UNLOAD_PATH, {"model": "tiny:latest", "keep_alive": 0})
        unload.answer(b'{"model":"tiny:latest","response":"","done":true,"done_reason":"unload"}')
        load = desk.next()
        assert (load.is_load, load.body) == (True, {"model": "other:latest"})
        load.answer(LOADED)
        desk.next().answer()
        assert wire.answer().status == 200


def test_an_engine_that_dies_of_an_unload_loads_nothing(hub: ThreadedHub) -> None:
    engines = cold("ollama", "tiny:latest", "other:latest", loaded=("tiny:latest",))
    with node(hub, "desk", engines, memory=7 * GB) as desk, asking(hub, model="other"):
        unload = desk.next()
        broke = messages.EndError(messages.EndCode.ENGINE_BROKE_OFF, "connection reset")
        unload.wire.say(messages.Ended(unload.exchange, broke))
        eventually(lambda: not is_loading(hub))


def test_a_client_that_keeps_a_model_for_no_time_has_it_loaded_anew_next_time() -> None:
    with run_in_thread() as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=GENERATE)).status == 200
        gone = ask(hub.port, request(body={"model": "tiny", "keep_alive": 0}))
        assert (gone.status, gone.json()["done_reason"]) == (200, "unload")
        assert hub.call(lambda server: engine_of(server, "a").is_warm("tiny:latest")) is False
        assert ask(hub.port, request(body=GENERATE)).status == 200
        state = engine.state()
        assert (state.loads, state.received[LOAD_PATH]) == (2, 2)


def test_how_long_a_model_is_kept_is_the_clients_own_and_no_loads(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub, keep_alive="1h") as wire:
        load = desk.next()
        assert load.body == {"model": "tiny:latest"}
        load.answer(LOADED)
        served = desk.next()
        assert served.body["keep_alive"] == "1h"
        served.answer()
        assert wire.answer().status == 200


# --- looks at what it did ---


def test_two_seconds_into_a_load_the_engine_is_asked_what_it_has_evicted_and_once_more_at_its_end(
    hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive.hub.joined_engines.REFRESH_INTERVAL", 0.0)
    with node(hub) as desk, asking(hub) as wire:
        load = desk.next()

        def tick(seconds: float) -> bool:
            def act(server: HubServer) -> bool:
                (running,) = server.hub.loader.running.values()
                engine_of(server).signs.last_sign = running.last_byte_at + seconds
                server.hub.loader.tick(running.last_byte_at + seconds)
                return running.was_listed

            return hub.call(act)

        assert not tick(1.9)
        assert tick(2.0)
        assert desk.raw.control.text("refresh") == {"type": "refresh", "engine": "ollama"}
        assert tick(3.0)
        load.answer(LOADED)
        assert desk.raw.control.text("refresh") == {"type": "refresh", "engine": "ollama"}
        desk.next().answer()
        assert wire.answer().status == 200


def test_what_was_loaded_counts_as_loaded_before_the_engine_lists_it(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        desk.next().answer(LOADED)
        desk.next().answer()
        assert wire.answer().status == 200
        assert hub.call(lambda server: engine_of(server).known.loaded) == {}
        assert hub.call(lambda server: engine_of(server).is_warm("tiny:latest"))
        with asking(hub) as again:
            assert not desk.next().is_load
            again.reset()


# --- an engine that leaves service, and a hub that ends ---


def test_a_node_that_drains_loads_to_the_end_what_it_loads_and_nothing_new(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        load = desk.next()
        desk.say(Draining())
        hub.until(lambda server: engine_of(server).health is Health.DRAINING)
        with node(hub, "other") as other:
            second = other.next()
            assert second.is_load
            assert is_loading(hub)
            load.answer(LOADED)
            eventually(lambda: not is_loading(hub))
            second.answer(LOADED)
            other.next().answer()
            assert wire.answer().header("X-Hive-Node") == "other"


def test_an_engine_that_its_node_has_no_more_loads_nothing(hub: ThreadedHub) -> None:
    with node(hub) as desk, asking(hub) as wire:
        desk.next()
        desk.say(Report((cold("second"),)))
        desk.spare()
        load = desk.next()
        assert load.is_load
        assert hub.call(lambda server: [each.engine.id for each in server.hub.loader.running.values()]) == ["second"]
        load.answer(LOADED)
        desk.next().answer()
        assert wire.answer().status == 200


@pytest.mark.parametrize("link", ["dialed", "joined"])
def test_a_hub_that_ends_while_a_model_loads_leaves_nothing_behind(link: str) -> None:
    with run_in_thread(SimOptions(load_time=60)) as engine:
        with run_hub({"a": engine.url}, link=link) as hub, asking(hub):
            engine.until(lambda state: state.waiting == 1)
        engine.until(lambda state: state.waiting == 0)


def test_every_load_is_logged_with_its_reason(hub: ThreadedHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hive.hub.loader")
    with node(hub) as desk, asking(hub):
        desk.next()
        assert "node desk: loads tiny:latest (" in caplog.text
