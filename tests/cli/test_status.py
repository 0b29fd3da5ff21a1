"""`hive status`: the hub on one screen, and everything about one request, for people."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import run_scripted

from ..raw import GENERATE, Wire, ask, eventually, request
from .conftest import Run

OK = b'{"response":"whole","done":true}'


def fields(out: str) -> dict[str, str]:
    """Return the lines of the form `NAME  value`, by name."""
    found: dict[str, str] = {}
    for line in out.splitlines():
        name, _, value = line.partition("  ")
        found.setdefault(name, value.strip())
    return found


def point(hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_HUB", hub.url)
    monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)


# --- the hub ---


def test_the_hub_is_shown_on_one_screen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        run_scripted(lambda call: call.answer(OK) if not call.number else call.wait_for_departure()) as engine,
        run_hub({"a": engine.url, "dead": "http://127.0.0.1:1"}, slots=1, link="dialed") as hub,
        Wire(hub.port) as sent,
        Wire(hub.port) as queued,
    ):
        point(hub, monkeypatch)
        ask(hub.port, request(body=GENERATE))
        ask(hub.port, request(body={"model": "nope"}))
        for wire in (sent, queued):
            wire.send(request(body=GENERATE))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        eventually(lambda: "1 down" in run("status").out)
        out = run("status").out
        shown = fields(out)
        assert shown["NODES"] == "2: 1 ready, 1 down"
        assert "dead is down: no connection to http://127.0.0.1:1: connection refused" in out
        assert shown["SLOTS"] == "1/1 taken"
        assert shown["QUEUE"].startswith("1 of at most 1000 waiting, ")
        assert shown["RUNNING"] in ("2 requests: 1 queued, 1 sent", "2 requests: 1 sent, 1 queued")
        assert shown["LOADS"] == "none"
        assert shown["LAST MINUTE"] in (
            "2 requests ended: 1 ok, 1 client_error",
            "2 requests ended: 1 client_error, 1 ok",
        )
        programs = json.loads(run("status", "--json").out)
        assert programs.keys() == {"nodes", "queue", "requests"}
        assert [node["name"] for node in programs["nodes"]["nodes"]] == ["a", "dead"]
        assert programs["queue"]["waiting"] == 1
        assert len(programs["requests"]["running"]) == len(programs["requests"]["ended"]) == 2


def test_a_hub_without_nodes_and_requests_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_hub({}) as hub:
        point(hub, monkeypatch)
        shown = fields(run("status").out)
    assert (shown["NODES"], shown["SLOTS"], shown["RUNNING"]) == ("0", "0/0 taken", "0 requests")
    assert shown["LAST MINUTE"] == "0 requests ended"


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ended(age: float, outcome: str = "ok") -> dict[str, object]:
    """Return an ended request as the API lists it."""
    words = dict.fromkeys(("request_id", "operation", "key", "model", "error", "node", "why"), "")
    lengths = dict.fromkeys(("queued_ms", "first_byte_ms", "total_ms"), 1.0)
    numbers = dict.fromkeys(("status", "attempts", "bytes_in", "bytes_out"), 1)
    return {**words, **lengths, **numbers, "outcome": outcome, "time": (NOW - timedelta(seconds=age)).isoformat()}


def node(name: str, status: str = "ready", engine: str | None = None) -> dict[str, object]:
    """Return an engine as the API lists it."""
    error = None if status == "ready" else "gone\x1b[31m"
    return {"name": name, "status": status, "engine": engine, "slots": 4, "running": 1, "error": error}


class Canned(BaseHTTPRequestHandler):
    """A hub whose answers a test writes."""

    answers: dict[str, object]

    def do_GET(self) -> None:
        body = json.dumps(self.answers[self.path.partition("?")[0].removeprefix("/hive/v1/")]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so by http.server
        """Keep quiet."""


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Return the answers of a hub to which HIVE_HUB points; the test fills them in."""
    Canned.answers = {
        "nodes": {"nodes": []},
        "queue": {"waiting": 0, "limit": 9, "served_per_second": 2.5, "models": [], "loads": []},
        "requests": {"time": NOW.isoformat(), "running": [], "ended": []},
    }
    with HTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HIVE_HUB", f"http://127.0.0.1:{server.server_port}")
        yield Canned.answers
        server.shutdown()
        thread.join()


def test_only_requests_of_the_last_minute_count_by_the_hubs_clock(run: Run, canned: dict[str, object]) -> None:
    canned["requests"]["ended"] = [ended(1), ended(30, "node_error"), ended(60), ended(61), ended(600)]
    assert fields(run("status").out)["LAST MINUTE"] == "3 requests ended: 2 ok, 1 node_error"
    canned["requests"]["ended"] = [ended(1)]
    assert fields(run("status").out)["LAST MINUTE"] == "1 request ended: 1 ok"


def test_a_minute_with_more_requests_than_the_hub_keeps_says_how_long_it_covers(
    run: Run, canned: dict[str, object]
) -> None:
    canned["requests"]["ended"] = [ended(number / 100) for number in range(1000)]
    said = "1000 requests ended: 1000 ok (all that the hub keeps: 10 s)"
    assert fields(run("status").out)["LAST MINUTE"] == said


def test_engines_of_one_node_are_counted_separately_and_those_not_ready_are_named(
    run: Run, canned: dict[str, object]
) -> None:
    canned["nodes"]["nodes"] = [node("a", engine="ollama"), node("a", "down", "vllm"), node("b", "suspect")]
    out = run("status").out
    assert fields(out)["NODES"] == "3 engines on 2 nodes: 1 ready, 1 down, 1 suspect"
    assert "a, vllm is down: gone\ufffd[31m\n" in out
    assert "b is suspect: gone\ufffd[31m\n" in out
    assert fields(out)["SLOTS"] == "1/4 taken, and 2 on nodes out of service"
    canned["nodes"]["nodes"] = [node(f"n{number}", "down") for number in range(9)]
    out = run("status").out
    assert out.count(" is down") == 5
    assert "and 4 more\n" in out


@pytest.mark.parametrize(
    ("status", "slots"),
    [
        ("ready", "2/8 taken"),
        ("probation", "2/8 taken"),
        ("draining", "1/4 taken, and 1 on nodes out of service"),
        ("joining", "1/4 taken, and 1 on nodes out of service"),
        ("doubtful", "1/4 taken, and 1 on nodes out of service"),
    ],
)
def test_only_slots_of_engines_in_service_are_added_up(
    run: Run, canned: dict[str, object], status: str, slots: str
) -> None:
    canned["nodes"]["nodes"] = [node("a"), node("b", status)]
    assert fields(run("status").out)["SLOTS"] == slots
    canned["nodes"]["nodes"] = [node("a"), {**node("b", "draining"), "running": 0}]
    assert fields(run("status").out)["SLOTS"] == "1/4 taken"


def test_every_load_has_a_line(run: Run, canned: dict[str, object]) -> None:
    load = {"node": "a", "engine": None, "model": "m:latest", "reason": "soonest to load it", "seconds": 12.0}
    canned["queue"]["loads"] = [load, {**load, "node": "b", "seconds": 200.0}]
    out = run("status").out
    assert fields(out)["LOADS"] == "a loads m:latest since 12 s"
    assert "             b loads m:latest since 3 min\n" in out


# --- one request ---


def test_an_ended_request_is_shown_with_its_decisions(
    run: Run, monkeypatch: pytest.MonkeyPatch, engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    with run_hub({"a": engine.url, "b": second_engine.url}, link="dialed", policy="least_busy") as hub:
        point(hub, monkeypatch)
        engine.set_fault("error-500", "out of memory")
        second_engine.set_fault("error-500", "out of memory")
        head = f"Authorization: Bearer {hub.create_key('alice')}\r\n"
        answer = ask(hub.port, request(body=GENERATE, head=head))
        name = answer.header("X-Hive-Request-Id") or ""
        out = run("status", name).out
        shown = fields(out)
        assert (shown["REQUEST"], shown["WHAT"], shown["KEY"]) == (name, "generate of tiny:latest", "alice")
        assert shown["STATE"] == "ended: node_error (engine_refused), status 500"
        assert shown["ATTEMPTS"] == "2"
        assert (shown["RECEIVED"], shown["SENT"]) == ("53 B", f"{len(answer.body)} B")
        lines = out.splitlines()
        first, second = (next(n for n, line in enumerate(lines) if line.startswith(f"{k}. To ")) for k in (1, 2))
        assert {lines[first].split()[2], lines[second].split()[2]} == {"a", "b"}
        assert lines[first].endswith("nothing else ran there.")
        assert lines[first + 1] == "   It waited before: its model is being loaded."
        first += 1
        assert lines[first + 1] == "   It came to nothing: it answered 500."
        assert lines[first + 2].split() == ["CANDIDATE", "WEIGHT", "(LEAST", "WINS)", "CHOSEN"]
        assert any(line.split() == [lines[first - 1].split()[2], "0", "yes"] for line in lines[first + 3 : second])
        shown_to_programs = json.loads(run("status", name, "--json").out)
        assert (shown_to_programs["state"], len(shown_to_programs["decisions"])) == ("ended", 2)


def test_a_waiting_request_is_shown_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        run_scripted(lambda call: call.wait_for_departure()) as engine,
        run_hub({"a": engine.url}, slots=1, link="dialed") as hub,
        Wire(hub.port) as sent,
        Wire(hub.port) as queued,
    ):
        point(hub, monkeypatch)
        sent.send(request(body=GENERATE))
        engine.call_number(0)
        queued.send(request(body=GENERATE))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        waits, runs = (each["request_id"] for each in json.loads(run("requests", "--json").out)["running"])
        out = run("status", waits).out
        assert (fields(out)["STATE"], fields(out)["NODE"], fields(out)["FIRST BYTE"]) == ("queued", "-", "-")
        assert fields(out)["TOTAL"].endswith(" so far")
        assert "It waits: its engines are busy; 0 before it for the same model.\n" in out
        head, row = out.splitlines()[-2:]
        assert head.split() == ["NODE", "STATUS", "BUSY", "WHY", "NOT"]
        assert row.split() == ["a", "ready", "1/1", "its", "slots", "are", "taken"]
        out = run("status", runs).out
        assert (fields(out)["STATE"], fields(out)["NODE"]) == ("sent", "a")
        assert out.splitlines()[-1].startswith("1. To a (best: only ")
        assert out.splitlines()[-1].endswith("); nothing else ran there.")


def test_an_unknown_request_is_one_sentence(run: Run, hub: str) -> None:
    unknown = run("status", "req_nobody")
    assert unknown.code == 1
    kept = "kept are requests to engines, the last 1,000 since the hub started"
    assert unknown.err == f"hive: there is no request 'req_nobody': {kept}\n"


def told(policy: str, candidates: list[dict[str, object]], reason: str = "r") -> dict[str, object]:
    """Return a request that ended, with one decision."""
    decision = {"policy": policy, "reason": reason, "node": "a", "engine": None, "running": 3, "failure": ""}
    detail = {"request_id": "req_1", "state": "ended", "decisions": [{**decision, "candidates": candidates}]}
    return {**ended(1), **detail}


def candidate(name: str, expected: float | None = None, weight: float | None = None) -> dict[str, object]:
    return {"node": name, "engine": None, "expected_ms": expected, "weight": weight}


def test_the_time_that_best_expected_has_three_digits(run: Run, canned: dict[str, object]) -> None:
    expected = {"a": 0.312, "b": 12.345, "c": 234.5, "d": 999.7, "e": 61_000.0}
    canned["requests/req_1"] = told("best", [candidate(name, each) for name, each in expected.items()])
    lines = [line.split() for line in run("status", "req_1").out.splitlines()[-7:]]
    assert lines[0] == ["1.", "To", "a", "(best:", "r);", "2", "ran", "there", "already."]
    assert lines[1] == ["CANDIDATE", "FIRST", "BYTE", "EXPECTED", "CHOSEN"]
    assert lines[2] == ["a", "0.312", "ms", "yes"]
    assert [line[1:] for line in lines[3:]] == [
        ["12.3", "ms", "no"],
        ["234", "ms", "no"],
        ["1.0", "s", "no"],
        ["61", "s", "no"],
    ]


def test_the_number_that_another_policy_compared_is_a_weight(run: Run, canned: dict[str, object]) -> None:
    weights = {"a": 0.0, "b": 1 / 3, "c": 1_234_567.0}
    canned["requests/req_1"] = told("least_busy", [candidate(name, None, each) for name, each in weights.items()])
    lines = [line.split() for line in run("status", "req_1").out.splitlines()[-4:]]
    assert lines[0] == ["CANDIDATE", "WEIGHT", "(LEAST", "WINS)", "CHOSEN"]
    assert lines[1:] == [["a", "0", "yes"], ["b", "0.333", "no"], ["c", "1234567", "no"]]


def test_an_ended_request_shows_what_it_waited_for_and_its_clients_error(run: Run, canned: dict[str, object]) -> None:
    answer = told("best", [candidate("a")])
    answer["decisions"][0]["waited_for"] = "its model is being loaded"  # type: ignore[index]
    answer["detail"] = "node 'a': it fell silent for 10 s inside its answer"
    canned["requests/req_1"] = answer
    out = run("status", "req_1").out
    assert "   It waited before: its model is being loaded.\n" in out
    assert fields(out)["REASON"] == "node 'a': it fell silent for 10 s inside its answer"


def test_a_single_candidate_has_no_table(run: Run, canned: dict[str, object]) -> None:
    canned["requests/req_1"] = told("best", [candidate("a")])
    assert "CANDIDATE" not in run("status", "req_1").out
