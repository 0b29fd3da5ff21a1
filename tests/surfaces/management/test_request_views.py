"""What the hub tells of requests: those that wait and why, those that run and how far, those that ended and where."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from hive.config import NodeSettings
from hive.fleet.engines import Health
from hive.hub.records import Record
from hive.surfaces.management.request_routes import EndedView
from hive.testing import SimOptions, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from ...raw import GENERATE, STREAM, Answer, Wire, ask, eventually, request

OK = b'{"response":"whole","done":true}'
Entry = dict[str, object]


def holds(call: Call) -> None:
    """Take a request and say nothing until the hub leaves."""
    call.wait_for_departure()


def call(hub: ThreadedHub, path: str, method: str = "GET") -> Answer:
    return ask(hub.port, request(f"/hive/v1{path}", method=method, head=f"Authorization: Bearer {hub.admin_key}\r\n"))


def queue(hub: ThreadedHub) -> Entry:
    return call(hub, "/queue").json()


def running(hub: ThreadedHub) -> list[Entry]:
    return call(hub, "/requests?state=running").json()["running"]


def ended(hub: ThreadedHub) -> list[Entry]:
    return call(hub, "/requests?state=ended").json()["ended"]


def queue_only(hub: ThreadedHub) -> list[Entry]:
    listed = call(hub, "/requests?state=queued").json()
    assert listed["ended"] == []
    return listed["running"]


def one(hub: ThreadedHub, entry: Entry) -> Entry:
    return call(hub, f"/requests/{entry['request_id']}").json()


def until_waiting(hub: ThreadedHub, count: int) -> None:
    hub.until(lambda server: server.hub.queue.waiting_count == count)


# --- the queue ---


def test_an_empty_queue() -> None:
    with run_hub({}) as hub:
        nothing = {"waiting": 0, "limit": 1000, "served_per_second": None, "models": [], "tickets": [], "loads": []}
        assert queue(hub) == nothing


def test_the_queue_names_models_and_tickets_the_oldest_first() -> None:
    with (
        run_scripted(holds, models=("tiny:latest", "other:latest")) as engine,
        run_hub({"a": engine.url}, slots=1, queue_limit=7) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
        Wire(hub.port) as third,
        Wire(hub.port) as fourth,
    ):
        head = f"Authorization: Bearer {hub.create_key('alice')}\r\n"
        first.send(request(body=GENERATE))
        engine.call_number(0)
        second.send(request("/api/chat", {"model": "other", "messages": []}, head=head))
        until_waiting(hub, 1)
        for wire, count in ((third, 2), (fourth, 3)):
            wire.send(request(body=GENERATE))
            until_waiting(hub, count)
        seen = queue(hub)
        assert (seen["waiting"], seen["limit"], seen["loads"]) == (3, 7, [])
        assert [(each["model"], each["waiting"], each["nodes"], each["loading_on"]) for each in seen["models"]] == [
            ("other:latest", 1, ["a"], []),
            ("tiny:latest", 2, ["a"], []),
        ]
        tickets = seen["tickets"]
        assert [(each["operation"], each["model"], each["key"], each["attempts"]) for each in tickets] == [
            ("chat", "other:latest", "alice", 0),
            ("generate", "tiny:latest", "", 0),
            ("generate", "tiny:latest", "", 0),
        ]
        waits = [each["waited_s"] for each in tickets]
        assert waits == sorted(waits, reverse=True)
        assert [each["oldest_wait_s"] for each in seen["models"]] == waits[:2]
        by_age = [each["request_id"] for each in reversed(running(hub))]
        assert [each["request_id"] for each in tickets] == by_age[1:]


def test_the_pace_is_known_once_a_request_was_served() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}) as hub:
        ask(hub.port, request(body=GENERATE))
        eventually(lambda: queue(hub)["served_per_second"] is not None)
        assert 0 < queue(hub)["served_per_second"] < 3


def test_a_load_is_listed_with_what_goes_for_it() -> None:
    options = SimOptions(models=("tiny", "other"), slots=1, load_time=2)
    with run_in_thread(options) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request(body=GENERATE))
        until_waiting(hub, 1)
        seen = queue(hub)
        (load,) = seen["loads"]
        assert (load["node"], load["model"], load["unload"]) == ("a", "tiny:latest", [])
        assert load["reason"] == "soonest to load it"
        assert 0 <= load["seconds"] < 2
        (model,) = seen["models"]
        assert (model["model"], model["nodes"], model["loading_on"]) == ("tiny:latest", ["a"], ["a"])
        (entry,) = running(hub)
        waits = one(hub, entry)["waits"]
        assert waits["reason"] == "its model is being loaded"
        assert [each["reason"] for each in waits["nodes"]] == ["it loads the model"]
        assert wire.answer().status == 200
        assert queue(hub)["loads"] == []


# --- what runs ---


def in_state(hub: ThreadedHub, state: str) -> Entry:
    """Return the only request in a state, once there is one."""
    eventually(lambda: [entry["state"] for entry in running(hub)].count(state) == 1)
    return next(entry for entry in running(hub) if entry["state"] == state)


def test_a_request_runs_from_queued_to_answering() -> None:
    turns: list[Callable[[], None]] = []

    def script(call: Call) -> None:
        eventually(lambda: len(turns) == 1)
        call.begin()
        call.chunk(b'{"response":"a","done":false}\n')
        eventually(lambda: len(turns) == 2)
        call.chunk(b'{"response":"","done":true}\n')
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        head = f"Authorization: Bearer {hub.create_key('alice')}\r\n"
        wire.send(request(body=STREAM, head=head))
        engine.call_number(0)
        sent = in_state(hub, "sent")
        assert sent | {"age_ms": 0, "queued_ms": 0} == {
            "request_id": sent["request_id"],
            "operation": "generate",
            "key": "alice",
            "model": "tiny:latest",
            "state": "sent",
            "node": "a",
            "attempts": 1,
            "queued_ms": 0,
            "first_byte_ms": None,
            "age_ms": 0,
            "bytes_out": 0,
        }
        with Wire(hub.port) as other:
            other.send(request(body=STREAM))
            queued = in_state(hub, "queued")
            assert (queued["node"], queued["attempts"], queued["key"]) == ("", 0, "")
            assert [entry["state"] for entry in running(hub)] == ["queued", "sent"]
            assert [each["request_id"] for each in queue_only(hub)] == [queued["request_id"]]
            before = time.monotonic()
            first = one(hub, queued)
            second = one(hub, queued)
            assert 0 < first["queued_ms"] <= first["age_ms"]
            assert 0 < second["age_ms"] - first["age_ms"] <= (time.monotonic() - before) * 1000 + 1
        turns.append(wire.sock.close)
        answering = in_state(hub, "answering")
        assert answering["bytes_out"] == len(b'{"response":"a","done":false}\n')
        assert 0 < answering["first_byte_ms"] <= answering["age_ms"]
        assert queue_only(hub) == []
        turns.append(wire.sock.close)
        assert wire.answer().is_whole
        assert running(hub) == []
        assert answering["request_id"] == sent["request_id"]


def test_a_request_whose_model_is_looked_for_is_being_read() -> None:
    with run_in_thread(SimOptions()) as engine:
        engine.set_fault("freeze")
        nodes = {"a": engine.url}
        with run_hub(nodes, link="dialed", wait=False, probe_timeout=30) as hub, Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            entry = in_state(hub, "reading")
            assert (entry["model"], entry["operation"], entry["node"]) == ("", "generate", "")
            assert (one(hub, entry)["decisions"], one(hub, entry)["waits"]) == ([], None)
            engine.clear_faults()


def test_a_limit_keeps_the_newest() -> None:
    with run_scripted(holds) as engine, run_hub({"a": engine.url}, slots=1) as hub:
        wires = [Wire(hub.port) for _ in range(4)]
        for count, wire in enumerate(wires):
            wire.send(request(body=GENERATE))
            until_waiting(hub, count) if count else engine.call_number(0)
        everything = running(hub)
        assert [entry["state"] for entry in everything] == ["queued", "queued", "queued", "sent"]
        newest = call(hub, "/requests?limit=2").json()["running"]
        assert [entry["request_id"] for entry in newest] == [entry["request_id"] for entry in everything[:2]]
        for wire in wires:
            wire.sock.close()


# --- why it waits ---


def test_a_request_that_waits_says_why_with_its_nodes() -> None:
    with (
        run_scripted(holds) as engine,
        run_hub({"a": engine.url}, slots=1) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
        Wire(hub.port) as third,
    ):
        first.send(request(body=GENERATE))
        engine.call_number(0)
        for count, wire in enumerate((second, third), 1):
            wire.send(request(body=GENERATE))
            until_waiting(hub, count)
        newest, older, oldest = (one(hub, entry) for entry in running(hub))
        (name,) = {node["engine"] for node in newest["waits"]["nodes"]}
        assert newest["waits"] == {
            "reason": "its engines are busy",
            "ahead": 1,
            "nodes": [
                {
                    "node": "a",
                    "engine": name,
                    "status": "ready",
                    "running": 1,
                    "slots": 1,
                    "reason": "its slots are taken",
                }
            ],
        }
        assert older["waits"]["ahead"] == 0
        assert oldest["waits"] is None


# --- decisions ---


def test_every_attempt_has_its_decision() -> None:
    """The first node breaks off, the other answers: two decisions, with the engines that were considered."""

    def breaks_off(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        call.close()

    nodes = {"bad": breaks_off, "good": lambda call: call.answer(OK)}
    with (
        run_scripted(nodes["bad"]) as bad,
        run_scripted(nodes["good"]) as good,
        run_hub({"bad": bad.url, "good": good.url}, slots=4, policy="round_robin") as hub,
    ):
        for _ in range(2):
            assert ask(hub.port, request(body=GENERATE)).body == OK
        found = [one(hub, entry) for entry in ended(hub)]
        moved = next(entry for entry in found if entry["attempts"] == 2)
        first, second = moved["decisions"]
        assert (first["node"], second["node"], moved["node"]) == ("bad", "good", "good")
        assert (first["policy"], first["running"]) == ("round_robin", 1)
        assert first["reason"] in ("its turn", "the only one free now")
        assert {each["node"] for each in first["candidates"]} >= {"bad"}
        assert [each["node"] for each in second["candidates"]] == ["good"]
        assert all(each.keys() == {"node", "engine", "expected_ms", "weight"} for each in first["candidates"])
        assert all(each["expected_ms"] is None and each["weight"] >= 0 for each in first["candidates"])
        assert second["reason"] == moved["why"]


def test_what_best_compares_is_milliseconds_to_the_first_byte() -> None:
    with (
        run_scripted(lambda call: call.answer(OK)) as engine,
        run_scripted(lambda call: call.answer(OK)) as other,
        run_hub({"a": engine.url, "b": other.url}) as hub,
    ):
        hub.until(lambda server: all(each.health is Health.READY for each in server.hub.fleet.engines))
        ask(hub.port, request(body=GENERATE))
        (entry,) = ended(hub)
        (decision,) = one(hub, entry)["decisions"]
        assert [each["weight"] for each in decision["candidates"]] == [None, None]
        record, leases = hub.call(lambda server: server.hub.register.history[-1])
        expected = {engine.node: round(seconds * 1000, 3) for engine, seconds in leases[0].compared}
        assert {each["node"]: each["expected_ms"] for each in decision["candidates"]} == expected
        assert record.request_id == entry["request_id"]


def test_a_joined_engine_has_its_name_in_a_decision() -> None:
    with (
        run_scripted(lambda call: call.answer(OK)) as engine,
        run_hub({"a": NodeSettings(name="a", url=engine.url)}, link="joined") as hub,
    ):
        ask(hub.port, request(body=GENERATE))
        (entry,) = ended(hub)
        (decision,) = one(hub, entry)["decisions"]
        assert (decision["node"], decision["engine"]) == ("a", "engine")
        assert [(each["node"], each["engine"]) for each in decision["candidates"]] == [("a", "engine")]


# --- what has ended ---


def test_an_ended_request_has_what_its_line_in_the_log_has() -> None:
    assert {each.name for each in dataclasses.fields(EndedView)} == {*Record.__struct_fields__, "state"} - {"event"}
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        (entry,) = ended(hub)
        record, _ = hub.call(lambda server: server.hub.register.history[-1])
        logged = msgspec.to_builtins(record)
        assert {name: entry[name] for name in ("request_id", "node", "why", "outcome", "status", "error")} == {
            "request_id": answer.header("X-Hive-Request-Id"),
            "node": "a",
            "why": "only choice",
            "outcome": "ok",
            "status": 200,
            "error": "",
        }
        assert (entry["bytes_in"], entry["bytes_out"]) == (logged["bytes_in"], len(OK))
        assert entry["state"] == "ended"
        for name in ("queued_ms", "first_byte_ms", "total_ms"):
            assert abs(entry[name] - logged[name]) <= 0.02
        assert abs(datetime.fromisoformat(entry["time"]).timestamp() - time.time()) < 2
        assert one(hub, entry) == {**entry, "decisions": one(hub, entry)["decisions"]}


def test_only_the_last_thousand_are_kept() -> None:
    with run_hub({}) as hub, Wire(hub.port) as wire:
        ids = []
        for _ in range(1002):
            wire.send(request(body=GENERATE))
            ids.append(wire.answer().header("X-Hive-Request-Id"))
        listed = call(hub, "/requests?limit=1000").json()["ended"]
        assert [entry["request_id"] for entry in listed] == ids[:1:-1]
        assert call(hub, f"/requests/{ids[1]}").status == 404
        assert call(hub, f"/requests/{ids[2]}").status == 200


# --- the end before its time ---


def test_a_cancelled_request_is_answered_with_its_entry() -> None:
    with run_scripted(holds) as engine, run_hub({"a": engine.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request("/v1/chat/completions", {"model": "tiny", "messages": []}))
        engine.call_number(0)
        (entry,) = running(hub)
        answer = call(hub, f"/requests/{entry['request_id']}", "DELETE")
        assert answer.status == 200
        gone = answer.json()
        assert (gone["state"], gone["outcome"], gone["error"], gone["status"]) == (
            "ended",
            "cancelled",
            "cancelled",
            410,
        )
        assert (gone["time"] != "", [each["node"] for each in gone["decisions"]]) == (True, ["a"])
        told = wire.answer()
        assert (told.status, told.header("x-should-retry")) == (410, "false")
        assert told.json()["error"] == {
            "message": "an administrator cancelled this request",
            "type": "api_error",
            "param": None,
            "code": "cancelled",
        }
        assert (running(hub), one(hub, entry)) == ([], gone)
        assert call(hub, f"/requests/{entry['request_id']}", "DELETE").status == 409
