"""One fault in each dialect's words: the same words as Ollama's own, where it has the fault too."""

from __future__ import annotations

import json

import pytest

from hive import errors
from hive.dialects.error_shapes import error_body, error_headers, stream_error
from hive.dialects.tasks import Dialect
from hive.errors import Family, Fault, Kind

KINDS = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, Kind)}
CLIENT_DIALECTS = (Dialect.OLLAMA, Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC)
ID = "req_5d91b2b07b0e5a487f3ec13e"

# What Ollama 0.33.0-rc2 answered (0.24.0 the same): transcripts 52 to 69.
RECORDED = [
    (Dialect.OLLAMA, errors.MODEL_NOT_FOUND, "model 'nope' not found", """{"error":"model 'nope' not found"}"""),
    (
        Dialect.OLLAMA,
        errors.MODEL_NOT_FOUND,
        'model "nope" not found, try pulling it first',
        r"""{"error":"model \"nope\" not found, try pulling it first"}""",
    ),
    (Dialect.OLLAMA, errors.MODEL_REQUIRED, "model is required", """{"error":"model is required"}"""),
    (Dialect.OLLAMA, errors.BAD_JSON, "unexpected EOF", """{"error":"unexpected EOF"}"""),
    (Dialect.OLLAMA, errors.BAD_JSON, "missing request body", """{"error":"missing request body"}"""),
    (Dialect.OLLAMA, errors.INVALID_MODEL_NAME, "invalid model name", """{"error":"invalid model name"}"""),
    (
        Dialect.OPENAI,
        errors.MODEL_NOT_FOUND,
        "model 'nope' not found",
        """{"error":{"message":"model 'nope' not found","type":"not_found_error","param":null,"code":null}}""",
    ),
    (
        Dialect.OPENAI,
        errors.MODEL_NOT_FOUND,
        'model "nope" not found, try pulling it first',
        r"""{"error":{"message":"model \"nope\" not found, try pulling it first","type":"not_found_error","""
        r""""param":null,"code":null}}""",
    ),
    (
        Dialect.OPENAI,
        errors.BAD_JSON,
        "unexpected EOF",
        """{"error":{"message":"unexpected EOF","type":"invalid_request_error","param":null,"code":null}}""",
    ),
    (
        Dialect.ANTHROPIC,
        errors.MODEL_NOT_FOUND,
        "model 'nope' not found",
        """{"type":"error","error":{"type":"not_found_error","message":"model 'nope' not found"},"""
        """"request_id":"req_5d91b2b07b0e5a487f3ec13e"}""",
    ),
]


@pytest.mark.parametrize(("dialect", "kind", "message", "body"), RECORDED)
def test_ollama_s_own_faults_have_its_own_words(dialect: Dialect, kind: Kind, message: str, body: str) -> None:
    content_type, ours = error_body(dialect, Fault(kind, message), ID)
    assert content_type.startswith("application/json")
    assert ours.decode().rstrip("\n") == body


@pytest.mark.parametrize("dialect", CLIENT_DIALECTS)
def test_unknown_paths_and_methods_get_the_router_s_text(dialect: Dialect) -> None:
    for kind, text in ((errors.NOT_FOUND, "404 page not found"), (errors.METHOD_NOT_ALLOWED, "405 method not allowed")):
        assert error_body(dialect, Fault(kind, text), ID) == ("text/plain", text.encode())


def test_a_refused_origin_gets_nothing() -> None:
    for dialect in CLIENT_DIALECTS:
        assert error_body(dialect, Fault(errors.ORIGIN_REFUSED, "no"), ID)[1] == b""


SHAPED = [
    kind for kind in KINDS.values() if kind not in (errors.NOT_FOUND, errors.METHOD_NOT_ALLOWED, errors.ORIGIN_REFUSED)
]


@pytest.mark.parametrize("kind", SHAPED, ids=lambda kind: kind.code)
def test_every_fault_has_every_dialect_s_shape(kind: Kind) -> None:
    message = 'a "quoted" line\nand ünïcödé'
    shapes = {dialect: error_body(dialect, Fault(kind, message), ID) for dialect in Dialect}
    assert all(content_type.startswith("application/json") for content_type, _ in shapes.values())
    found = {dialect: json.loads(body) for dialect, (_, body) in shapes.items()}
    assert found[Dialect.OLLAMA] == {"error": message}
    assert found[Dialect.HIVE] == {"error": {"code": kind.code, "message": message}}
    assert found[Dialect.ANTHROPIC].keys() == {"type", "error", "request_id"}
    assert found[Dialect.ANTHROPIC]["type"] == "error"
    assert found[Dialect.ANTHROPIC]["request_id"] == ID
    assert found[Dialect.ANTHROPIC]["error"].keys() == {"type", "message"}
    assert found[Dialect.ANTHROPIC]["error"]["message"] == message
    for dialect in (Dialect.OPENAI, Dialect.RESPONSES):
        error = found[dialect]["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (error["message"], error["param"]) == (message, None)
        assert error["code"] in (None, kind.code)


TYPES = [
    (errors.BAD_REQUEST, "invalid_request_error", "invalid_request_error"),
    (errors.REPEATED_KEY, "invalid_request_error", "invalid_request_error"),
    (errors.UNAUTHENTICATED, "authentication_error", "authentication_error"),
    (errors.FORBIDDEN, "permission_error", "permission_error"),
    (errors.MODEL_NOT_FOUND, "not_found_error", "not_found_error"),
    (errors.BODY_TOO_LARGE, "invalid_request_error", "request_too_large"),
    (errors.INTERNAL, "api_error", "api_error"),
    (errors.NODE_FAILED, "api_error", "api_error"),
    (errors.QUEUE_FULL, "api_error", "overloaded_error"),
    (errors.NODE_BUSY, "api_error", "overloaded_error"),
    (errors.NODE_SILENT, "api_error", "timeout_error"),
]


@pytest.mark.parametrize(("kind", "openai", "anthropic"), TYPES, ids=[kind.code for kind, _, _ in TYPES])
def test_the_type_follows_the_status_as_the_sdks_know_it(kind: Kind, openai: str, anthropic: str) -> None:
    fault = Fault(kind, "x")
    assert json.loads(error_body(Dialect.OPENAI, fault, ID)[1])["error"]["type"] == openai
    assert json.loads(error_body(Dialect.ANTHROPIC, fault, ID)[1])["error"]["type"] == anthropic


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.code)
def test_what_stands_in_the_headers(kind: Kind) -> None:
    names = [name.lower() for name, _ in error_headers(Fault(kind, "x"))]
    assert len(names) == len(set(names))
    assert ("www-authenticate" in names) is (kind.status == 401)
    assert ("retry-after" in names) is (kind.status == 503)
    assert ("x-should-retry" in names) is (not kind.retry)


def test_claude_code_is_told_not_to_repeat_what_was_refused() -> None:
    for kind in (errors.UNAUTHENTICATED, errors.FORBIDDEN):
        assert ("x-should-retry", "false") in error_headers(Fault(kind, "x"))


def test_a_fault_s_own_headers_come_first_and_once() -> None:
    headers = error_headers(Fault(errors.QUEUE_FULL, "x", (("Retry-After", "30"),)))
    assert [value for name, value in headers if name == "Retry-After"] == ["30"]


# --- inside a stream ---

BROKEN = [kind for kind in KINDS.values() if kind.family is not Family.CLIENT]


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.code)
def test_a_stream_ends_in_its_dialect_s_own_error(kind: Kind) -> None:
    fault = Fault(kind, 'the node "a"\nfell silent')
    line = stream_error(Dialect.OLLAMA, fault, ID)
    assert (line.count(b"\n"), json.loads(line)) == (1, {"error": fault.message})
    event = stream_error(Dialect.OPENAI, fault, ID)
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert json.loads(event[6:]) == json.loads(error_body(Dialect.OPENAI, fault, ID)[1])
    assert b"[DONE]" not in event


def test_an_anthropic_stream_ends_in_an_error_event() -> None:
    fault = Fault(errors.NODE_BROKE_OFF, "the engine broke off")
    name, data, *rest = stream_error(Dialect.ANTHROPIC, fault, ID).split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: ")) == json.loads(error_body(Dialect.ANTHROPIC, fault, ID)[1])


def test_a_responses_stream_ends_in_a_failed_response() -> None:
    fault = Fault(errors.NODE_BROKE_OFF, "the engine broke off")
    name, data, *rest = stream_error(Dialect.RESPONSES, fault, ID).split(b"\n")
    assert (name, rest) == (b"event: response.failed", [b"", b""])
    event = json.loads(data.removeprefix(b"data: "))
    assert event["type"] == "response.failed"
    assert isinstance(event["sequence_number"], int)
    response = event["response"]
    assert (response["object"], response["status"]) == ("response", "failed")
    assert response["error"] == {"code": "server_error", "message": fault.message}
    assert response["id"].startswith("resp_")
