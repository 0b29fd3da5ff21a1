"""Which route answers a request, and what is said when none does."""

from __future__ import annotations

import json

import pytest

from hive.sim.route_table import cors
from hive.testing import SimKind, SimOptions, run_in_thread

from .desks import make_desk, make_request, refused, reply

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def test_a_strange_host_or_origin_is_refused_and_a_local_page_may_read(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask("/api/version", Host="evil.example").status == 403
        assert client.ask("/api/version", Origin="http://evil.example").status == 403
        local = client.ask("/api/version", Origin="http://localhost:3000")
        assert local.header("access-control-allow-origin") == "http://localhost:3000"


PROBES = ("/api/version", "/api/tags", "/version", "/props", "/slots", "/health", "/v1/models")


@pytest.mark.parametrize(
    ("kind", "answered", "owner"),
    [
        ("ollama", {"/api/version", "/api/tags", "/v1/models"}, "library"),
        ("llama.cpp", {"/props", "/slots", "/health", "/v1/models"}, "llamacpp"),
        ("vllm", {"/version", "/health", "/v1/models"}, "vllm"),
        ("openai", {"/v1/models"}, "simulated"),
    ],
)
def test_each_kind_answers_its_own_probes(client_of: type, kind: str, answered: set[str], owner: str) -> None:
    with run_in_thread(SimOptions(kind=SimKind(kind), slots=3)) as engine:
        client = client_of(engine)
        assert {path for path in PROBES if client.ask(path).status == 200} == answered
        assert client.ask("/v1/models").json()["data"][0]["owned_by"] == owner
        assert client.ask("/v1/chat/completions", CHAT | {"stream": True}).body.endswith(b"data: [DONE]\n\n")
        if kind == "llama.cpp":
            assert client.ask("/props").json()["total_slots"] == 3
            assert client.ask("/v1/chat/completions", CHAT | {"model": "x"}).json()["model"] == "tiny"
        else:
            assert client.ask("/v1/chat/completions", CHAT | {"model": "x"}).status == 404


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        (SimKind.OLLAMA, 404, b"404 page not found"),
        (SimKind.VLLM, 404, b'{"detail":"Not Found"}'),
        (SimKind.LLAMA_CPP, 404, b"File Not Found"),
        (SimKind.OPENAI, 404, b"Invalid URL"),
    ],
)
def test_a_path_that_no_route_has(kind: SimKind, status: int, body: bytes) -> None:
    answer = reply(make_desk(kind=kind), "/nowhere")
    assert answer.status == status
    assert body in answer.body


@pytest.mark.parametrize(
    ("kind", "path", "status"),
    [(SimKind.OLLAMA, "/api/tags", 405), (SimKind.VLLM, "/v1/models", 405), (SimKind.LLAMA_CPP, "/props", 404)],
)
def test_a_method_that_the_path_has_not(kind: SimKind, path: str, status: int) -> None:
    answer = reply(make_desk(kind=kind), path, {}, "DELETE")
    assert answer.status == status
    assert status == 404 or dict(answer.headers)["Allow"].startswith("GET")


def test_a_body_that_cannot_be_read_is_told_in_the_words_of_the_surface() -> None:
    assert refused(make_desk(), "/api/chat", b"{}") == (400, "model is required")
    assert refused(make_desk(), "/api/chat", b"{")[0] == 400
    assert json.loads(reply(make_desk(), "/v1/messages", b"{").body)["type"] == "error"


def test_a_path_takes_one_more_part_and_no_second_one() -> None:
    assert reply(make_desk(), "/v1/models/tiny").status == 200
    assert reply(make_desk(), "/v1/models/").status == 404
    assert reply(make_desk(), "/v1/models/a/b").status == 404


def test_a_preflight_of_an_ollama_lists_the_methods() -> None:
    answer = reply(make_desk(), "/api/tags", method="OPTIONS")
    assert (answer.status, dict(answer.headers)["Allow"]) == (204, "GET,HEAD")


@pytest.mark.parametrize(
    ("kind", "origin", "allowed"),
    [
        (SimKind.OLLAMA, "http://localhost:3000", "http://localhost:3000"),
        (SimKind.OLLAMA, "http://evil.example", None),
        (SimKind.LLAMA_CPP, "http://evil.example", "http://evil.example"),
        (SimKind.VLLM, "http://localhost:3000", None),
    ],
)
def test_which_pages_may_read_an_answer(kind: SimKind, origin: str, allowed: str | None) -> None:
    found = dict(cors(kind, make_request("/", origin=origin)))
    assert found.get("Access-Control-Allow-Origin") == allowed
