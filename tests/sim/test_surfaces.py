"""Whose path it is, how an error is worded there, and which hosts and pages an Ollama lets in."""

from __future__ import annotations

import json

import pytest

from hive.sim.surfaces import SimSurface, error_reply, is_host_allowed, is_origin_allowed, surface_of
from hive.testing import SimKind


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("/api/chat", SimSurface.NATIVE),
        ("/props", SimSurface.NATIVE),
        ("/v1/models", SimSurface.OPENAI),
        ("/v1/messages", SimSurface.ANTHROPIC),
        ("/v1/messages/count_tokens", SimSurface.ANTHROPIC),
    ],
)
def test_a_path_belongs_to_a_surface(path: str, surface: SimSurface) -> None:
    assert surface_of(path) is surface


def error(kind: SimKind, path: str, status: int) -> object:
    decoded: dict[str, object] = json.loads(error_reply(kind, path, status, "no").body)
    return decoded["error"]


def test_a_native_error_is_its_text() -> None:
    assert error(SimKind.OLLAMA, "/api/chat", 404) == "no"


@pytest.mark.parametrize(
    ("kind", "status", "name", "code"),
    [
        (SimKind.OLLAMA, 400, "invalid_request_error", None),
        (SimKind.OLLAMA, 503, "api_error", None),
        (SimKind.VLLM, 404, "NotFoundError", 404),
        (SimKind.VLLM, 500, "InternalServerError", 500),
        (SimKind.LLAMA_CPP, 503, "unavailable_error", 503),
    ],
)
def test_an_openai_error_has_the_type_of_its_server(kind: SimKind, status: int, name: str, code: int | None) -> None:
    assert error(kind, "/v1/models", status) == {"message": "no", "type": name, "param": None, "code": code}


@pytest.mark.parametrize(("status", "name"), [(429, "rate_limit_error"), (503, "overloaded_error"), (500, "api_error")])
def test_an_anthropic_error_has_its_own_types(status: int, name: str) -> None:
    assert error(SimKind.OLLAMA, "/v1/messages", status) == {"type": name, "message": "no"}


def test_an_error_of_the_middleware_has_no_line_end() -> None:
    assert not error_reply(SimKind.OLLAMA, "/v1/models", 400, "no").body.endswith(b"\n")
    assert error_reply(SimKind.OLLAMA, "/v1/models", 404, "no").body.endswith(b"\n")


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        (None, True),
        ("localhost:11434", True),
        ("desk.local", True),
        ("192.168.1.2:1", True),
        ("[::1]:11434", True),
        ("0.0.0.0", True),
        ("evil.example", False),
        ("8.8.8.8", False),
    ],
)
def test_which_hosts_an_ollama_answers(host: str | None, is_allowed: bool) -> None:
    assert is_host_allowed(host) is is_allowed


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("tauri://anything", True),
        ("http://evil.example", False),
        ("ftp://localhost", False),
    ],
)
def test_which_pages_an_ollama_lets_in(origin: str, is_allowed: bool) -> None:
    assert is_origin_allowed(origin) is is_allowed
