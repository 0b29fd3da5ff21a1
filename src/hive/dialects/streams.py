"""Streams as clients read them: where a line or event ends, what is none, and what ends a stream for good."""

from __future__ import annotations

import json
from enum import Enum

import msgspec

from hive.dialects.operations import Dialect


class Ending(Enum):
    """How the last whole unit of a stream ends it."""

    WHOLE = "whole"
    ERROR = "error"
    """With an error that the engine itself told the client."""
    MISSING = "missing"


class MalformedStream(ValueError):  # noqa: N818 - it names what arrived
    """A unit that no client could read."""


class _Line(msgspec.Struct):
    done: bool = False
    error: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct):
    type: str = ""
    error: msgspec.Raw = msgspec.Raw(b"")


_decode_lines = msgspec.json.Decoder(_Line).decode_lines
_decode_event = msgspec.json.Decoder(_Event).decode
_EVENT_STARTS = (b"data:", b"event:", b":", b"id:", b"retry:")
_RESPONSES_ENDS = frozenset({"response.completed", "response.incomplete"})


def _is_empty_error(error: msgspec.Raw) -> bool:
    return bytes(error) in (b"", b"null", b'""')


class NdjsonStream:
    """One JSON object a line (the Ollama API). Blank lines are never passed on: three clients break on them."""

    content_types = (b"application/x-ndjson",)
    separator = b"\n"

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        """Return how many bytes from the start are whole lines."""
        return data.rfind(b"\n") + 1

    @staticmethod
    def check(units: bytes) -> bytes:
        """Return whole lines as they may go on. Raises `MalformedStream`."""
        if units[0] == 10 or b"\n\n" in units or b"\n\r" in units:
            units = b"".join(line + b"\n" for line in units.split(b"\n") if line.strip())
        try:
            _decode_lines(units)
        except msgspec.DecodeError:
            _check_slowly(units)
        return units

    @staticmethod
    def ending(units: bytes) -> Ending:
        """Return how the last of these whole lines ends the stream."""
        try:
            last = _decode_lines(units.rstrip().rpartition(b"\n")[2])
        except msgspec.DecodeError:
            return Ending.MISSING
        if not last:
            return Ending.MISSING
        if not _is_empty_error(last[0].error):
            return Ending.ERROR
        return Ending.WHOLE if last[0].done else Ending.MISSING

    @staticmethod
    def ending_of_start(start: bytes) -> Ending:
        """Return how a line too long to be kept ends the stream, from its first bytes."""
        return Ending.WHOLE if b',"done":true,' in start else Ending.MISSING


def _check_slowly(units: bytes) -> None:
    """Accept what strict decoding refuses and clients read: lone surrogates, bytes that are not UTF-8."""
    for line in units.split(b"\n"):
        if not line.strip():
            continue
        try:
            is_object = isinstance(json.loads(line.decode("utf-8", "replace")), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise MalformedStream("a line that is not a JSON object")


class SseStream:
    """Server-sent events; `marks` says which event ends a stream of this dialect."""

    content_types = (b"text/event-stream", b"application/x-ndjson")
    """Ollama labels some event streams of /v1/responses as NDJSON."""
    separator = b"\n\n"

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        """Return how many bytes from the start are whole events."""
        if data.endswith(b"\n\n"):
            return len(data)
        lf = data.rfind(b"\n\n")
        crlf = data.rfind(b"\r\n\r\n")
        return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)

    @staticmethod
    def check(units: bytes) -> bytes:
        """Return whole events as they may go on. Raises `MalformedStream`."""
        if not units.startswith(_EVENT_STARTS) and not units.lstrip(b"\r\n").startswith(_EVENT_STARTS):
            raise MalformedStream("a line that is no server-sent event")
        return units

    def ending(self, units: bytes) -> Ending:
        """Return how the last of these whole events ends the stream."""
        name, data = _last_event(units)
        if data is None:
            return Ending.MISSING
        if data == b"[DONE]":
            return Ending.WHOLE
        try:
            event = _decode_event(data)
        except msgspec.DecodeError:
            return Ending.MISSING
        if name == b"error" or event.type == "error" or not _is_empty_error(event.error):
            return Ending.ERROR
        if self._dialect is Dialect.ANTHROPIC and event.type == "message_stop":
            return Ending.WHOLE
        if self._dialect is Dialect.RESPONSES:
            if event.type in _RESPONSES_ENDS:
                return Ending.WHOLE
            if event.type == "response.failed":
                return Ending.ERROR
        return Ending.MISSING

    def ending_of_start(self, start: bytes) -> Ending:
        """Return how an event too long to be kept ends the stream, from its first bytes."""
        name = start.lstrip(b"\r\n").partition(b"\n")[0].removeprefix(b"event:").strip().decode("latin-1")
        return Ending.WHOLE if name in _RESPONSES_ENDS else Ending.MISSING


def _last_event(units: bytes) -> tuple[bytes, bytes | None]:
    """Return name and data of the last event that has data; comments after it do not count."""
    for event in reversed(units.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n\n")):
        name, data = b"", None
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                data = line[5:].strip() if data is None else data + b"\n" + line[5:].strip()
            elif line.startswith(b"event:"):
                name = line[6:].strip()
        if data is not None:
            return name, data
    return b"", None


Stream = NdjsonStream | SseStream
_NDJSON = NdjsonStream()
_STREAMS: dict[Dialect, Stream] = {
    Dialect.OLLAMA: _NDJSON,
    Dialect.OPENAI: SseStream(Dialect.OPENAI),
    Dialect.RESPONSES: SseStream(Dialect.RESPONSES),
    Dialect.ANTHROPIC: SseStream(Dialect.ANTHROPIC),
}


def stream_of(dialect: Dialect, content_type: bytes) -> Stream | None:
    """Return how to read an answer that streams; None for one that does not."""
    if content_type.startswith(b"application/json"):
        return None
    stream = _STREAMS.get(dialect)
    if stream is not None and content_type.partition(b";")[0].strip().lower() in stream.content_types:
        return stream
    return None
