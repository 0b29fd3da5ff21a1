"""What is refused, is refused as Ollama 0.33 refuses it; where the engine is older, its known words are compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .. import refusals
from ..refusals import BAD_BODIES, BAD_NAMES, BODIES, HELLO, ROUTES, ROUTES_WITH_404, UNKNOWN_NAMES, Refusal
from .answers import described, described_error, dialect_of, is_error_of
from .hub import IS_DIRECT, Direct, Hub
from .installed import NEWEST_OLLAMA, Fleet, has_route, version_of
from .wire import Answer, Headers, ask

pytestmark = pytest.mark.engines

MANAGEMENT = ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"]
LISTINGS = ["/", "/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/tiny-babble"]
UNKNOWN_PATHS = [
    "/api/nope",
    "/nope",
    "/v1/nope",
    "/api",
    "/v1",
    "/api/chat/api/show",
    "/api/generate/api/show",
    "/v1/images/generations",
    "/v1/messages/batches",
    "/api/unload",
]
SPEAKS_AS_THE_HUB = IS_DIRECT or version_of(NEWEST_OLLAMA) >= (0, 33)
"""Does the engine refuse in the hub's words?"""
FOREIGN = [("Origin", "http://evil.example")]
FRIENDLY = [("Origin", "http://localhost:3000")]


@pytest.fixture
def ollama(fleets: Callable[[str], Fleet]) -> Fleet:
    return fleets(NEWEST_OLLAMA)


@pytest.fixture
def both(ollama: Fleet, hub_over: Callable[..., Hub | Direct]) -> Callable[..., tuple[Answer, Answer]]:
    """Return a function that sends one request to the hub and to the engine, and returns both answers."""
    hub = hub_over(ollama)
    engine = ollama.url_of("tiny-babble")

    def send(method: str, path: str, body: object = None, headers: Headers = ()) -> tuple[Answer, Answer]:
        return ask(hub.url, method, path, body, headers), ask(engine, method, path, body, headers)

    return send


def check(through: Answer, direct: Answer, known: Refusal) -> None:
    """Check that the hub refuses as the engine does; in the known words where the engine has others."""
    assert described_error(through) == (described_error(direct) if SPEAKS_AS_THE_HUB else known)
    assert 400 <= direct.status <= 500


@pytest.mark.parametrize("path", ROUTES)
def test_request_without_a_model(path: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, BODIES[path])
    check(through, direct, refusals.without_model(path))


@pytest.mark.parametrize("path", ROUTES)
def test_request_with_an_empty_model(path: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, {"model": "", **BODIES[path]})
    check(through, direct, refusals.without_model(path))


@pytest.mark.parametrize("model", UNKNOWN_NAMES)
@pytest.mark.parametrize("path", ROUTES_WITH_404)
def test_unknown_model(path: str, model: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, {"model": model, **BODIES[path]})
    assert direct.status == 404
    check(through, direct, refusals.unknown_model(path, model))


@pytest.mark.parametrize("name", ["nope", "Nope:1"])
def test_unknown_model_in_the_path(name: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("GET", f"/v1/models/{name}")
    check(through, direct, refusals.unknown_model("/v1/models", name))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_unknown_model_when_a_stream_is_wanted(path: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, {"model": "nope", "stream": True, **BODIES[path]})
    check(through, direct, refusals.unknown_model(path, "nope"))


def test_unknown_model_at_responses_is_404(ollama: Fleet, hub_over: Callable[..., Hub | Direct]) -> None:
    hub = hub_over(ollama)
    if isinstance(hub, Direct):
        pytest.skip("Ollama itself says 200 and response.failed, or does not have the route")
    answer = ask(hub.url, "POST", "/v1/responses", {"model": "nope", "input": "hello", "stream": True})
    assert answer.status == 404
    assert is_error_of("openai", answer)
    assert "nope" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_empty_body(path: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, b"")
    check(through, direct, refusals.empty_body(path))


@pytest.mark.parametrize("body", BAD_BODIES, ids=repr)
@pytest.mark.parametrize("path", [path for path in ROUTES if not IS_DIRECT or has_route(NEWEST_OLLAMA, path)])
def test_bad_json_has_ollamas_status(path: str, body: bytes, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, body)
    # Go takes null for an empty object: some routes then say 404 for the model ''.
    is_refused_alike = body != b"null" and has_route(NEWEST_OLLAMA, path)
    expected = (direct.status,) if is_refused_alike else (400, direct.status)
    assert through.status in expected, (through, direct)
    assert is_error_of(dialect_of(path), through), through


@pytest.mark.parametrize("model", BAD_NAMES, ids=ascii)
@pytest.mark.parametrize("path", ROUTES)
def test_bad_name(path: str, model: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", path, {"model": model, **BODIES[path]})
    check(through, direct, refusals.bad_name(path))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", [*ROUTES, *LISTINGS, *MANAGEMENT])
def test_wrong_method(path: str, method: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both(method, path)
    if direct.status != 405:
        return
    assert (through.status, through.body, through.header("Content-Type")) == (405, direct.body, "text/plain")
    allowed = [set((answer.header("Allow") or "").replace(" ", "").split(",")) for answer in (through, direct)]
    assert allowed[0] == allowed[1]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_unknown_path(path: str, method: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both(method, path)
    assert direct.body == b"404 page not found"
    assert described_error(through) == described_error(direct)


@pytest.mark.parametrize("path", ["/api/tags", "/", "/v1/models", "/api/nope"])
def test_foreign_origin_is_refused_with_an_empty_403(path: str, both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("GET", path, None, FOREIGN)
    assert (direct.status, direct.body) == (403, b"")
    assert described(through) == described(direct)


def test_foreign_origin_cannot_chat(both: Callable[..., tuple[Answer, Answer]]) -> None:
    through, direct = both("POST", "/api/chat", {"model": "tiny-utf8", "messages": HELLO}, FOREIGN)
    assert described(through) == described(direct)


@pytest.mark.parametrize("origin", [FOREIGN, FRIENDLY, [("Origin", "app://x")], [("Origin", "http://127.0.0.1")]])
def test_preflight(origin: Headers, both: Callable[..., tuple[Answer, Answer]]) -> None:
    asked = [
        *origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization"),
    ]
    through, direct = both("OPTIONS", "/api/chat", None, asked)
    assert (through.status, through.body) == (direct.status, direct.body)
    for name in ("Access-Control-Allow-Origin", "Access-Control-Max-Age", "Vary"):
        assert through.header(name) == direct.header(name), name
    for name in ("Access-Control-Allow-Headers", "Access-Control-Allow-Methods"):
        sets = [
            {part for part in (answer.header(name) or "").lower().replace(" ", "").split(",") if part}
            for answer in (through, direct)
        ]
        assert sets[0] >= sets[1], name


@pytest.mark.parametrize("origin", [FRIENDLY, [("Origin", "app://x")], [("Origin", "https://localhost")]])
def test_allowed_origin_is_told_so(origin: Headers, both: Callable[..., tuple[Answer, Answer]]) -> None:
    for path, body in (("/api/tags", None), ("/api/chat", {"model": "tiny-utf8", "messages": HELLO})):
        through, direct = both("GET" if body is None else "POST", path, body, origin)
        assert (through.status, direct.status) == (200, 200)
        name = "Access-Control-Allow-Origin"
        assert through.header(name) == direct.header(name) == origin[0][1]
        assert through.header("Vary") == direct.header("Vary")
