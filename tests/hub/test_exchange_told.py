"""The record of an ended request: its key, why it waited, what went wrong and in which words."""

from __future__ import annotations

import threading

import pytest

from hive.hub.records import Record
from hive.scheduling.tickets import Lease
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, request

OK = b'{"response":"whole","done":true}'


def last(hub: ThreadedHub) -> tuple[Record, list[Lease]]:
    """Return what is kept of the request that ended last."""
    eventually(lambda: hub.call(lambda server: not server.hub.register.running), 2)
    return hub.call(lambda server: server.hub.register.history[-1])


def test_one_that_waited_says_for_what() -> None:
    held = threading.Event()

    def script(call: Call) -> None:
        held.wait(5)
        call.answer(OK)

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1) as hub:
        with Wire(hub.port) as first, Wire(hub.port) as second:
            first.send(request(body=GENERATE))
            engine.call_number(0)
            second.send(request(body=GENERATE))
            eventually(lambda: hub.call(lambda server: server.hub.queue.waiting_count == 1), 2)
            held.set()
            assert (first.answer().status, second.answer().status) == (200, 200)
        told = [
            leases[0].decision.waited_for for _, leases in hub.call(lambda server: list(server.hub.register.history))
        ]
        assert sorted(told) == ["", "its engines are busy"]


def test_one_for_which_a_model_was_loaded_says_so() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine:
        engine.loaded = ()
        with run_hub({"a": engine.url}, slots=1) as hub:
            assert ask(hub.port, request(body=GENERATE)).status == 200
            assert last(hub)[1][0].decision.waited_for == "its model is being loaded"


def test_a_refusal_of_the_hub_is_kept_in_the_words_that_the_client_got() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}, queue_timeout=0.2) as hub:
        engine.close()
        eventually(lambda: ask(hub.port, request(body=GENERATE)).status == 503, 5)
        answer = ask(hub.port, request(body=GENERATE))
        record, leases = last(hub)
        assert (record.error, leases, answer.header("X-Hive-Attempts")) == ("no_node", [], "0")
        assert record.detail
        assert record.detail == answer.json()["error"]


def test_what_a_client_did_wrong_is_told_by_its_code_alone() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=b'{"model":"a-secret"}'))
        assert (answer.status, answer.header("X-Hive-Attempts")) == (404, "0")
        record, _ = last(hub)
        assert (record.error, record.detail, record.model) == ("model_not_found", "", "")


def test_an_engine_s_own_error_inside_a_stream_has_a_code_and_not_its_words() -> None:
    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"x","done":false}\n')
        call.chunk(b'{"error":"words of the engine"}\n')
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        assert b"words of the engine" in ask(hub.port, request(body=STREAM)).body
        record, _ = last(hub)
        assert (record.outcome, record.error, record.detail) == ("node_error", "engine_error", "")


@pytest.mark.parametrize("path", ["/api/pull", "/hive/v1/nodes"])
def test_a_key_that_lacks_a_right_is_named_in_the_log(path: str) -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}) as hub:
        secret = hub.create_key("alice")
        asked = get(path, f"Authorization: Bearer {secret}\r\n")
        if path.startswith("/api"):
            asked = request(path, GENERATE, head=f"Authorization: Bearer {secret}\r\n")
        kept: list[Record] = []
        hub.call(lambda server: setattr(server.hub.register.records, "_write", kept.extend))
        assert ask(hub.port, asked).status == 403
        hub.call(lambda server: server.hub.register.records.settle())
        assert [(each.key, each.status, each.error) for each in kept] == [("alice", 403, "forbidden")]
