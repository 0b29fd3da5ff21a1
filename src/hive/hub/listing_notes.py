"""Adds an event when an engine lists other models than before, or has other models in its memory.

Engines are asked for their lists every few seconds, and each answer of an Ollama has a new time at which a model leaves
its memory. Neither the question nor the new time is an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from hive.fleet.engines import Engine
from hive.fleet.known import Model
from hive.hub.event_log import EventLog
from hive.hub.events import EngineListing, EventKind, engine_subject

NAMED = 16
"""The most names of loaded models in an event."""


@dataclass(frozen=True, slots=True)
class _Noted:
    """What the last event said of an engine."""

    models: dict[str, Model]
    loaded: frozenset[str]

    def is_still_true(self, engine: Engine) -> bool:
        return self.loaded == engine.known.loaded.keys() and (
            self.models is engine.known.models or _digests(self.models) == _digests(engine.known.models)
        )


def _digests(models: dict[str, Model]) -> dict[str, str]:
    return {key: model.digest for key, model in models.items()}


class ListingNotes:
    """Remembers what was noted of each engine, so that only a change is noted."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._noted: dict[Engine, _Noted] = {}

    def note(self, engine: Engine) -> None:
        """Add an event with an engine's models, if they have changed."""
        noted = self._noted.get(engine)
        if noted is not None and noted.is_still_true(engine):
            return
        self._noted[engine] = _Noted(engine.known.models, frozenset(engine.known.loaded))
        names = tuple(sorted(engine.known.loaded)[:NAMED])
        details = EngineListing(engine.node, engine.id, len(engine.known.models), len(engine.known.loaded), names)
        self._events.append(EventKind.ENGINE_LISTING, engine_subject(engine.node, engine.id), details)

    def forget(self, engine: Engine) -> None:
        """Remember nothing more of an engine that is gone."""
        self._noted.pop(engine, None)
