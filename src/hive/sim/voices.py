"""How an answer is written: the speech, and what the voice of each dialect must do with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from hive.sim.options import ToolCall
from hive.sim.words import Word

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"

Clock = Callable[[], int]
"""Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The times of one answer, in nanoseconds."""

    total: int = 0
    load: int = 0
    prompt: int = 0
    eval: int = 0


@dataclass(frozen=True, slots=True)
class Speech:
    """The content of an answer: thoughts, then either words or a tool call."""

    prompt_tokens: int
    words: list[Word] = field(default_factory=list)
    thoughts: list[Word] = field(default_factory=list)
    call: ToolCall | None = None
    reason: str = "stop"

    @property
    def tokens(self) -> int:
        """Return the length in tokens. A tool call counts as the words that it replaces."""
        return len(self.words) + len(self.thoughts)

    @property
    def text(self) -> str:
        """Return the words joined."""
        return "" if self.call else "".join(word.text for word in self.words)

    @property
    def thinking(self) -> str:
        """Return the thoughts joined."""
        return "".join(word.text for word in self.thoughts)


class Voice(Protocol):
    """Writes one speech in a dialect. Every method returns the bytes of one HTTP chunk."""

    content_type: str
    speech: Speech

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields of a stream, besides the content type."""

    def opening(self) -> bytes:
        """Return the bytes before the first token, in the same chunk."""

    def thought(self, word: Word) -> bytes:
        """Return one token of thinking."""

    def token(self, word: Word) -> bytes:
        """Return one token of the answer."""

    def call(self, call: ToolCall) -> bytes:
        """Return a whole tool call."""

    def closing(self, timings: Timings) -> bytes:
        """Return everything after the last token; the end mark is last."""

    def error(self, text: str) -> bytes:
        """Return the dialect's error inside a stream."""

    def whole(self, timings: Timings) -> bytes:
        """Return the answer as one body, when the client wants no stream."""


_seconds: tuple[int, bytes] = (0, b"")


def timestamp(now_ns: int) -> bytes:
    """Return RFC 3339 in UTC with nanoseconds, as Go writes it."""
    global _seconds
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    if _seconds[0] != seconds:
        _seconds = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)).encode())
    return b"%b%09dZ" % (_seconds[1], nanoseconds)


def encode(value: object) -> bytes:
    """Return compact JSON."""
    return msgspec.json.encode(value)


def event(value: object, name: str = "") -> bytes:
    """Return a server-sent event with this JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (head, encode(value))
