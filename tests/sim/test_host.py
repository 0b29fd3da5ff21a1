"""What an engine counts and remembers while it answers, and how a fault is held and let go."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from hive.testing import SimKind, SimOptions, run_in_thread

ASK = {"model": "tiny", "prompt": "hello"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def test_a_client_that_leaves_while_it_waits_leaves_the_queue(client_of: type, read_until: Callable) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        engine.set_fault("freeze-stream", 1, count=1)
        with client.raw("/api/generate", ASK) as first:
            read_until(first, b'"done":false')
            with client.raw("/api/generate", ASK):
                engine.until(lambda state: state.waiting == 1)
            engine.until(lambda state: state.waiting == 0 and state.cancelled == 1)
            engine.clear_faults()
            read_until(first, b'"done":true')


def test_a_client_that_leaves_during_a_load_aborts_it(client_of: type) -> None:
    with run_in_thread(SimOptions(load_time=3600)) as engine:
        with client_of(engine).raw("/api/generate", ASK):
            engine.until(lambda state: state.waiting == 1)
        assert engine.until(lambda state: state.loads_aborted == 1).loads == 0


def test_the_state_shows_requests_without_their_content(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        client.ask("/api/chat?x=1", CHAT | {"options": {"num_predict": 1}}, X_Test="yes")
        (seen,) = engine.state().requests
        over_http = json.loads(client_of(engine).ask("/sim/state").body)
    assert (seen.method, seen.path, seen.query, seen.status, seen.outcome) == (
        "POST",
        "/api/chat",
        "x=1",
        200,
        "finished",
    )
    assert seen.body == {"model": "tiny", "options": {"num_predict": 1}}
    assert ("X-Test", "yes") in seen.headers
    assert len(seen.body_sha256) == 64
    assert over_http["received"] == {"/api/chat": 1}
    assert over_http["requests"][0]["body_bytes"] == seen.body_bytes


def test_a_request_that_is_cut_is_counted_as_that(client_of: type) -> None:
    with run_in_thread() as engine:
        engine.set_fault("drop", 1)
        with client_of(engine).raw("/api/generate", ASK):
            state = engine.until(lambda state: state.cut == 1)
    assert (state.requests[-1].outcome, state.requests[-1].faults, state.finished) == ("cut", ["drop"], 0)


def test_an_engine_that_is_no_ollama_has_its_models_in_memory_from_the_start() -> None:
    with run_in_thread(SimOptions(models=("a", "b"), kind=SimKind.VLLM)) as engine:
        assert engine.state().loaded == ["a:latest", "b:latest"]
    with run_in_thread() as engine:
        assert engine.state().loaded == []


def test_a_state_is_a_copy() -> None:
    with run_in_thread() as engine:
        before = engine.state()
        engine.set_fault("busy")
        assert before.faults == []


@pytest.mark.parametrize(
    ("kind", "server"), [(SimKind.OLLAMA, None), (SimKind.LLAMA_CPP, "llama.cpp"), (SimKind.VLLM, "uvicorn")]
)
def test_each_kind_names_its_server(client_of: type, kind: SimKind, server: str | None) -> None:
    with run_in_thread(SimOptions(kind=kind)) as engine:
        assert client_of(engine).ask("/v1/models").header("server") == server
