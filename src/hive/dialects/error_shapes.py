"""One fault in the words of every dialect: as a whole answer, and as the last unit of a stream that broke off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from hive import errors
from hive.dialects.tasks import Dialect
from hive.errors import Fault

_PLAIN_TEXT = frozenset({errors.NOT_FOUND, errors.METHOD_NOT_ALLOWED})
"""Ollama's router answers these itself, in plain text."""
_EMPTY = frozenset({errors.ORIGIN_REFUSED})
_AS_OLLAMA = frozenset(
    {errors.BAD_JSON, errors.MODEL_REQUIRED, errors.MODEL_NOT_FOUND, errors.INVALID_MODEL_NAME, errors.BAD_REQUEST}
)
"""Faults that Ollama has too: its OpenAI layer gives them no code."""

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_SEQUENCE = re.compile(rb'"sequence_number": ?(\d{1,12})')
_encode = msgspec.json.encode


def _openai_error(fault: Fault) -> dict[str, object]:
    kind = fault.kind
    code = None if kind in _AS_OLLAMA else kind.code
    type_ = _OPENAI_TYPES.get(kind.status, "api_error")
    return {"error": {"message": fault.message, "type": type_, "param": None, "code": code}}


def _anthropic_error(fault: Fault, request_id: str) -> dict[str, object]:
    type_ = _ANTHROPIC_TYPES.get(fault.kind.status, "api_error")
    return {"type": "error", "error": {"type": type_, "message": fault.message}, "request_id": request_id}


def error_body(dialect: Dialect, fault: Fault, request_id: str) -> tuple[str, bytes]:
    """Return content type and body of a fault as a whole answer."""
    if fault.kind in _EMPTY:
        return "", b""
    if dialect is Dialect.HIVE:
        return "application/json", _encode({"error": {"code": fault.kind.code, "message": fault.message}})
    if fault.kind in _PLAIN_TEXT:
        return "text/plain", fault.message.encode()
    if dialect is Dialect.OLLAMA:
        return "application/json; charset=utf-8", _encode({"error": fault.message})
    if dialect is Dialect.ANTHROPIC:
        return "application/json", _encode(_anthropic_error(fault, request_id)) + b"\n"
    return "application/json", _encode(_openai_error(fault)) + b"\n"


def error_headers(fault: Fault) -> list[tuple[str, str]]:
    """Return the headers that a fault carries in every dialect."""
    headers = list(fault.headers)
    if fault.kind.status == 401:
        headers.append(("WWW-Authenticate", 'Bearer realm="hive"'))
    if not fault.kind.retry:
        headers.append(("x-should-retry", "false"))
    if fault.kind.status == 503 and not any(name == "Retry-After" for name, _ in headers):
        headers.append(("Retry-After", "5"))
    return headers


def _next_number(last_units: bytes) -> int:
    """Return the number of the next event of a Responses stream."""
    numbers = _SEQUENCE.findall(last_units)
    return int(numbers[-1]) + 1 if numbers else 0


def stream_error(dialect: Dialect, fault: Fault, request_id: str, last_units: bytes = b"") -> bytes:
    """Return the bytes that end a stream of this dialect which cannot go on after `last_units`."""
    if dialect is Dialect.OLLAMA:
        return _encode({"error": fault.message}) + b"\n"
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + _encode(_anthropic_error(fault, request_id)) + b"\n\n"
    if dialect is Dialect.RESPONSES:
        error = {"code": "server_error", "message": fault.message}
        response = {"id": f"resp_{request_id}", "object": "response", "status": "failed", "error": error, "output": []}
        event = {"type": "response.failed", "sequence_number": _next_number(last_units), "response": response}
        return b"event: response.failed\ndata: " + _encode(event) + b"\n\n"
    return b"data: " + _encode(_openai_error(fault)) + b"\n\n"


class ErrorShapes(Protocol):
    """How a surface words a fault."""

    def whole(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        """Return content type and body of a fault as a whole answer; an empty type for an empty body."""

    def in_stream(self, fault: Fault, request_id: str, last_units: bytes) -> bytes:
        """Return the bytes that end a stream which cannot go on after `last_units`."""


@dataclass(frozen=True, slots=True)
class DialectErrors:
    """The error shapes of one dialect."""

    dialect: Dialect

    def whole(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        """Return content type and body of a fault as a whole answer."""
        return error_body(self.dialect, fault, request_id)

    def in_stream(self, fault: Fault, request_id: str, last_units: bytes) -> bytes:
        """Return the bytes that end a stream which cannot go on after `last_units`."""
        return stream_error(self.dialect, fault, request_id, last_units)


ERRORS: Mapping[Dialect, DialectErrors] = {dialect: DialectErrors(dialect) for dialect in Dialect}


def error_answer(shapes: ErrorShapes, fault: Fault, request_id: str) -> tuple[int, bytes, bytes]:
    """Return status, header lines and body of the answer that tells a client of a fault."""
    content_type, body = shapes.whole(fault, request_id)
    lines = [f"{name}: {value}\r\n" for name, value in error_headers(fault)]
    if content_type:
        lines.append(f"Content-Type: {content_type}\r\n")
    return fault.kind.status, "".join(lines).encode("latin-1", "replace"), body
