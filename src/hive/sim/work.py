"""The decision of a route: an answer that is ready, a list of lines, or work for a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hive.sim.surfaces import SimReply
from hive.sim.voices import Timings, Voice


@dataclass(frozen=True, slots=True)
class Lines:
    """The NDJSON lines of a pull or a create. The last one is the end mark."""

    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Utterance:
    """A speech with its voice."""

    voice: Voice
    is_stream: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """One reply that is made once a slot is held: embeddings, or the notice that the model is loaded."""

    reply: Callable[[Timings], SimReply]
    is_instant: bool
    """Is the reply sent without the time to a first token?"""


@dataclass(frozen=True, slots=True)
class Work:
    """A task that needs a slot of a model."""

    model: str
    """The model's full name."""
    num_ctx: int
    keep_alive: float | None
    task: Utterance | Settlement


Decision = SimReply | Lines | Work
