"""The table of what an engine's refusal means: is another engine tried, is the node to blame, what does the client see?

Three generations of Ollama say the same in different words, and some tasks only one of them can do: such rows name the
versions that they are about. Each row is tested on the words of real engines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from hive import errors
from hive.errors import Kind
from hive.fleet.kinds import EngineKind, version_numbers


class Verdict(Enum):
    """What to do with an answer that is no success."""

    PASS = "pass"  # noqa: S105 - not a password
    """The answer is about the request: the client sees it as it is."""
    BUSY = "busy"
    """The ticket waits for a slot again, and this was no attempt."""
    ELSEWHERE = "elsewhere"
    """Another node is tried; if there is none, the client sees `Row.kind` or the answer itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an answer with this status whose body contains one of `texts` (any, when empty)."""

    kinds: frozenset[EngineKind] | None
    status: int
    texts: tuple[bytes, ...]
    verdict: Verdict
    kind: Kind | None = None
    """What the client sees instead of the engine's answer when no other node helped; None: the answer itself."""
    blames: bool = False
    """Is the node to blame? Not for a model or a route that it lacks."""
    since: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    """The row is about versions from `since` on and below `before`. An unreadable version is in every range."""

    def fits(self, kind: EngineKind, status: int, body: bytes, numbers: tuple[int, ...]) -> bool:
        """Is this row about such an answer?"""
        if self.status != status or (self.kinds is not None and kind not in self.kinds):
            return False
        if numbers and (numbers < self.since or (self.before and numbers >= self.before)):
            return False
        return not self.texts or any(text in body for text in self.texts)


_OLLAMA = frozenset({EngineKind.OLLAMA})
_OTHERS = frozenset(EngineKind) - _OLLAMA
_DIED = (
    b"process has terminated",  # "llama runner process", since 0.30 "llama-server process"
    b"process no longer running",
    b"has unexpectedly stopped",
    b"exited unexpectedly",
    b"runner crashed",
    b"subprocess may have crashed",
    b"closed response before completion",
    b"an error was encountered while running the model",
    b"requires more system memory",
    b"unable to load model",
    b"error loading model",
    b"model failed to load",
    b"llama-server load failed",
    b"llama-server startup failed",
    b"timed out waiting for llama",
    b"timed out waiting for mlx runner",
    b"cudaMalloc failed",
    b"out of memory",
)
_LOST_RUNNER = (
    b"dial tcp 127.0.0.1:",
    b"read tcp 127.0.0.1:",
    b"write tcp 127.0.0.1:",
    b':"connection refused"',
)
"""The words of an Ollama about its own connection to its runner."""
_LACKS = (b"not found", b"Not Found", b"does not exist", b"method not allowed", b"Method Not Allowed")
"""The engine lost the model, or never had the route: another node may have both."""

TABLE: tuple[Row, ...] = (
    Row(_OLLAMA, 503, (b"server busy", b"maximum pending requests"), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 503, (b"Loading model",), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 503, (b"busy", b"no slot", b"overloaded", b"too many"), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 429, (), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 401, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB, blames=True),
    Row(None, 403, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB, blames=True),
    Row(None, 407, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB, blames=True),
    # Before 0.33 an Ollama refuses tools where the template has none; later ones answer all the same.
    Row(_OLLAMA, 400, (b"does not support tools",), Verdict.ELSEWHERE, before=(0, 33)),
    Row(None, 404, _LACKS, Verdict.ELSEWHERE),
    Row(None, 405, _LACKS, Verdict.ELSEWHERE),
    Row(_OTHERS, 405, (), Verdict.ELSEWHERE),
    Row(None, 499, (), Verdict.ELSEWHERE, errors.NODE_FAILED, blames=True),
    # The words quote the model's output, which may be anything.
    Row(_OLLAMA, 500, (b"error parsing tool call",), Verdict.PASS),
    Row(_OLLAMA, 500, _LOST_RUNNER, Verdict.ELSEWHERE, blames=True),
    Row(None, 500, _DIED, Verdict.ELSEWHERE, blames=True),
    # An Ollama before 0.33 embeds with a chat model, and so does a llama.cpp that was started for it.
    Row(None, 501, (b"does not support embeddings",), Verdict.ELSEWHERE),
    Row(None, 502, (), Verdict.ELSEWHERE, blames=True),
    Row(None, 503, (), Verdict.ELSEWHERE, blames=True),
    Row(None, 504, (), Verdict.ELSEWHERE, blames=True),
)
_PASS = Row(None, 0, (), Verdict.PASS)
_REDIRECT = Row(None, 0, (), Verdict.ELSEWHERE, errors.NODE_FAILED, blames=True)
"""The hub follows no redirect of an engine, and passes none on."""


def judge(kind: EngineKind, status: int, body: bytes, version: str = "", *, is_relayed: bool = False) -> Row:
    """Return the first row that fits an engine's answer; if none does, a row that passes the answer on.

    `is_relayed`: another machine refused, and the engine only passed this on. So the engine is not to blame, and has
    not run out of slots.
    """
    if 300 <= status < 400:
        return _REDIRECT
    numbers = version_numbers(version)
    for row in TABLE:
        if row.fits(kind, status, body, numbers):
            is_theirs = is_relayed and (row.blames or row.verdict is Verdict.BUSY)
            return replace(row, verdict=Verdict.ELSEWHERE, blames=False) if is_theirs else row
    return _PASS
