"""The surface that a path belongs to, and the form of an error there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from hive.sim.options import SimKind
from hive.sim.voices import encode
from hive.sim.wire import Headers

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True)
class SimReply:
    """A whole answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON_UTF8
    headers: Headers = ()


class SimSurface(Enum):
    """The three error shapes."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def surface_of(path: str) -> SimSurface:
    """Return the surface that owns the path."""
    if path.startswith("/v1/messages"):
        return SimSurface.ANTHROPIC
    return SimSurface.OPENAI if path.startswith("/v1/") else SimSurface.NATIVE


_TYPES = {
    SimKind.VLLM: {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError"},
    SimKind.LLAMA_CPP: {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        503: "unavailable_error",
    },
}
_TYPES_OF_OTHERS = {400: "invalid_request_error", 404: "not_found_error"}
_LAST_RESORT = {SimKind.VLLM: "InternalServerError", SimKind.LLAMA_CPP: "server_error"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_reply(kind: SimKind, path: str, status: int, text: str) -> SimReply:
    """Return the error in the words of this kind of engine, on the surface of this path."""
    surface = surface_of(path)
    if surface is SimSurface.NATIVE:
        return SimReply(status, encode({"error": text}))
    if surface is SimSurface.ANTHROPIC:
        shape: dict[str, object] = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": text}
        body = encode({"type": "error", "error": shape, "request_id": "req_000000000000000000000001"})
    else:
        name = _TYPES.get(kind, _TYPES_OF_OTHERS).get(status, _LAST_RESORT.get(kind, "api_error"))
        shape = {"message": text, "type": name, "param": None, "code": None}
        if kind in _TYPES:
            shape["code"] = status
        body = encode({"error": shape})
    if status == 400:  # Ollama's middleware writes these errors itself, without a line end
        return SimReply(status, body)
    return SimReply(status, body + b"\n", JSON)


def unknown_path(kind: SimKind) -> SimReply:
    """Return the answer for a path that no route has."""
    match kind:
        case SimKind.OLLAMA:
            return SimReply(404, b"404 page not found", TEXT)
        case SimKind.VLLM:
            return SimReply(404, b'{"detail":"Not Found"}', JSON)
        case SimKind.LLAMA_CPP:
            return SimReply(404, b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}')
        case SimKind.OPENAI:
            return error_reply(kind, "/v1/", 404, "Invalid URL")


def wrong_method(kind: SimKind, allowed: str) -> SimReply:
    """Return the answer for a path that exists only with other methods."""
    match kind:
        case SimKind.OLLAMA:
            return SimReply(405, b"405 method not allowed", TEXT, (("Allow", allowed),))
        case SimKind.VLLM:
            return SimReply(405, b'{"detail":"Method Not Allowed"}', JSON, (("Allow", allowed),))
        case _:
            return unknown_path(kind)


def is_host_allowed(host: str | None) -> bool:
    """Would an Ollama on a loopback address accept this Host header (routes.go, allowedHost)?"""
    name = urlsplit(f"//{host or ''}").hostname or ""
    if name in ("", "localhost") or name.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified


def is_origin_allowed(origin: str) -> bool:
    """Would Ollama allow a browser's page of this origin without OLLAMA_ORIGINS?"""
    parts = urlsplit(origin)
    if parts.scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file"):
        return True
    return parts.scheme in ("http", "https") and parts.hostname in ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104


PREFLIGHT: Headers = (
    (
        "Access-Control-Allow-Headers",
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
        "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout",
    ),
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Max-Age", "43200"),
    ("Vary", "Access-Control-Request-Headers"),
    ("Vary", "Access-Control-Request-Method"),
)
