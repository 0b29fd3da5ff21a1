"""Nodes that join: which are let in, what the hub believes of them, and what clients see when one leaves."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hive.hub.joining import MAX_COMPLAINTS
from hive.net.joined import ControlSocket
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.agent_double import AgentDouble, run_agent
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.link_messages import (
    Accepted,
    Draining,
    Ended,
    EngineBeat,
    Gpu,
    Heartbeat,
    Hello,
    JoinData,
    MachineState,
    Report,
    ReportedEngine,
    json_object,
)
from hive.wire.link_rules import MAX_LINKS, SPARE_LINKS

from ..joining import (
    INSTANCE,
    OTHER_INSTANCE,
    TAGS,
    DataWire,
    NodeWire,
    an_engine,
    joined,
    let_pass,
    pool_of,
)
from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, metric, request

OK = b'{"response":"whole","done":true}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + OK
HELLO = Hello(INSTANCE, "by hand", engines=(an_engine(),))
LINE = b'{"response":"a","done":false}\n'
BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n"
    + LINE
    + b"\r\n"
)


@pytest.fixture
def hub() -> Iterator[ThreadedHub]:
    """A hub that dials no node."""
    with run_hub({}, link="dialed", connect_timeout=1) as hub:
        yield hub


def nodes(hub: ThreadedHub) -> list[dict[str, object]]:
    """Return what the hub lists of its nodes."""
    listed = ask(hub.port, get("/hive/v1/nodes", f"Authorization: Bearer {hub.admin_key}\r\n")).json()["nodes"]
    assert isinstance(listed, list)
    return listed


def states(hub: ThreadedHub) -> dict[str, str]:
    """Return the health of each engine by the name of its node."""
    return hub.call(lambda server: {engine.node: engine.health.value for engine in server.hub.fleet.engines})


def why(hub: ThreadedHub) -> str:
    """Return why the only engine is not ready."""
    return hub.call(lambda server: server.hub.fleet.engines[0].error)


def models(hub: ThreadedHub) -> list[str]:
    return [str(one["name"]) for one in ask(hub.port, get("/api/tags")).json()["models"]]  # type: ignore[attr-defined]


# --- hello ---


def test_a_node_that_joins_is_listed_with_all_that_it_said(hub: ThreadedHub) -> None:
    machine = MachineState(0.5, 64_000, 32_000)
    with joined(hub, "desk", labels={"room": "lab 2"}, platform="Linux", machine=machine) as node:
        assert node.welcome["node"] == "desk"
        assert len(node.session) == 43
        assert node.welcome["links"] == SPARE_LINKS
        [entry] = nodes(hub)
        assert {name: entry[name] for name in ("name", "engine", "link", "status", "kind", "url", "slots")} == {
            "name": "desk",
            "engine": "ollama",
            "link": "joined",
            "status": "ready",
            "kind": "ollama",
            "url": "http://127.0.0.1:11434",
            "slots": 4,
        }
        assert (entry["agent"], entry["platform"], entry["labels"]) == ("by hand", "Linux", {"room": "lab 2"})
        assert entry["machine"] == {
            "cpu": 0.5, "memory_total_bytes": 64_000, "memory_used_bytes": 32_000, "disk_free_bytes": None, "gpus": [],
        }  # fmt: skip
        assert entry["heartbeat_age"] is not None
        assert models(hub) == ["tiny:latest"]


def test_a_node_without_an_engine_is_listed_too(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    with NodeWire(hub, key) as wire:
        wire.say(Hello(INSTANCE, "by hand"))
        wire.text("welcome")
        [entry] = nodes(hub)
        assert (entry["name"], entry["status"], entry["kind"]) == ("desk", "joining", None)
        wire.say(Report((an_engine(),)))
        hub.until(lambda server: len(server.hub.fleet.engines) == 1)
        assert [entry["status"] for entry in nodes(hub)] == ["ready"]


def test_a_node_with_several_engines_serves_all_of_them_under_its_own_name(hub: ThreadedHub) -> None:
    vllm = ReportedEngine("vllm", "vllm", v1_models=json_object(b'{"data":[{"id":"big"}]}'), slots=32)
    with joined(hub, "desk", an_engine(), vllm) as node, ThreadPoolExecutor() as pool:
        assert [(entry["name"], entry["engine"]) for entry in nodes(hub)] == [("desk", "ollama"), ("desk", "vllm")]
        assert metric(hub.port, "hive_node_slots", hub.admin_key, node="desk") == 36
        data = node.data()
        answer = pool.submit(ask, hub.port, request("/v1/chat/completions", {"model": "big", "messages": []}))
        opened = data.text("open")
        assert opened["engine"] == "vllm"
        data.say(Accepted(str(opened["id"])), ANSWER, Ended(str(opened["id"])))
        assert answer.result().header("X-Hive-Node") == "desk"


def test_the_same_agent_again_replaces_its_ghost_at_once(hub: ThreadedHub) -> None:
    with joined(hub) as ghost:
        data = ghost.data()
        with NodeWire(hub, ghost.key) as again:
            again.say(HELLO)
            session = again.text("welcome")["session"]
            assert session != ghost.session
            assert (ghost.control.code, data.code) == (4007, 4007)
            assert states(hub) == {"desk": "ready"}
            with DataWire(hub, ghost.key, ghost.session) as late:
                assert late.code == 4010
            with DataWire(hub, ghost.key, str(session)):
                eventually(lambda: len(pool_of(hub)) == 1)


def test_what_the_ghost_carried_is_tried_again_on_the_new_session(hub: ThreadedHub) -> None:
    with joined(hub) as ghost, ThreadPoolExecutor() as pool:
        old = ghost.data()
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        old.request()
        with NodeWire(hub, ghost.key) as again:
            again.say(HELLO)
            session = str(again.text("welcome")["session"])
            with DataWire(hub, ghost.key, session) as data:
                data.answer(data.request()[0], ANSWER)
                assert answer.result().body == OK


def test_another_agent_with_the_same_key_is_refused_while_the_first_lives(hub: ThreadedHub) -> None:
    with joined(hub) as first:
        with NodeWire(hub, first.key) as second:
            second.say(Hello(OTHER_INSTANCE, "by hand"))
            assert second.code == 4008
            assert "desk" in second.reason
        assert states(hub) == {"desk": "ready"}
        first.control.reset()
        eventually(lambda: states(hub) == {"desk": "down"})
    with joined(hub, key=first.key, instance=OTHER_INSTANCE):
        assert states(hub) == {"desk": "probation"}


def test_a_name_that_the_settings_have_is_refused_with_a_sentence(engine: ThreadedEngine) -> None:
    with run_hub({"desk": engine.url}, link="dialed") as hub:
        key = hub.create_key("DESK", "worker")
        with NodeWire(hub, key) as wire:
            wire.say(HELLO)
            assert (wire.code, wire.reason) == (4008, "the hub's settings have a node 'DESK' that the hub dials")
        assert states(hub) == {"desk": "ready"}


# --- data sockets ---


def test_a_data_socket_needs_its_session_and_its_key(hub: ThreadedHub) -> None:
    with joined(hub) as desk, joined(hub, "other") as other:
        for key, session in ((desk.key, "0" * 43), (other.key, desk.session), (desk.key, desk.session[:-1])):
            with DataWire(hub, key, session) as wire:
                assert wire.code == 4010
        assert len(pool_of(hub, "desk")) == 0


def test_a_data_socket_without_any_session_is_refused(hub: ThreadedHub) -> None:
    with NodeWire(hub, hub.create_key("desk", "worker")) as wire:
        wire.say(JoinData("0" * 43))
        assert wire.code == 4010


def test_more_data_sockets_than_were_asked_for_are_refused(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        for _ in range(SPARE_LINKS):
            node.data()
        with DataWire(hub, node.key, node.session) as wire:
            assert wire.code == 4011
        assert len(pool_of(hub)) == SPARE_LINKS


def test_a_session_of_a_key_that_was_made_anew_is_not_the_old_ones(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        hub.revoke_key("desk")
        again = hub.create_key("desk", "worker")
        with DataWire(hub, again, node.session) as wire:
            assert wire.code == 4010
        with NodeWire(hub, again) as control:
            control.say(HELLO)
            assert control.text("welcome")["node"] == "desk"
        assert node.control.code == 4009


# --- heartbeats ---


def test_heartbeats_are_answered_and_seen(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        node.control.say(Heartbeat(7, MachineState(cpu=0.75), {"ollama": EngineBeat(True)}))
        assert node.control.text("beat") == {"type": "beat", "seq": 7}
        [entry] = nodes(hub)
        assert entry["machine"]["cpu"] == 0.75  # type: ignore[index]


def test_the_memory_of_its_gpus_is_known_if_one_engine_has_it_alone(hub: ThreadedHub) -> None:
    def memory() -> list[int | None]:
        return hub.call(lambda server: [engine.known.memory_bytes for engine in server.hub.fleet.engines])

    with joined(hub) as node:
        assert memory() == [None]
        gpus = (Gpu("one", 24 << 30), Gpu("two", 8 << 30))
        node.control.say(Heartbeat(1, MachineState(gpus=gpus), {"ollama": EngineBeat(True)}))
        eventually(lambda: memory() == [32 << 30])
        node.control.say(Report((an_engine(), an_engine("second"))))
        eventually(lambda: memory() == [None, None])


def test_a_node_that_falls_silent_is_suspect_then_gone_and_on_probation_when_it_is_back(
    hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with joined(hub) as node:
        data = node.data()
        monkeypatch.setattr("hive.fleet.health.SUSPECT_AFTER", 0.3)
        eventually(lambda: (states(hub), why(hub)) == ({"desk": "suspect"}, "no sign of life for 0.3 s"))
        monkeypatch.setattr("hive.fleet.health.SUSPECT_AFTER", 5.0)
        node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True)}))
        eventually(lambda: states(hub) == {"desk": "ready"})
        let_pass(hub, 12, ControlSocket)
        assert node.control.code == 4004
        assert data.code == 4010
        assert (states(hub), why(hub)) == ({"desk": "down"}, "its node has left: no heartbeat")
        assert [entry["heartbeat_age"] for entry in nodes(hub)] == [None]
    with joined(hub, key=node.key):
        assert states(hub) == {"desk": "probation"}


def test_an_engine_whose_process_is_stopped_gets_no_work(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True, 12.0, stopped=True)}))
        eventually(lambda: states(hub) == {"desk": "suspect"})
        assert why(hub) == "its agent sees it stand still"
        node.control.say(Heartbeat(2, MachineState(), {"ollama": EngineBeat(True)}))
        eventually(lambda: states(hub) == {"desk": "ready"})


def test_an_engine_that_is_silent_for_once_stays_ready(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(False)}))
        node.control.text("beat")
        assert states(hub) == {"desk": "ready"}


# --- leaving ---


def test_a_node_that_leaves_fails_over_what_has_not_begun(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub) as node, ThreadPoolExecutor() as pool:
        data = node.data()
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        data.say(Accepted(data.request()[0]))
        with run_agent(hub.url, hub.create_key("other", "worker"), {"engine": engine.url}):
            hub.until(lambda server: len(server.hub.fleet.engines) == 2)
            node.control.reset()
            assert (answer.result().status, answer.result().header("X-Hive-Node")) == (200, "other")
        assert states(hub)["desk"] == "down"


def test_a_node_that_leaves_ends_what_has_begun_with_an_honest_error(hub: ThreadedHub) -> None:
    with joined(hub) as node, Wire(hub.port) as wire:
        data = node.data()
        wire.send(request(body=STREAM))
        data.say(Accepted(data.request()[0]), BEGUN)
        wire.until(LINE)
        node.control.reset()
        assert b'{"error":"node \'desk\'' in wire.until(b"0\r\n\r\n")
        assert data.code == 4010


def test_a_revoked_key_ends_its_links_within_a_second(hub: ThreadedHub) -> None:
    with joined(hub) as node, Wire(hub.port) as wire:
        data = node.data()
        wire.send(request(body=STREAM))
        data.say(Accepted(data.request()[0]), BEGUN)
        wire.until(LINE)
        hub.revoke_key("desk")
        assert eventually(lambda: nodes(hub) == [], 2) < 1
        assert (node.control.code, data.code) == (4009, 4009)
        assert b'{"error"' in wire.until(b"0\r\n\r\n")
        assert models(hub) == []


def test_a_node_that_left_stays_listed_until_its_key_is_revoked(hub: ThreadedHub) -> None:
    with joined(hub):
        pass
    eventually(lambda: [(entry["name"], entry["status"]) for entry in nodes(hub)] == [("desk", "down")])
    assert "left" in str(nodes(hub)[0]["error"])
    hub.revoke_key("desk")
    eventually(lambda: nodes(hub) == [])


def test_a_node_that_drains_gets_nothing_new_and_finishes_what_runs(hub: ThreadedHub) -> None:
    with joined(hub) as node, ThreadPoolExecutor() as pool:
        data = node.data()
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        exchange = data.request()[0]
        node.control.say(Draining())
        eventually(lambda: [entry["status"] for entry in nodes(hub)] == ["draining"])
        node.data()
        waits = pool.submit(ask, hub.port, request(body=GENERATE))
        eventually(lambda: metric(hub.port, "hive_queue_waiting", hub.admin_key) == 1)
        data.answer(exchange, ANSWER)
        assert answer.result().status == 200
        node.control.reset()
        with joined(hub, key=node.key) as back:
            fresh = back.data()
            fresh.answer(fresh.request()[0], ANSWER)
            assert waits.result().status == 200


# --- draining by an operator ---


def drain(hub: ThreadedHub, name: str, what: str = "drain") -> int:
    head = f"Authorization: Bearer {hub.admin_key}\r\n"
    return ask(hub.port, request(f"/hive/v1/nodes/{name}/{what}", {}, head=head)).status


@pytest.mark.parametrize("link", ["dialed", "joined"])
def test_a_drained_node_gets_nothing_new_until_it_is_resumed(
    link: str, engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    with run_hub({"a": engine.url, "b": second_engine.url}, link=link) as hub:
        assert drain(hub, "a") == 200
        assert {str(entry["name"]): entry["status"] for entry in nodes(hub)} == {"a": "draining", "b": "ready"}
        assert {ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") for _ in range(8)} == {"b"}
        assert metric(hub.port, "hive_node_ready", hub.admin_key, node="a") == 0
        assert drain(hub, "b") == 200
        assert drain(hub, "a", "resume") == 200
        assert {ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") for _ in range(8)} == {"a"}


def test_a_drained_node_stays_drained_when_it_comes_back(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        assert drain(hub, "desk") == 200
    with joined(hub, key=node.key) as again:
        assert [entry["status"] for entry in nodes(hub)] == ["draining"]
        again.control.say(Report((an_engine(), an_engine("second"))))
        eventually(lambda: [entry["status"] for entry in nodes(hub)] == ["draining", "draining"])
        assert drain(hub, "desk", "resume") == 200
        assert [entry["status"] for entry in nodes(hub)] == ["ready", "ready"]


def test_a_node_that_drains_by_itself_is_not_resumed_by_an_operator(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        node.control.say(Draining())
        eventually(lambda: states(hub) == {"desk": "draining"})
        assert drain(hub, "desk") == 200
        assert drain(hub, "desk", "resume") == 200
        assert states(hub) == {"desk": "draining"}


def test_a_node_that_drained_by_itself_and_left_is_down_and_trusted_when_it_is_back(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        node.control.say(Draining())
        eventually(lambda: states(hub) == {"desk": "draining"})
    eventually(lambda: states(hub) == {"desk": "down"})
    with joined(hub, key=node.key):
        assert states(hub) == {"desk": "ready"}


def test_a_drained_node_that_leaves_stays_drained_and_is_down_when_it_is_resumed(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        assert drain(hub, "desk") == 200
    eventually(lambda: [entry["heartbeat_age"] for entry in nodes(hub)] == [None])
    assert states(hub) == {"desk": "draining"}
    assert drain(hub, "desk", "resume") == 200
    assert states(hub) == {"desk": "down"}
    assert "left" in why(hub)
    with joined(hub, key=node.key):
        assert states(hub) == {"desk": "probation"}


def test_a_resumed_node_is_not_ready_before_it_gives_a_sign(hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(hub) as node:
        assert drain(hub, "desk") == 200
        monkeypatch.setattr("hive.fleet.health.SUSPECT_AFTER", 0.2)
        hub.until(lambda server: server.hub.now() - server.hub.fleet.engines[0].signs.last_sign > 0.2)
        assert drain(hub, "desk", "resume") == 200
        assert states(hub)["desk"] in ("joining", "suspect")
        monkeypatch.setattr("hive.fleet.health.SUSPECT_AFTER", 5.0)
        node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True)}))
        eventually(lambda: states(hub) == {"desk": "ready"})


def test_a_node_on_probation_gets_one_exchange_at_a_time_until_it_has_served_three(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        pass
    eventually(lambda: states(hub) == {"desk": "down"})
    with joined(hub, key=node.key) as again, ThreadPoolExecutor(8) as pool:
        data = [again.data() for _ in range(3)]
        answers = [pool.submit(ask, hub.port, request(body=GENERATE)) for _ in range(6)]
        hub.until(lambda server: server.hub.queue.waiting_count == 5)
        for served in range(3):
            assert states(hub) == {"desk": "probation"}
            assert hub.call(lambda server: server.hub.fleet.engines[0].running.count) == 1
            data[-1].answer(data[-1].request()[0], ANSWER)
            hub.until(lambda server, done=6 - served: len(server.hub.register.running) == done - 1)  # type: ignore[misc]
        eventually(lambda: states(hub) == {"desk": "ready"})
        hub.until(lambda server: server.hub.fleet.engines[0].running.count == 3)
        for wire in data:
            wire.answer(wire.request()[0], ANSWER)
        assert [answer.result().status for answer in answers] == [200] * 6


def test_an_unknown_node_cannot_be_drained(hub: ThreadedHub) -> None:
    assert drain(hub, "nobody") == 404


# --- reports ---


def test_a_report_changes_what_the_fleet_has(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        more = json_object(json.dumps({"models": [*TAGS["models"], {"name": "new"}]}).encode())
        node.control.say(Report((an_engine(tags=more),)))
        eventually(lambda: sorted(models(hub)) == ["new", "tiny:latest"])
        node.control.say(Report((an_engine(is_alive=False, error="connection refused"),)))
        eventually(lambda: states(hub) == {"desk": "down"})
        assert why(hub) == "connection refused"
        node.control.say(Report((an_engine(),)))
        eventually(lambda: states(hub) == {"desk": "probation"})
        node.control.say(Report((an_engine("other"),)))
        eventually(lambda: [entry["engine"] for entry in nodes(hub)] == ["other"])


LIES = {
    "no list": {"tags": json_object(b"{}")},
    "a list of numbers": {"tags": json_object(b'{"models":[1,2,{"name":3}]}')},
    "a list that is none": {"tags": json_object(b'{"models":7}')},
    "names that would break a terminal": {"tags": json_object(b'{"models":[{"name":"a\\u001b[2J"},{"name":"\\n"}]}')},
    "a very long name": {"tags": json_object(b'{"models":[{"name":"' + b"x" * 100_000 + b'"}]}')},
    "a size beyond numbers": {"tags": json_object(b'{"models":[{"name":"a","size":1e999}]}')},
    "a fat entry": {"tags": json_object(b'{"models":[{"name":"a","x":"' + b"x" * 1_000_000 + b'"}]}')},
    "another kind": {"kind": "ollama 2 \u202e"},
    "no models of vLLM": {"kind": "vllm"},
    "many slots": {"slots": 4096},
    "deep": {"tags": json_object(b'{"models":[{"name":"a","x":' + b"[" * 500 + b"]" * 500 + b"}]}")},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_node_that_lies_harms_no_other_node(hub: ThreadedHub, lie: dict[str, object]) -> None:
    with joined(hub, "liar", an_engine(**lie)), joined(hub, "honest") as honest, ThreadPoolExecutor() as pool:
        assert "tiny:latest" in models(hub)
        assert len(ask(hub.port, get("/api/tags")).body) < 100_000
        nodes(hub)
        drain(hub, "liar")
        data = honest.data()
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        data.answer(data.request()[0], ANSWER)
        assert answer.result().header("X-Hive-Node") == "honest"
        assert pool_of(hub, "liar").limit <= MAX_LINKS


def test_a_flood_of_large_reports_is_read_now_and_then(hub: ThreadedHub) -> None:
    entries = [{"name": f"model-{number}", "size": number, "digest": "d" * 64} for number in range(1_900)]
    with joined(hub) as node:
        for number in range(6):
            entries[0]["size"] = number
            node.control.say(Report((an_engine(tags=json_object(json.dumps({"models": entries}).encode())),)))
        node.control.say(Heartbeat(1, MachineState(), {"ollama": EngineBeat(True)}))
        node.control.text("beat")
        learned = hub.call(lambda server: server.hub.joining.nodes["desk"].reports._pending)
        assert learned is not None  # the last one waits for its turn

        def is_learned() -> bool:
            node.control.say(Heartbeat(2))
            return hub.call(lambda s: s.hub.fleet.engines[0].known.models["model-0:latest"].size_bytes) == 5

        eventually(is_learned, 15)


def test_other_slots_change_what_runs_at_once_and_how_many_sockets_are_wanted(hub: ThreadedHub) -> None:
    with joined(hub, "desk", an_engine(slots=1)) as node, ThreadPoolExecutor() as pool:
        wires = [node.data(), node.data()]
        first = pool.submit(ask, hub.port, request(body=GENERATE))
        wires[1].say(Accepted(wires[1].request()[0]))
        second = pool.submit(ask, hub.port, request(body=GENERATE))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        node.control.say(Report((an_engine(slots=2),)))
        wires[0].answer(wires[0].request()[0], ANSWER)
        assert second.result().body == OK
        assert pool_of(hub).limit == 2 + SPARE_LINKS
        node.control.say(Report((an_engine(slots=1),)))
        eventually(lambda: pool_of(hub).limit == 1 + SPARE_LINKS)
        wires[1].say(ANSWER, Ended("1"))
        assert first.result().body == OK


def test_a_report_is_told_to_the_queue_when_all_of_it_is_known(hub: ThreadedHub) -> None:
    """What waits is spread over all engines of the report, and the fleet is indexed once for them."""
    names = "a", "b", "c", "d"
    with joined(hub, "desk", *(an_engine(name) for name in names)) as node:
        wires = [node.data() for _ in names]
        node.control.say(Report(tuple(an_engine(name, is_alive=False) for name in names)))
        eventually(lambda: states(hub) == {"desk": "down"})
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(ask, hub.port, request(body=GENERATE)) for _ in names]
            hub.until(lambda server: server.hub.queue.waiting_count == len(names))
            node.control.say(Report(tuple(an_engine(name) for name in names)))
            opened = [data.text("open") for data in wires]
            assert {one["engine"] for one in opened} == set(names)
            for data, one in zip(wires, opened, strict=True):
                data.answer(str(one["id"]), ANSWER)
            assert [answer.result().body for answer in answers] == [OK] * len(names)


def test_complaints_about_a_node_are_logged_by_its_name_and_not_for_ever(
    hub: ThreadedHub, caplog: pytest.LogCaptureFixture
) -> None:
    key = hub.create_key("desk", "worker")
    with caplog.at_level(logging.WARNING):
        for _ in range(MAX_COMPLAINTS + 5):
            with NodeWire(hub, key) as wire:
                wire.say("nonsense")
                assert wire.code == 4000
    lines = [record.getMessage() for record in caplog.records if "node desk" in record.getMessage()]
    assert len(lines) == MAX_COMPLAINTS + 1


def test_an_unload_through_the_hub_asks_the_node_for_a_report(hub: ThreadedHub) -> None:
    with joined(hub) as node, ThreadPoolExecutor() as pool:
        data = node.data()
        answer = pool.submit(ask, hub.port, request(body={**GENERATE, "keep_alive": 0}))
        data.answer(data.request()[0], ANSWER)
        assert answer.result().status == 200
        assert node.control.text("refresh") == {"type": "refresh", "engine": "ollama"}


# --- the pool ---


def test_the_pool_follows_its_use(hub: ThreadedHub) -> None:
    options = SimOptions(slots=32, tokens_per_second=20, default_tokens=400)
    with (
        run_in_thread(options) as engine,
        run_agent(hub.url, hub.create_key("desk", "worker"), {"ollama": engine.url}, slots=32) as agent,
    ):
        eventually(lambda: states(hub) == {"desk": "ready"})
        eventually(lambda: len(pool_of(hub)) == SPARE_LINKS)
        wires = [Wire(hub.port) for _ in range(32)]
        for wire in wires:
            wire.send(request(body=STREAM))
        engine.until(lambda state: state.running == 32)
        assert pool_of(hub).want == 36
        for wire in wires:
            wire.sock.close()
        engine.until(lambda state: state.running == 0)
        eventually(lambda: pool_of(hub).spares == 36)

        def a_quiet_minute(server: object) -> None:
            pool = pool_of_server(server)
            pool.tick(server.hub.now() + 61)  # type: ignore[attr-defined]
            pool.tick(server.hub.now() + 122)  # type: ignore[attr-defined]

        hub.call(a_quiet_minute)
        assert pool_of(hub).want == SPARE_LINKS
        eventually(lambda: len(pool_of(hub)) == SPARE_LINKS)
        assert agent.call(lambda one: one.want) == SPARE_LINKS


def pool_of_server(server: object) -> object:
    return server.hub.joining.nodes["desk"].pool  # type: ignore[attr-defined]


def test_a_request_waits_for_a_socket_that_is_under_way(hub: ThreadedHub) -> None:
    with joined(hub) as node, ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        eventually(lambda: hub.call(lambda _: len(pool_of_server(_)._waiters)) == 1)  # type: ignore[attr-defined]
        data = node.data()
        data.answer(data.request()[0], ANSWER)
        assert answer.result().body == OK


def test_a_node_that_dials_no_socket_gets_a_rest_and_is_not_down(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub), ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        eventually(lambda: hub.call(lambda s: s.hub.fleet.engines[0].running.rests_until) > 0)
        assert states(hub) == {"desk": "ready"}
        with run_agent(hub.url, hub.create_key("other", "worker"), {"engine": engine.url}):
            assert answer.result().header("X-Hive-Node") == "other"


def test_a_client_that_leaves_while_it_waits_for_a_socket_leaves_nothing(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            eventually(lambda: hub.call(lambda _: len(pool_of_server(_)._waiters)) == 1)  # type: ignore[attr-defined]
        eventually(lambda: hub.call(lambda _: len(pool_of_server(_)._waiters)) == 0)  # type: ignore[attr-defined]
        node.data()
        assert pool_of(hub).spares == 1


# --- the end ---


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_hub_that_stops_says_bye_and_closes_its_links_itself_when_what_runs_has_ended(use_uvloop: bool) -> None:
    with run_hub({}, link="dialed", use_uvloop=use_uvloop, drain_timeout=5) as hub, joined(hub) as node:
        data, spare = node.data(), node.data()
        with Wire(hub.port) as wire:
            wire.send(request(body=STREAM))
            exchange = spare.request()[0]
            spare.say(Accepted(exchange), BEGUN)
            wire.until(LINE)
            hub.begin_stop()
            assert node.control.text("bye")["reason"] == "the hub stops"
            spare.say(b'1c\r\n{"response":"","done":true}\n\r\n0\r\n\r\n', Ended(exchange))
            assert wire.rest().endswith(b'"done":true}\n\r\n0\r\n\r\n')
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        assert (node.control.code, data.code, spare.code) == (1001, 1001, 1001)
        stopper.join(5)


def test_a_hub_that_stops_opens_what_waits_on_the_links_there_are() -> None:
    with (
        run_hub({}, link="dialed", drain_timeout=5) as hub,
        joined(hub, "desk", an_engine(slots=1)) as node,
        ThreadPoolExecutor() as pool,
    ):
        data = node.data()
        answers = [pool.submit(ask, hub.port, request(body=GENERATE)) for _ in range(2)]
        first = data.request()[0]
        data.say(Accepted(first))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        hub.begin_stop()
        node.control.text("bye")
        data.say(ANSWER, Ended(first))
        data.answer(data.request()[0], ANSWER)
        assert [answer.result().body for answer in answers] == [OK, OK]
        assert (node.control.code, data.code) == (1001, 1001)


def test_a_hub_that_stops_lets_no_node_in_any_more() -> None:
    """Its connection was open before, and it has only now said what it is."""
    with run_hub({}, link="dialed", drain_timeout=5) as hub, joined(hub) as node, ThreadPoolExecutor() as pool:
        data = node.data()
        answer = pool.submit(ask, hub.port, request(body=GENERATE))
        exchange = data.request()[0]
        data.say(Accepted(exchange))
        with NodeWire(hub, hub.create_key("late", "worker")) as late:
            hub.begin_stop()
            node.control.text("bye")
            late.say(HELLO)
            assert (late.code, late.reason) == (1001, "the hub stops")
        data.say(ANSWER, Ended(exchange))
        assert answer.result().body == OK


def test_an_agent_comes_back_after_the_hub_was_lost(engine: ThreadedEngine) -> None:
    def is_back(agent: AgentDouble) -> bool:
        return agent.control is not None and bool(agent.data)

    with run_hub({"a": engine.url}, link="joined") as hub:
        agent = hub.agents["a"]
        for _ in range(2):
            agent.call(lambda one: one.kill())
            eventually(lambda: agent.call(is_back))
            eventually(lambda: states(hub) == {"a": "probation"})
            assert ask(hub.port, request(body=GENERATE)).status == 200
