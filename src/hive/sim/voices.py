"""How an answer is put on the wire: the speech, and what each dialect's voice has to do with it."""

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
    """Where the time of one answer went, in nanoseconds."""

    total: int = 0
    load: int = 0
    prompt: int = 0
    eval: int = 0


@dataclass(frozen=True, slots=True)
class Speech:
    """What will be said: thoughts, then either words or a tool call."""

    prompt_tokens: int
    words: list[Word] = field(default_factory=list)
    thoughts: list[Word] = field(default_factory=list)
    call: ToolCall | None = None
    reason: str = "stop"

    @property
    def tokens(self) -> int:
        """The answer's length; a tool call counts as the words it would have been."""
        return len(self.words) + len(self.thoughts)

    @property
    def text(self) -> str:
        """The words joined."""
        return "" if self.call else "".join(word.text for word in self.words)

    @property
    def thinking(self) -> str:
        """The thoughts joined."""
        return "".join(word.text for word in self.thoughts)


class Voice(Protocol):
    """Puts one speech on the wire; every method returns the bytes of one HTTP chunk."""

    content_type: str
    speech: Speech

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What its streams say in the head beside the content type."""

    def opening(self) -> bytes:
        """What precedes the first token; it goes out with it."""

    def thought(self, word: Word) -> bytes:
        """One token of thinking."""

    def token(self, word: Word) -> bytes:
        """One token of the answer."""

    def call(self, call: ToolCall) -> bytes:
        """A whole tool call."""

    def closing(self, timings: Timings) -> bytes:
        """All that follows the last token, the end mark last."""

    def error(self, text: str) -> bytes:
        """The dialect's error inside a stream."""

    def whole(self, timings: Timings) -> bytes:
        """The answer when nobody asked for a stream."""


_seconds: tuple[int, bytes] = (0, b"")


def timestamp(now_ns: int) -> bytes:
    """RFC 3339 in UTC with nanoseconds, as Go writes it."""
    global _seconds
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    if _seconds[0] != seconds:
        _seconds = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)).encode())
    return b"%b%09dZ" % (_seconds[1], nanoseconds)


def encode(value: object) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def event(value: object, name: str = "") -> bytes:
    """A server-sent event with this JSON."""
    head = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (head, encode(value))
