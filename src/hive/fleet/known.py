"""What an engine says of itself: its kind, version, routes and models, and which models are in its memory.

Its `Watcher` writes a `Known`, mostly through `Fleet.learn` and its kin. Everything here can be asked again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hive.fleet.kinds import EngineKind, Routes, routes_of


@dataclass(frozen=True, slots=True)
class Model:
    """One model on one engine. `tags`, `ps` and `listed` are JSON objects of the three listings, as bytes."""

    key: str
    """The canonical name."""
    id: str
    """How the engine itself spells it."""
    digest: str
    size_bytes: int
    modified_at: str
    """RFC 3339; sorts the listing."""
    tags: bytes
    listed: bytes
    is_remote: bool = False
    """Does the engine pass requests for this model on to a service elsewhere? Then the model is never in its memory."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One model that an engine has in memory."""

    key: str
    expires_at: str
    ps: bytes


@dataclass(frozen=True, slots=True)
class EngineReport:
    """The answers of an engine that was asked what it is and what it has."""

    kind: EngineKind
    version: str
    models: tuple[Model, ...]
    loaded: tuple[LoadedModel, ...] | None
    """None: the engine was not asked for its loaded models."""
    slots: int | None = None
    """The number of slots that the engine itself states."""


@dataclass(slots=True)
class Known:
    """What is known of one engine, from the engine itself or from its node."""

    kind: EngineKind = EngineKind.UNKNOWN
    version: str = ""
    routes: Routes = field(default_factory=lambda: routes_of(EngineKind.UNKNOWN, ""))
    """The routes that an engine of this kind and version has."""
    reported_slots: int | None = None
    """The number of slots that the engine, or its node, states."""
    memory_bytes: int | None = None
    """How much memory its models may take; None when nothing states it."""
    round_trip: float = 0.0
    """Seconds to the engine and back, as measured."""
    models: dict[str, Model] = field(default_factory=dict)
    """The models that it lists, by canonical name."""
    loaded: dict[str, LoadedModel] = field(default_factory=dict)
    """The models that it lists as in its memory, by the name that they were loaded by."""
    warm: set[str] = field(default_factory=set)
    """Names of models that need no load: the models in memory, by all their names, and those that need no memory."""
    relays_any: bool = False
    """Does it list a model for which another machine works?"""
    is_stale: bool = False
    """Has something happened that may have changed which models are loaded?"""

    def find_warm(self) -> None:
        """Work out `warm` and `relays_any` again, after `models` or `loaded` has changed."""
        models = self.models
        digests = {models[key].digest for key in self.loaded if key in models} - {""}
        relayed = {key for key, model in models.items() if model.is_remote}
        self.relays_any = bool(relayed)
        self.warm = relayed | {key for key, model in models.items() if model.digest in digests}
        self.warm.update(self.loaded)

    def names_of(self, model: str) -> set[str]:
        """Return all names that one model has on this engine: the names share one place in its memory."""
        found = self.models.get(model)
        if found is None or not found.digest:
            return {model}
        return {key for key, each in self.models.items() if each.digest == found.digest}
