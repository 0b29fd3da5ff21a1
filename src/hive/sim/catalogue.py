"""The models on the engine's disk: names, digests, sizes and what each can do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from hive.sim.names import full_name


@dataclass(frozen=True, slots=True)
class SimModel:
    """One model as `/api/tags` lists it."""

    name: str
    digest: str
    size_bytes: int
    modified: float
    """Seconds since 1970."""
    capabilities: tuple[str, ...]

    @property
    def can_talk(self) -> bool:
        """Does the model generate text? (It is more than an embedding model.)"""
        return "completion" in self.capabilities

    @property
    def can_embed(self) -> bool:
        """Does it answer with vectors?"""
        return "embedding" in self.capabilities

    @property
    def can_think(self) -> bool:
        """Does the model write its thoughts before its answer?"""
        return "thinking" in self.capabilities


def make_model(name: str, modified: float) -> SimModel:
    """Return a model. Digest, size and abilities depend on the name only, so two engines have the same model."""
    digest = hashlib.sha256(f"simulated {name.lower()}".encode()).hexdigest()
    capabilities: tuple[str, ...] = ("completion", "tools")
    if "embed" in name:
        capabilities = ("embedding",)
    elif "think" in name:
        capabilities = ("completion", "tools", "thinking")
    return SimModel(name, digest, 400_000_000 + int(digest[:6], 16), modified, capabilities)


@dataclass(slots=True)
class Catalogue:
    """The models, by their full names in lower case. A look-up ignores case."""

    models: dict[str, SimModel] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    """Digests of uploaded blobs, with `sha256:` before each."""

    def add(self, name: str, modified: float) -> SimModel | None:
        """Add a model and return it. An existing one is returned as it is; None when the name is not valid."""
        full = full_name(name)
        if full is None:
            return None
        model = self.models.get(full.lower()) or make_model(full, modified)
        self.models[full.lower()] = model
        return model

    def find(self, name: str) -> SimModel | None:
        """Return the model of this name; None when there is none."""
        full = full_name(name)
        return None if full is None else self.models.get(full.lower())

    def copy(self, source: SimModel, name: str) -> None:
        """Add `name`, which must be a full name, as another name for the same digest."""
        self.models[name.lower()] = replace(source, name=name)

    def remove(self, model: SimModel) -> None:
        """Forget the model."""
        self.models.pop(model.name.lower(), None)

    def newest_first(self) -> list[SimModel]:
        """Return the models in the order in which Ollama lists them."""
        return sorted(self.models.values(), key=lambda model: -model.modified)
