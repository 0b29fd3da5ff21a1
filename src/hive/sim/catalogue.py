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
        """Is it more than an embedding model?"""
        return "completion" in self.capabilities

    @property
    def can_embed(self) -> bool:
        """Does it answer with vectors?"""
        return "embedding" in self.capabilities

    @property
    def can_think(self) -> bool:
        """Does it think aloud first?"""
        return "thinking" in self.capabilities


def make_model(name: str, modified: float) -> SimModel:
    """A model whose digest, size and abilities follow from its name, so that two engines agree about it."""
    digest = hashlib.sha256(f"simulated {name.lower()}".encode()).hexdigest()
    capabilities: tuple[str, ...] = ("completion", "tools")
    if "embed" in name:
        capabilities = ("embedding",)
    elif "think" in name:
        capabilities = ("completion", "tools", "thinking")
    return SimModel(name, digest, 400_000_000 + int(digest[:6], 16), modified, capabilities)


@dataclass(slots=True)
class Catalogue:
    """The models by lower-cased full name; a name is found whatever its case."""

    models: dict[str, SimModel] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    """Digests that were uploaded, `sha256:` first."""

    def add(self, name: str, modified: float) -> SimModel | None:
        """Adds the model, or finds it; None when the name is none."""
        full = full_name(name)
        if full is None:
            return None
        model = self.models.get(full.lower()) or make_model(full, modified)
        self.models[full.lower()] = model
        return model

    def find(self, name: str) -> SimModel | None:
        """The model of this name."""
        full = full_name(name)
        return None if full is None else self.models.get(full.lower())

    def copy(self, source: SimModel, name: str) -> None:
        """Makes `name` (a full one) another name for the same digest."""
        self.models[name.lower()] = replace(source, name=name)

    def remove(self, model: SimModel) -> None:
        """Forgets the model."""
        self.models.pop(model.name.lower(), None)

    def newest_first(self) -> list[SimModel]:
        """In the order in which Ollama lists them."""
        return sorted(self.models.values(), key=lambda model: -model.modified)
