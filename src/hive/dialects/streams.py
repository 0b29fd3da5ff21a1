"""Streams as clients read them: where a line or event ends, what is none, and what ends a stream for good."""

from __future__ import annotations

import json
from enum import Enum

import msgspec

from hive.dialects.tasks import Dialect


class Ending(Enum):
    """How the last whole unit of a stream ends it."""

    WHOLE = "whole"
    ERROR = "error"
    """With an error that the engine itself told the client."""
    MISSING = "missing"


class MalformedStream(ValueError):  # noqa: N818 - it names what arrived
    """A unit that no client could read."""


class _Unit(msgspec.Struct):
    """What the JSON of a line or an event may say of the end."""

    done: bool = False
    type: str = ""
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Unit).decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_NO_ERROR = frozenset({b"null", b'""'})
_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b""})
_RESPONSES_ENDS = frozenset({"response.completed", "response.incomplete"})
_OPENING_BRACE = ord("{")
_NOT_AT_ONCE = msgspec.DecodeError, UnicodeDecodeError, RecursionError


def _read(data: bytes) -> _Unit:
    """Return what a JSON object says; lenient, as clients are. Raises `MalformedStream` for what is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedStream("something that is not a JSON object")
    type_, error = value.get("type"), msgspec.Raw(b"1") if value.get("error") else msgspec.UNSET
    return _Unit(value.get("done") is True, type_ if isinstance(type_, str) else "", error)


def is_json(data: bytes) -> bool:
    """Could a client read this as one JSON value? Lenient, as clients are; what is nested too deeply is not judged."""
    try:
        _skip(data)
    except msgspec.DecodeError:
        try:
            json.loads(data.decode("utf-8-sig", "replace"), strict=False)
        except ValueError:
            return False
        except RecursionError:
            pass
    except RecursionError:
        pass
    return True


class NdjsonStream:
    """One JSON object a line (the Ollama API). Blank lines are never passed on: three clients break on them."""

    content_types = (b"application/x-ndjson",)
    separator = b"\n"

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        """Return how many bytes from the start are whole lines."""
        return data.rfind(b"\n") + 1

    @staticmethod
    def first_bytes(data: bytes) -> int:
        """Return how many bytes from the start are the first whole line."""
        return data.find(b"\n") + 1

    @staticmethod
    def check_one(data: bytes) -> Ending | None:
        """Return how a single plain line ends the stream; None for anything else: it may not refuse."""
        if data[0] != _OPENING_BRACE or data.find(b"\n") != len(data) - 1:
            return None
        try:
            unit = _decode(data)
        except _NOT_AT_ONCE:
            return None
        return Ending.MISSING if unit.error is msgspec.UNSET and not unit.done else _ending_of_line(unit)

    @staticmethod
    def check(units: bytes) -> tuple[bytes, Ending | None]:
        """Return whole lines as they may go on, and how the last ends the stream. Raises `MalformedStream`."""
        lines = [line for line in units.split(b"\n") if line.strip()]
        if not lines:
            return b"", None
        for line in lines:
            unit = _read(line)
        return b"\n".join(lines) + b"\n", _ending_of_line(unit)

    def ending(self, unit: bytes) -> Ending:
        """Return how a line without its line end would end the stream."""
        try:
            return self.check(unit + b"\n")[1] or Ending.MISSING
        except MalformedStream:
            return Ending.MISSING

    @staticmethod
    def ending_of_start(start: bytes) -> Ending:
        """Return how a line too long to be kept ends the stream, from its first bytes."""
        return Ending.WHOLE if b',"done":true,' in start else Ending.MISSING


def _tells_error(unit: _Unit) -> bool:
    return isinstance(unit.error, msgspec.Raw) and bytes(unit.error) not in _NO_ERROR


def _ending_of_line(unit: _Unit) -> Ending:
    if _tells_error(unit):
        return Ending.ERROR
    return Ending.WHOLE if unit.done else Ending.MISSING


class SseStream:
    """Server-sent events; the dialect says which event ends a stream."""

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
    def first_bytes(data: bytes) -> int:
        """Return how many bytes from the start are the first whole event."""
        lf, crlf = data.find(b"\n\n"), data.find(b"\r\n\r\n")
        return crlf + 4 if crlf >= 0 and (lf < 0 or crlf < lf) else lf + 2 if lf >= 0 else 0

    def check_one(self, data: bytes) -> Ending | None:
        """Return how a single plain event ends the stream; None for anything else: it may not refuse."""
        if not data.startswith(b"data: {") or data.find(b"\n") != len(data) - 2:
            return None
        try:
            unit = _decode(data[6:])
        except _NOT_AT_ONCE:
            return None
        return self._ending_of_unit(b"", unit)

    def check(self, units: bytes) -> tuple[bytes, Ending | None]:
        """Return whole events as they may go on, and how the last with data ends the stream; None without data.

        Raises `MalformedStream`.
        """
        ending: Ending | None = None
        plain = units.replace(b"\r\n", b"\n") if b"\r" in units else units
        for event in plain.split(b"\n\n"):
            name, data = _parse(event)
            if data:
                ending = self._ending_of(name, data)
        return units, ending

    def ending(self, unit: bytes) -> Ending:
        """Return how an event without its blank line would end the stream."""
        try:
            return self.check(unit + b"\n\n")[1] or Ending.MISSING
        except MalformedStream:
            return Ending.MISSING

    def ending_of_start(self, start: bytes) -> Ending:
        """Return how an event too long to be kept ends the stream, from its first bytes."""
        name = start.lstrip(b"\r\n").partition(b"\n")[0].removeprefix(b"event:").strip().decode("latin-1")
        return Ending.WHOLE if name in _RESPONSES_ENDS else Ending.MISSING

    def _ending_of(self, name: bytes, data: bytes) -> Ending:
        if data == b"[DONE]":
            return Ending.WHOLE
        return self._ending_of_unit(name, _read(data))

    def _ending_of_unit(self, name: bytes, unit: _Unit) -> Ending:
        if name == b"error" or unit.type == "error" or _tells_error(unit):
            return Ending.ERROR
        if self._dialect is Dialect.ANTHROPIC and unit.type == "message_stop":
            return Ending.WHOLE
        if self._dialect is Dialect.RESPONSES:
            if unit.type in _RESPONSES_ENDS:
                return Ending.WHOLE
            if unit.type == "response.failed":
                return Ending.ERROR
        return Ending.MISSING


def _parse(event: bytes) -> tuple[bytes, bytes]:
    """Return name and data of an event; empty data for comments. Raises `MalformedStream` for an unknown field."""
    name, data = b"", b""
    for line in event.split(b"\n"):
        if not line:
            continue
        key, _, value = line.partition(b":")
        if key not in _FIELDS:
            raise MalformedStream("a line that is no server-sent event")
        if key == b"data":
            data = data + b"\n" + value.strip() if data else value.strip()
        elif key == b"event":
            name = value.strip()
    return name, data


Stream = NdjsonStream | SseStream
_STREAMS: dict[Dialect, Stream] = {
    Dialect.OLLAMA: NdjsonStream(),
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
