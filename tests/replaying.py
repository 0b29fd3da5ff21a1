"""Engines that replay what real Ollamas of newer generations answered, byte for byte (`recorded/ollama-VERSION`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hive.testing.scripted import Call, ScriptedEngine

GENERATIONS = ("ollama-0.24.0", "ollama-0.33.0-rc2")
_MARK = re.compile(rb"\n\[\+[0-9.]+ ms, (?:([0-9]+) bytes|[a-z ]+)\]\n")
_LISTINGS = ("02-version", "09-tags", "18-ps-loaded", "37-v1-models", "38-v1-model")


@dataclass(frozen=True)
class Recording:
    """One exchange: what was asked, and the bytes that came back."""

    name: str
    method: str
    path: str
    body: bytes
    """Of the request; empty where the recording only counts it."""
    status: int
    head: bytes
    """Of the answer, with the empty line."""
    pieces: tuple[bytes, ...]
    """What followed, chunk by chunk with its framing; one piece where the answer is not chunked."""

    @property
    def is_stream(self) -> bool:
        """Is this an answer whose end a client is told by its last line or event?"""
        return b"ndjson" in self.head or b"event-stream" in self.head

    @property
    def answer_body(self) -> bytes:
        """Return the body of the answer without its framing."""
        if b"Transfer-Encoding: chunked" not in self.head:
            return b"".join(self.pieces)
        return b"".join(piece.partition(b"\r\n")[2][:-2] for piece in self.pieces)

    def answering(self, *chunks: bytes, pieces: int) -> Recording:
        """Return the recording with only some of its pieces, followed by other chunks."""
        framed = tuple(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        return replace(self, pieces=self.pieces[:pieces] + framed)

    def replay(self, call: Call) -> None:
        """Answer as it was recorded, and close the connection, as the head says."""
        call.send(self.head + b"".join(self.pieces))
        call.close()


class ReplayingEngine(ScriptedEngine):
    """An Ollama of one generation: its version and listings are recorded ones, and so is each answer."""

    def __init__(self, generation: str) -> None:
        self.recordings = recordings_of(generation)
        self._listings = {self.recordings[name].path: self.recordings[name] for name in _LISTINGS}
        tags = json.loads(self.recordings["09-tags"].answer_body)
        super().__init__(models=[model["name"] for model in tags["models"]])
        self.closes_after_probe = True

    def will_answer(self, recording: Recording) -> None:
        """Let every request for work be answered as in this recording."""
        self.scripts = (recording.replay,)

    def probe_answer(self, path: str) -> bytes:
        """Return what was recorded for this path."""
        known = self._listings.get(path)
        return super().probe_answer(path) if known is None else known.head + b"".join(known.pieces)


@contextmanager
def replaying(generation: str) -> Iterator[ReplayingEngine]:
    """A running engine of a generation for the length of the block; raises what its scripts raised."""
    engine = ReplayingEngine(generation)
    try:
        yield engine
    finally:
        engine.close()
    if engine.errors:
        raise engine.errors[0]


def recordings_of(generation: str) -> dict[str, Recording]:
    """Return every recording of a generation by its name; they stand in more than one folder of the tests."""
    paths = Path(__file__).parent.rglob(f"recorded/{generation}/*.txt")
    return {path.stem: _read(path) for path in sorted(paths, key=lambda path: path.stem)}


def _read(path: Path) -> Recording:
    """Read a transcript: sent lines begin with `>`, pieces with a mark of time and length, CRLF is shown as LF."""
    asked, *rest = _MARK.split(path.read_bytes())
    lines = [line[2:] for line in asked.splitlines() if line.startswith(b">")]
    end = lines.index(b"")
    body = b"\n".join(lines[end + 1 :])
    method, target, _ = lines[0].decode().split(" ", 2)
    counts, texts = rest[0::2], rest[1::2]
    head, _, received = b"".join(texts[: len(texts) - 1]).partition(b"\n\n")
    head = head.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    pieces = tuple(_chunks(received)) if b"Transfer-Encoding: chunked" in head else (received,)
    recording = Recording(
        path.stem, method, target, b"" if body.endswith(b" bytes, binary)") else body, int(head[9:12]), head, pieces
    )
    assert len(head + b"".join(pieces)) == sum(int(count) for count in counts if count), f"{path}: not as it was sent"
    return recording


def _chunks(received: bytes) -> Iterator[bytes]:
    """Yield each chunk with its framing, the last and empty one too."""
    while received:
        size, _, rest = received.partition(b"\n")
        length = int(size, 16)
        yield b"%b\r\n%b\r\n" % (size, rest[:length])
        received = rest[length + 1 :]
