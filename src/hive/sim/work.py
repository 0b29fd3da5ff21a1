"""What a route decides: an answer that is ready, lines that follow one another, or work for a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hive.sim.surfaces import SimReply
from hive.sim.voices import Timings, Voice


@dataclass(frozen=True, slots=True)
class Lines:
    """NDJSON lines of a pull or a create; the last one is the end mark."""

    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """A speech in a voice."""

    voice: Voice
    is_stream: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """One reply that is made when a slot is held: embeddings, or the news that the model is loaded."""

    reply: Callable[[Timings], SimReply]
    is_instant: bool
    """Does it come without the time to a first token?"""


@dataclass(frozen=True, slots=True)
class Work:
    """Something that needs a slot of a model."""

    model: str
    """Its full name."""
    num_ctx: int
    keep_alive: float | None
    task: Utterance | Settlement


Decision = SimReply | Lines | Work
