"""What each kind of engine tells of itself."""

from __future__ import annotations

import json

import pytest

from hive.sim.machine import Job
from hive.testing import SimKind

from .desks import make_desk, reply, shown


def test_an_ollama_says_that_it_runs() -> None:
    assert reply(make_desk(), "/").body == b"Ollama is running"


@pytest.mark.parametrize(("kind", "path"), [(SimKind.OLLAMA, "/api/version"), (SimKind.VLLM, "/version")])
def test_a_version_is_the_one_that_was_set(kind: SimKind, path: str) -> None:
    assert shown(make_desk(kind=kind, version="1.2.3"), path) == {"version": "1.2.3"}


def test_an_ollama_is_signed_in_nowhere() -> None:
    assert shown(make_desk(), "/api/status")["cloud"] == {"disabled": True, "source": "config"}
    answer = reply(make_desk(), "/api/me", b"ignored")
    assert (answer.status, "signin_url" in json.loads(answer.body)) == (401, True)


@pytest.mark.parametrize(("kind", "body"), [(SimKind.LLAMA_CPP, b'{"status":"ok"}'), (SimKind.VLLM, b"")])
def test_health_is_told_in_each_kinds_way(kind: SimKind, body: bytes) -> None:
    answer = reply(make_desk(kind=kind), "/health")
    assert (answer.status, answer.body) == (200, body)


def test_a_llama_cpp_tells_slots_context_and_model() -> None:
    found = shown(make_desk("newest", "older", kind=SimKind.LLAMA_CPP, slots=3, context_length=99), "/props")
    assert (found["total_slots"], found["model_alias"]) == (3, "newest")
    assert found["default_generation_settings"] == {"n_ctx": 99}


def busy(kind: SimKind) -> object:
    """Return a desk whose engine has two slots, runs one request and lets one wait."""
    desk = make_desk(kind=kind, slots=2)
    desk.machine.preload("tiny:latest", 4096)
    desk.machine.submit(Job("tiny:latest", 4096))
    desk.machine.step(0.0)
    return desk


def test_a_llama_cpp_shows_which_slots_work() -> None:
    answer = reply(busy(SimKind.LLAMA_CPP), "/slots")  # type: ignore[arg-type]
    assert [slot["is_processing"] for slot in json.loads(answer.body)] == [True, False]


def test_a_vllm_counts_what_runs_and_what_waits() -> None:
    body = reply(busy(SimKind.VLLM), "/metrics").body.decode()  # type: ignore[arg-type]
    assert 'vllm:num_requests_running{model_name="tiny"} 1.0\n' in body
    assert 'vllm:num_requests_waiting{model_name="tiny"} 0.0\n' in body
