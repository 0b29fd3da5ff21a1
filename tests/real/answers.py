"""What is compared of two answers: everything but times, durations and random ids, byte for byte."""

from __future__ import annotations

import json
import re

from .wire import Answer

_HEADERS = ("content-type", "cache-control", "allow", "retry-after", "www-authenticate")

_TIMES = re.compile(rb'"(created_at|modified_at|expires_at)":"[^"]*"')
_CLOCKS = re.compile(rb'"(created|created_at|completed_at)":\d+(?:\.\d+)?')
_DURATIONS = re.compile(rb'"((?:total|load|prompt_eval|eval)_duration)":\d+')
_IDS = re.compile(rb'"(id|item_id|call_id|request_id)":"((?:[a-z]+[-_])?)[^"]*"')
_TIMINGS = re.compile(rb'"timings":\{[^{}]*\}')

# Go's maps come out in random order, and so do the arguments of a tool call.
_ARGUMENTS = re.compile(rb'\{(\\?)"unit\\?":\\?"celsius\\?",\\?"city\\?":\\?"Paris\\?"\}')

_REPLACEMENTS = (
    (_TIMES, rb'"\1":"<time>"'),
    (_CLOCKS, rb'"\1":<time>'),
    (_DURATIONS, rb'"\1":<duration>'),
    (_IDS, rb'"\1":"\2<id>"'),
    (_ARGUMENTS, rb'{\1"city\1":\1"Paris\1",\1"unit\1":\1"celsius\1"}'),
    (_TIMINGS, rb'"timings":<timings>'),
)


def normal(body: bytes) -> bytes:
    """Return the body with every time, duration and id replaced by its name (an id keeps its prefix)."""
    for pattern, replacement in _REPLACEMENTS:
        body = pattern.sub(replacement, body)
    return body


def described(answer: Answer) -> list[str]:
    """Return an answer line by line, fit for comparison: status, the headers that matter, framing, body.

    Go sends a long JSON answer in chunks; the hub, which holds it whole, says its length: both are right.
    """
    headers = [f"{name}: {answer.header(name)}" for name in _HEADERS if answer.header(name) is not None]
    is_json = (answer.header("Content-Type") or "").startswith("application/json")
    framing = "length or chunked" if is_json and answer.framing in ("length", "chunked") else answer.framing
    text = normal(answer.body).decode("utf-8", "backslashreplace")
    return [
        f"{answer.status}, framing {framing}, whole {answer.is_whole}",
        *headers,
        *text.split("\n"),
    ]


def described_error(answer: Answer) -> tuple[int, str, str]:
    """Return what clients read of an error: status, media type, and the text or document without its ids."""
    media_type = (answer.header("Content-Type") or "").partition(";")[0]
    return answer.status, media_type, normal(answer.body).decode("utf-8", "backslashreplace").strip()


def is_error_of(dialect: str, answer: Answer) -> bool:
    """Is this an error in the dialect's own shape?"""
    if not 400 <= answer.status < 600:
        return False
    try:
        document = json.loads(answer.body)
    except ValueError:
        return False
    error = document.get("error") if isinstance(document, dict) else None
    if dialect == "ollama":
        return isinstance(error, str) and error != ""
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return False
    has_type = isinstance(error.get("type"), str)
    return has_type and (dialect != "anthropic" or document.get("type") == "error")


def dialect_of(path: str) -> str:
    """Return whose error shape a path has."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "openai" if path.startswith("/v1/") else "ollama"
