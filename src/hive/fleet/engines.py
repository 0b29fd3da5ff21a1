"""What the hub knows of its nodes and their engines: kind, version, models, what is loaded, what runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hive.dialects.operations import Dialect, Operation


class EngineKind(StrEnum):
    """The servers that are told apart; everything else that lists /v1/models is `OPENAI`."""

    UNKNOWN = "unknown"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OPENAI = "openai"


class Health(StrEnum):
    """May an engine get work?"""

    JOINING = "joining"
    """Never heard of yet."""
    READY = "ready"
    SUSPECT = "suspect"
    """No sign of life for `SUSPECT_AFTER` seconds."""
    DOWN = "down"
    """It refused, or answered something else than an engine would."""


SUSPECT_AFTER = 5.0
DEFAULT_SLOTS = {EngineKind.OLLAMA: 4, EngineKind.LLAMA_CPP: 4, EngineKind.VLLM: 32}
OTHER_SLOTS = 8

_OLLAMA_SINCE = {"/v1/messages": (0, 14, 0), "/v1/responses": (0, 13, 3), "/v1/audio/transcriptions": (0, 20, 0)}
"""The release that first had a route."""
_OLLAMA_NEVER = frozenset({"/v1/messages/count_tokens", "/v1/audio/translations", "/v1/audio/speech", "/v1/rerank"})


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "0.33.0-rc2" is (0, 33, 0). Empty when there are none."""
    numbers: list[int] = []
    for part in version.split("-")[0].split("+")[0].split("."):
        if not part.isascii() or not part.isdigit():
            break
        numbers.append(int(part[:9]))
    return tuple(numbers)


def routes_lacking(kind: EngineKind, version: str) -> frozenset[str]:
    """Return the paths that an engine of this version does not have; an unreadable version has all that ever were."""
    if kind is not EngineKind.OLLAMA:
        return frozenset()
    numbers = version_numbers(version)
    return _OLLAMA_NEVER | {path for path, since in _OLLAMA_SINCE.items() if numbers and numbers < since}


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


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One entry of what an engine has in memory."""

    key: str
    expires_at: str
    ps: bytes


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What asking an engine brought."""

    kind: EngineKind
    version: str
    models: tuple[Model, ...]
    loaded: tuple[LoadedModel, ...]
    slots: int | None = None
    """What the engine itself says of its slots."""


@dataclass(slots=True, eq=False)
class Engine:
    """An engine and its live state. One writer each: probes write what is known, the dispatcher what runs."""

    node: str
    url: str
    configured_slots: int | None = None
    id: str = ""
    """A joined node's own name for it; a dialed node has one engine only."""
    kind: EngineKind = EngineKind.UNKNOWN
    version: str = ""
    health: Health = Health.JOINING
    error: str = ""
    """Why it is not ready, in one sentence."""
    slots: int = OTHER_SLOTS
    running: int = 0
    rests_until: float = 0.0
    """It said busy: no new work before this time."""
    last_sign: float = 0.0
    """When it last gave a sign of life; the hub's clock, seconds."""
    is_stale: bool = False
    """Something happened that may have changed what is loaded."""
    is_draining: bool = False
    """Somebody wants its node empty: what runs goes on, and nothing new begins."""
    lacks: frozenset[str] = frozenset()
    """Paths of routes that its version does not have."""
    models: dict[str, Model] = field(default_factory=dict)
    loaded: dict[str, LoadedModel] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Engine {self.node} {self.kind} {self.version} {self.health} {self.running}/{self.slots}>"

    @property
    def takes_work(self) -> bool:
        """May it get an exchange, free slots aside?"""
        return self.health is Health.READY and not self.is_draining

    @property
    def has_free_slot(self) -> bool:
        """Can it take one more exchange now?"""
        return self.running < self.slots

    def serves(self, operation: Operation) -> bool:
        """Does this engine itself have the route?"""
        if self.kind is EngineKind.OLLAMA:
            return operation.path not in self.lacks
        return operation.dialect is not Dialect.OLLAMA


class Fleet:
    """All engines, and which of them has which model. Written by the probes, read by every request."""

    def __init__(self, engines: Iterable[Engine] = ()) -> None:
        self.engines: list[Engine] = list(engines)
        self.revision = 0
        """Rises with every change of what listings show."""
        self._having: dict[str, list[Engine]] | None = {}
        """None: it is to be built anew."""

    def having(self, key: str) -> list[Engine]:
        """Return the engines that list a model (canonical name), whatever their health."""
        if self._having is None:  # only now: a report of many engines changes it many times
            self._having = self._index()
        return self._having.get(key, [])

    def learn(self, engine: Engine, report: EngineReport) -> bool:
        """Take what an engine reported; return whether a listing changed."""
        engine.kind, engine.version = report.kind, report.version
        engine.lacks = routes_lacking(report.kind, report.version)
        engine.slots = engine.configured_slots or report.slots or DEFAULT_SLOTS.get(report.kind, OTHER_SLOTS)
        models = {model.key: model for model in report.models}
        changed = models != engine.models
        if changed:
            engine.models = models
            self._change()
        return self.learn_loaded(engine, report.loaded) or changed

    def learn_loaded(self, engine: Engine, loaded: Iterable[LoadedModel]) -> bool:
        """Take what an engine has in memory; return whether that changed."""
        now_loaded = {model.key: model for model in loaded}
        if now_loaded == engine.loaded:
            return False
        engine.loaded = now_loaded
        self.revision += 1
        return True

    def set_health(self, engine: Engine, health: Health, error: str = "") -> bool:
        """Set an engine's health; return whether it changed."""
        engine.error = error
        if engine.health is health:
            return False
        engine.health = health
        self.revision += 1
        return True

    def add(self, engine: Engine) -> None:
        """A node has one more engine."""
        self.engines.append(engine)
        self._change()

    def remove(self, engine: Engine) -> None:
        """A node has this engine no more."""
        if engine in self.engines:
            self.engines.remove(engine)
            self._change()

    def _change(self) -> None:
        self._having = None
        self.revision += 1

    def _index(self) -> dict[str, list[Engine]]:
        having: dict[str, list[Engine]] = {}
        for engine in self.engines:
            for key in engine.models:
                having.setdefault(key, []).append(engine)
        return having
