"""`hive queue` and `hive requests`: against a hub on which one request runs, one waits, and some have ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from ..raw import GENERATE, Wire, ask, request
from .conftest import Run

OK = b'{"response":"whole","done":true}'
COLUMNS = "REQUEST STATE OPERATION MODEL NODE KEY QUEUED FIRST BYTE TOTAL SENT ENDED"


@dataclass
class Busy:
    """A hub with running and waiting requests, and the clients of those requests."""

    hub: ThreadedHub
    sent: Wire
    queued: Wire

    def ids(self) -> list[str]:
        """Return the ids of running requests, the newest first."""
        answer = ask(self.hub.port, request("/hive/v1/requests", method="GET", head=self.head))
        return [each["request_id"] for each in answer.json()["running"]]

    @property
    def head(self) -> str:
        return f"Authorization: Bearer {self.hub.admin_key}\r\n"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    """One slot: alice's chat has ended, a generate runs, another waits; HIVE_HUB and HIVE_API_KEY point to the hub."""

    def script(call: Call) -> None:
        call.answer(OK) if call.path == "/api/chat" else call.wait_for_departure()

    with (
        run_scripted(script, models=("tiny:latest", "other:latest")) as engine,
        run_hub({"a": engine.url}, slots=1, link="dialed") as hub,
        Wire(hub.port) as sent,
        Wire(hub.port) as queued,
    ):
        head = f"Authorization: Bearer {hub.create_key('alice')}\r\n"
        ask(hub.port, request("/api/chat", {"model": "other", "messages": []}, head=head))
        ask(hub.port, request(body={"model": "nope"}))
        sent.send(request(body=GENERATE))
        engine.call_number(1)
        queued.send(request(body=GENERATE))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        monkeypatch.setenv("HIVE_HUB", hub.url)
        monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)
        yield Busy(hub, sent, queued)


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_the_queue_is_a_table_with_its_totals(run: Run, busy: Busy) -> None:
    head, row, totals = run("queue").out.splitlines()
    assert head.split() == ["MODEL", "WAITING", "OLDEST", "NODES", "LOADING"]
    model, waiting, _, unit, nodes, loading = row.split()
    assert (model, waiting, nodes, loading) == ("tiny:latest", "1", "a", "-")
    assert unit in ("ms", "s")
    assert totals.startswith("1 of at most 1000 waiting, ")
    assert totals.endswith("; 0 loading")


def test_an_empty_queue_has_columns_and_totals(run: Run, hub: str) -> None:
    assert rows(run("queue").out) == [
        ["MODEL", "WAITING", "OLDEST", "NODES", "LOADING"],
        ["0", "of", "at", "most", "1000", "waiting,", "none", "served", "lately;", "0", "loading"],
    ]


def test_the_queue_as_json_is_the_answer_of_the_api(run: Run, busy: Busy) -> None:
    shown = json.loads(run("queue", "--json").out)
    assert (shown["waiting"], shown["limit"]) == (1, 1000)
    assert [each["request_id"] for each in shown["tickets"]] == busy.ids()[:1]


def test_running_requests_are_listed_before_ended_ones_newest_first(run: Run, busy: Busy) -> None:
    head, *found = rows(run("requests").out)
    assert " ".join(head) == COLUMNS
    assert [row[1] for row in found] == ["queued", "sent", "client_error", "ok"]
    queued, sent, failed, ended = found
    assert [queued[0], sent[0]] == busy.ids()
    assert queued[2:6] == ["generate", "tiny:latest", "-", "-"]
    assert sent[2:6] == ["generate", "tiny:latest", "a", "-"]
    assert failed[2:6] == ["(model_not_found)", "generate", "-", "-"]
    assert ended[2:6] == ["chat", "other:latest", "a", "alice"]
    assert (ended[-1], queued[-1]) == ("ago", "-")


@pytest.mark.parametrize(
    ("options", "states"),
    [
        (("--state", "running"), ["queued", "sent"]),
        (("--state", "ended"), ["client_error", "ok"]),
        (("--model", "OTHER"), ["ok"]),
        (("--node", "a"), ["sent", "ok"]),
        (("--key", "alice"), ["ok"]),
        (("--state", "queued"), ["queued"]),
        (("--key", "admin"), []),
        (("--limit", "1"), ["queued", "client_error"]),
        (("--state", "ended", "--node", "a", "--model", "tiny"), []),
    ],
)
def test_requests_are_filtered(run: Run, busy: Busy, options: tuple[str, ...], states: list[str]) -> None:
    assert [row[1] for row in rows(run("requests", *options).out)[1:]] == states
    shown = json.loads(run("requests", *options, "--json").out)
    assert [each.get("outcome", each["state"]) for each in shown["running"] + shown["ended"]] == states


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--node", "dsek"), "there is no node 'dsek'"),
        (("--key", "alcie & co"), "there is no key 'alcie & co'"),
        (("--model", "tiny-babbel", "--json"), "there is no model 'tiny-babbel'"),
    ],
)
def test_a_filter_with_an_unknown_name_fails(run: Run, busy: Busy, options: tuple[str, ...], said: str) -> None:
    refused = run("requests", *options)
    assert (refused.code, refused.out, refused.err) == (1, "", f"hive: {said}\n")


def test_a_narrow_terminal_shows_the_main_columns_and_with_wide_all(
    run: Run, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    lines = run("requests").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:4] == ["REQUEST", "STATE", "MODEL", "NODE"]
    assert "TOTAL" in lines[0]
    assert [line.split()[0] for line in lines if line.startswith("req_")][:2] == busy.ids()
    assert "SENT" in run("requests", "--wide").out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert " ".join(run("requests").out.splitlines()[0].split()) == COLUMNS


def test_a_request_is_cancelled(run: Run, busy: Busy) -> None:
    queued, sent = busy.ids()
    assert run("requests", "--cancel", queued).out == f"{queued} is cancelled\n"
    assert busy.queued.answer().status == 410
    shown = json.loads(run("requests", "--cancel", sent, "--json").out)
    assert (shown["request_id"], shown["outcome"], shown["status"]) == (sent, "cancelled", 410)
    assert busy.sent.answer().status == 410
    assert [row[1] for row in rows(run("requests", "--limit", "2").out)[1:]] == ["cancelled", "cancelled"]
    again = run("requests", "--cancel", sent)
    assert (again.code, again.err) == (1, f"hive: request '{sent}' has ended already\n")


def test_an_unknown_request_cannot_be_cancelled(run: Run, busy: Busy) -> None:
    refused = run("requests", "--cancel", "req_nobody")
    assert refused.code == 1
    assert refused.err.startswith("hive: there is no request 'req_nobody': kept are requests to engines, ")
    assert len(busy.ids()) == 2


@pytest.mark.parametrize(
    "options",
    [
        ("--cancel", "req_1", "--node", "a"),
        ("--cancel", "req_1", "--state", "running"),
        ("--state", "runing"),
        ("--limit", "0"),
        ("--limit", "1001"),
    ],
)
def test_a_wrong_use_sends_nothing_to_the_hub(run: Run, options: tuple[str, ...]) -> None:
    wrong = run("requests", *options, "--hub", "http://127.0.0.1:1")
    assert wrong.code == 2
    assert options[0] in wrong.err


@pytest.mark.parametrize("command", ["queue", "requests", "status"])
def test_a_client_key_is_not_enough(run: Run, busy: Busy, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("HIVE_API_KEY", busy.hub.create_key("bob"))
    assert run(command).code == 1
    monkeypatch.delenv("HIVE_API_KEY")
    assert "the key comes from HIVE_API_KEY" in run(command).err
