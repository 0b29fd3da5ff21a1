"""Which reader an engine's answer needs, by dialect and content type; and how a stream that is no answer begins."""

from __future__ import annotations

from collections.abc import Mapping

from hive.dialects.anthropic_reader import AnthropicReader
from hive.dialects.ollama_reader import OllamaReader
from hive.dialects.openai_reader import OpenAiReader
from hive.dialects.responses_reader import ResponsesReader
from hive.dialects.tasks import Dialect
from hive.dialects.unit_reader import UnitReader

_LINES = frozenset({b"application/x-ndjson"})
_EVENTS = frozenset({b"text/event-stream", b"application/x-ndjson"})
"""Ollama labels some event streams of /v1/responses as NDJSON."""
_READERS: Mapping[Dialect, tuple[type[UnitReader], frozenset[bytes]]] = {
    Dialect.OLLAMA: (OllamaReader, _LINES),
    Dialect.OPENAI: (OpenAiReader, _EVENTS),
    Dialect.RESPONSES: (ResponsesReader, _EVENTS),
    Dialect.ANTHROPIC: (AnthropicReader, _EVENTS),
}
_OPENING_ERRORS = (
    b'{"error"',
    b'data: {"error"',
    b'data:{"error"',
    b'data: {"type":"error"',
    b"event: error",
    b"event: response.failed",
)


def stream_of(dialect: Dialect, content_type: bytes) -> type[UnitReader] | None:
    """Return what reads an answer that streams; None for one that does not."""
    if content_type.startswith(b"application/json"):
        return None
    found = _READERS.get(dialect)
    if found is not None and content_type.partition(b";")[0].strip().lower() in found[1]:
        return found[0]
    return None


def opens_with_error(units: bytes) -> bool:
    """Does a stream that begins with these units tell of nothing but an error?"""
    return units.startswith(_OPENING_ERRORS)


def is_only_comments(units: bytes) -> bool:
    """Are these units a sign of life, but no answer yet?"""
    return units.startswith(b":") and b"data:" not in units
