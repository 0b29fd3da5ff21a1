"""What real engines said, recorded beside the checkout (`../shared/transcripts`); nothing where it is not there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "transcripts"
OLLAMAS = ("ollama-0.5.4", "ollama-0.9.3", "ollama-0.24.0", "ollama-0.33.0-rc2")
LLAMAS = ("llama-server-b11434", "llama-server-debian-sid", "xllamacpp")

_MARK = re.compile(r"\[\+[0-9.]+ ms, .*\]")
_CHUNK_SIZE = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Recorded:
    """One recorded exchange: what was asked, and what came back without its framing."""

    engine: str
    name: str
    method: str
    path: str
    status: int
    content_type: str
    lines: tuple[str, ...]
    """Of the body, without empty ones."""

    @property
    def id(self) -> str:
        """Return what a test is called after it."""
        return f"{self.engine}/{self.name}"

    @property
    def body(self) -> bytes:
        """Return the body of an answer that is one text."""
        return "\n".join(self.lines).encode()

    def objects(self) -> list[dict[str, object]]:
        """Return every JSON object of the answer: of its lines, its events, or the one that it is."""
        texts = [line.removeprefix("data: ") for line in self.lines]
        return [json.loads(text) for text in texts if text.startswith("{")]


def recorded(*engines: str) -> list[Recorded]:
    """Return what was recorded of these engines, in order; nothing where the transcripts are not there."""
    paths = (path for engine in engines for path in sorted((FOLDER / engine).rglob("*.txt")))
    return [one for path in paths if (one := _read(path)) is not None]


def _read(path: Path) -> Recorded | None:
    """Read a transcript: sent lines begin with `>`, marks of time are in brackets; None where nothing came back."""
    text = path.read_text()
    sent = [line[2:] for line in text.splitlines() if line.startswith(">")]
    received = [line for line in text.splitlines() if not line.startswith(">") and not _MARK.fullmatch(line)]
    head, _, body = "\n".join(received).strip().partition("\n\n")
    if not sent or not head.startswith("HTTP/1.1 "):
        return None
    method, target, _ = sent[0].split(" ", 2)
    fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    is_chunked = fields.get("transfer-encoding") == "chunked"
    lines = [line for line in body.splitlines() if line and not line.startswith("[+")]
    if is_chunked:
        lines = [line for line in lines if not _CHUNK_SIZE.fullmatch(line)]
    engine = path.relative_to(FOLDER).parts[0]
    status, kind = int(head.split(" ")[1]), fields.get("content-type", "")
    return Recorded(engine, path.stem, method, target, status, kind, tuple(lines))
