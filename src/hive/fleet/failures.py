"""The table of what an engine's refusal means: try elsewhere? whose fault? what does the client see?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hive import errors
from hive.errors import Kind
from hive.fleet.engines import EngineKind


class Verdict(Enum):
    """What to do with an answer that is no success."""

    PASS = "pass"  # noqa: S105 - not a password
    """It is about the request: the client sees it as it is."""
    BUSY = "busy"
    """Wait for a slot again; this was no attempt."""
    ELSEWHERE = "elsewhere"
    """Try another node; if there is none, the client sees `Row.kind` or the answer itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an answer with this status whose body contains one of `texts` (any, when empty)."""

    kinds: frozenset[EngineKind] | None
    status: int
    texts: tuple[bytes, ...]
    verdict: Verdict
    kind: Kind | None = None
    """What the client sees instead of the engine's answer when no other node helped; None: the answer itself."""


_OLLAMA = frozenset({EngineKind.OLLAMA})
_OTHERS = frozenset(EngineKind) - _OLLAMA
_DIED = (
    b"runner process has terminated",
    b"runner has unexpectedly stopped",
    b"an error was encountered while running the model",
    b"requires more system memory",
    b"unable to load model",
    b"error loading model",
    b"model failed to load",
    b"timed out waiting for llama runner",
    b"cudaMalloc failed",
    b"out of memory",
)

TABLE: tuple[Row, ...] = (
    Row(_OLLAMA, 503, (b"server busy", b"maximum pending requests"), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 503, (b"Loading model",), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 503, (b"busy", b"no slot", b"overloaded", b"too many"), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 429, (), Verdict.BUSY, errors.NODE_BUSY),
    Row(None, 401, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB),
    Row(None, 403, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB),
    Row(None, 407, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB),
    Row(None, 404, (b"not found", b"Not Found", b"does not exist"), Verdict.ELSEWHERE),
    Row(_OTHERS, 405, (), Verdict.ELSEWHERE),
    Row(None, 499, (), Verdict.ELSEWHERE, errors.NODE_FAILED),
    Row(None, 500, _DIED, Verdict.ELSEWHERE),
    Row(None, 502, (), Verdict.ELSEWHERE),
    Row(None, 503, (), Verdict.ELSEWHERE),
    Row(None, 504, (), Verdict.ELSEWHERE),
)
_PASS = Row(None, 0, (), Verdict.PASS)
_REDIRECT = Row(None, 0, (), Verdict.ELSEWHERE, errors.NODE_FAILED)
"""The hub follows no engine elsewhere, and sends no client there."""


def judge(kind: EngineKind, status: int, body: bytes) -> Row:
    """Return the first row that fits an engine's answer; one that passes it on when none does."""
    if 300 <= status < 400:
        return _REDIRECT
    for row in TABLE:
        if row.status != status or (row.kinds is not None and kind not in row.kinds):
            continue
        if not row.texts or any(text in body for text in row.texts):
            return row
    return _PASS
