"""What Ollama 0.33 says to requests that it refuses, route by route: the hub says the same over any engine."""

from __future__ import annotations

import json

HELLO = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, object]] = {
    "/api/generate": {"prompt": "hello"},
    "/api/chat": {"messages": HELLO},
    "/api/embed": {"input": "hello"},
    "/api/embeddings": {"prompt": "hello"},
    "/api/show": {},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 8},
    "/v1/responses": {"input": "hello"},
}
"""What a request has beside its model."""
ROUTES = list(BODIES)
# An unknown model at /v1/responses is 200 and `response.failed` there, which agents repeat: not imitated.
ROUTES_WITH_404 = [path for path in ROUTES if path != "/v1/responses"]
UNKNOWN_NAMES = ["nope", "Nope:Q4", "ns/nope", "host.example/ns/nope:1"]
BAD_NAMES = [
    "bad name!",
    "../../etc/passwd",
    "a//b",
    "x:y:z",
    ":latest",
    "-x",
    "m:" + "t" * 90,
    "wörld",
    "a\u0000b",
]
BAD_BODIES = [b'{"model": ', b"nonsense", b"[]", b'"x"', b"5", b"null", b'{"model": 5}', b'{"model": ["x"]}', b" "]

Refusal = tuple[int, str, str]
"""Status, media type and body, as `described_error` tells them."""

_NOT_REQUIRED = ("/api/generate", "/api/embed", "/v1/completions", "/v1/embeddings")
"""Routes that look for a model of no name."""
_LONG_WORDS = ("/api/embed", "/api/embeddings", "/v1/embeddings")
_WITH_TAG = ("/api/show", "/v1/models")
_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def without_model(path: str) -> Refusal:
    """Return the answer to a request that names no model, or an empty one."""
    return (
        _refusal(path, 404, "model '' not found") if path in _NOT_REQUIRED else _refusal(path, 400, "model is required")
    )


def unknown_model(path: str, name: str) -> Refusal:
    """Return the answer to a request for a model that is not there; `/v1/models` is asked for it in the path."""
    if path in _LONG_WORDS:
        return _refusal(path, 404, f'model "{name}" not found, try pulling it first')
    if path in _WITH_TAG and ":" not in name:
        name += ":latest"
    return _refusal(path, 404, f"model '{name}' not found")


def bad_name(path: str) -> Refusal:
    """Return the answer to a request for a model whose name cannot be one."""
    return _refusal(path, 400, "invalid model name")


def empty_body(path: str) -> Refusal:
    """Return the answer to a request without a body."""
    return _refusal(path, 400, "EOF" if path.startswith("/v1/") else "missing request body")


def _refusal(path: str, status: int, text: str) -> Refusal:
    document: dict[str, object] = {"error": text}
    if path == "/v1/messages":
        error: dict[str, object] = {"type": _TYPES[status], "message": text}
        document = {"type": "error", "error": error, "request_id": "req_<id>"}
    elif path.startswith("/v1/"):
        document = {"error": {"message": text, "type": _TYPES[status], "param": None, "code": None}}
    return status, "application/json", json.dumps(document, separators=(",", ":"))
