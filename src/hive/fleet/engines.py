"""What the hub knows of its nodes and their engines: kind, version, models, what is loaded, what runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hive.dialects.tasks import Dialect, EngineRoute, Task
from hive.fleet.kinds import OTHER_SLOTS, EngineKind, Routes, routes_of, usual_slots
from hive.fleet.pace import Mean, Pace
from hive.fleet.signs import Signs


class Health(StrEnum):
    """May an engine get work? `hive.fleet.health` says when one becomes the other."""

    JOINING = "joining"
    """Never heard of yet, or not since the hub's start."""
    READY = "ready"
    DOUBTFUL = "doubtful"
    """It answers, but its streams have all fallen silent: work only where nobody else can do it."""
    SUSPECT = "suspect"
    """No sign of life for `SUSPECT_AFTER` seconds."""
    DOWN = "down"
    """It refused, or answered something else than an engine would."""
    DRAINING = "draining"
    """An operator wants it empty: what runs may end."""
    PROBATION = "probation"
    """Back from `DOWN`: one exchange at a time."""


IN_SERVICE = frozenset({Health.READY, Health.PROBATION})
"""States in which an engine gets work as a matter of course."""
SUSPECT_AFTER = 5.0
MOST_RELAYED = 32
"""Exchanges that an engine may pass on to another machine at the same time."""


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
    """Does the engine pass its requests on to a service elsewhere? Then it is never in its memory."""


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
    loaded: tuple[LoadedModel, ...] | None
    """None: it was not asked for that."""
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
    reported_slots: int | None = None
    """What the engine, or its node, says of its slots."""
    kind: EngineKind = EngineKind.UNKNOWN
    version: str = ""
    health: Health = Health.JOINING
    error: str = ""
    """Why it is not ready, in one sentence."""
    slots: int = OTHER_SLOTS
    """How many exchanges it is believed to run at once: the guess made whole, for each loaded model of some."""
    model_slots: int = OTHER_SLOTS
    """How many of them may be for one model."""
    limit: int = OTHER_SLOTS
    """How many exchanges it may run now: `slots`, less on probation and while it loads."""
    guess: float = OTHER_SLOTS
    """The slots as they are learned: halved when it says busy, raised again by success (`scheduling.slots`)."""
    first_slots: int = OTHER_SLOTS
    most_slots: int = OTHER_SLOTS
    """The guess begins at the one and never passes the other: as an operator or the engine said, else as is usual."""
    may_raise_at: float = 0.0
    """The guess stays as it is until then."""
    proven: float = float("inf")
    """So many exchanges with one model it was seen to run at once, or was said to: more may have to wait inside."""
    insides: int = 0
    """How often an exchange was found to wait inside it."""
    is_unproven: bool = False
    """Is it on probation?"""
    running: int = 0
    running_of: dict[str, int] = field(default_factory=dict)
    """The same by model."""
    ended: int = 0
    """How many exchanges have ended here."""
    relays_any: bool = False
    """Does it list a model for which another machine works?"""
    relaying: int = 0
    """How many exchanges it passes on to another machine now."""
    rests_until: float = 0.0
    """It said busy: no new work before this time."""
    loading: str = ""
    """The model that the hub has it load now."""
    loads_alone: bool = False
    """Does it load something that may evict what is there? Then nothing is given to it meanwhile."""
    loaded_as: dict[str, str] = field(default_factory=dict)
    """Models that the hub had it load, with the options that decide how (`Ticket.load_options`)."""
    memory_bytes: int | None = None
    """What models may take in its memory, if somebody said."""
    proven_bytes: int = 0
    """The sizes of the models that were seen in its memory at once, at most: so much is known to fit."""
    full_bytes: float = float("inf")
    """The sizes of models of which one had to go, at least: so much is known not to fit."""
    full_at: float = float("-inf")
    """When that was seen."""
    listed_at: float = float("-inf")
    """When it was last asked what it has in memory."""
    paces: dict[str, Pace] = field(default_factory=dict)
    """How fast it was, by model."""
    service: Mean = field(default_factory=Mean)
    """Seconds that an exchange takes here, whatever the model."""
    relative: Mean = field(default_factory=Mean)
    """How its seconds compare with the fleet's for the same models: 2 is half as fast."""
    load_rate: Mean = field(default_factory=Mean)
    """Seconds it takes to load a byte of a model."""
    round_trip: float = 0.0
    """Seconds to it and back, measured."""
    signs: Signs = field(default_factory=Signs)
    """Of its life."""
    is_stale: bool = False
    """Something happened that may have changed what is loaded."""
    routes: Routes = field(default_factory=lambda: routes_of(EngineKind.UNKNOWN, ""))
    """The routes that an engine of its kind and version has."""
    models: dict[str, Model] = field(default_factory=dict)
    loaded: dict[str, LoadedModel] = field(default_factory=dict)
    """What it lists as in its memory, by the name that it was loaded by."""
    warm: set[str] = field(default_factory=set)
    """Models that need no load: what is in memory, by all its names, and what needs no memory."""

    def __post_init__(self) -> None:
        self.model_slots = self.limit = self.slots
        self.find_warm()

    def __repr__(self) -> str:
        return f"<Engine {self.node} {self.kind} {self.version} {self.health} {self.running}/{self.slots}>"

    @property
    def takes_work(self) -> bool:
        """May it get an exchange, free slots aside?"""
        return self.health in IN_SERVICE

    @property
    def is_last_resort(self) -> bool:
        """May it get an exchange that nobody else can take?"""
        return self.health is Health.DOUBTFUL

    @property
    def is_sized(self) -> bool:
        """Did an operator say how many slots it has? An Ollama itself never does, so it was its node's."""
        is_reported = self.reported_slots is not None and self.kind is EngineKind.OLLAMA
        return self.configured_slots is not None or is_reported

    @property
    def loads_models(self) -> bool:
        """Does it load models on demand? Others have in memory whatever they list."""
        return self.kind is EngineKind.OLLAMA

    def is_warm(self, model: str, load_options: str = "") -> bool:
        """Could it begin a request for this model, with these options, without loading anything?"""
        if self.kind is not EngineKind.OLLAMA:
            return True
        if model == self.loading:
            return False  # whatever it lists: a model stands there from the moment in which its load begins
        known = self.loaded_as.get(model)
        return known == load_options if known is not None else model in self.warm

    def relays(self, model: str) -> bool:
        """Does another machine work for this model (Ollama's cloud)? It costs this one nothing."""
        known = self.models.get(model)
        return known is not None and known.is_remote

    @property
    def most_exchanges(self) -> int:
        """How many exchanges it may have at once, on all accounts."""
        return self.slots + (MOST_RELAYED if self.relays_any else 0)

    def find_warm(self) -> None:
        """Find out which models need no load, after a listing has changed."""
        models = self.models
        digests = {models[key].digest for key in self.loaded if key in models} - {""}
        relayed = {key for key, model in models.items() if model.is_remote}
        self.relays_any = bool(relayed)
        self.warm = relayed | {key for key, model in models.items() if model.digest in digests}
        self.warm.update(self.loaded)

    def names_of(self, model: str) -> set[str]:
        """Return all names that one model has here: they share its place in the memory."""
        known = self.models.get(model)
        if known is None or not known.digest:
            return {model}
        return {key for key, each in self.models.items() if each.digest == known.digest}

    def apply_slots(self) -> None:
        """Bring `slots`, `model_slots` and `limit` into line with the guess, what is loaded, and its state."""
        believed = max(1, int(self.guess))
        self.model_slots = self.slots = believed
        if not self.is_sized and self.kind is EngineKind.OLLAMA:
            self.slots = believed * max(1, len(self.loaded.keys() | self.loaded_as.keys()))
        self.is_unproven = self.health is Health.PROBATION
        self.limit = 0 if self.loads_alone else 1 if self.is_unproven else self.slots

    def route_for(self, task: Task, dialect: Dialect) -> EngineRoute | None:
        """Return the engine's own route for a task in a dialect; None when it has none."""
        return self.routes.get((task, dialect))


class Fleet:
    """All engines, and which of them has which model. Written by the probes, read by every request."""

    def __init__(self, engines: Iterable[Engine] = ()) -> None:
        self.engines: list[Engine] = list(engines)
        self.revision = 0
        """Rises with every change of what listings show."""
        self.shape = 0
        """Rises with every change of who may serve what: health, models, routes."""
        self.changed: set[Engine] = set()
        """Engines that may serve more or other tickets than before; the dispatcher empties it."""
        self.copies: dict[str, int] = {}
        """How many engines have a model in memory."""
        self._having: dict[str, list[Engine]] | None = {}
        """None: it is to be built anew."""

    def having(self, key: str) -> list[Engine]:
        """Return the engines that list a model (canonical name), whatever their health."""
        if self._having is None:  # only now: a report of many engines changes it many times
            self._having = self._index()
        return self._having.get(key, [])

    def learn(self, engine: Engine, report: EngineReport) -> bool:
        """Take what an engine reported; return whether a listing changed."""
        routes = routes_of(report.kind, report.version)
        if report.kind is not engine.kind or routes != engine.routes:
            self.shape += 1
        engine.kind, engine.version, engine.routes = report.kind, report.version, routes
        self._learn_slots(engine, report.slots)
        models = {model.key: model for model in report.models}
        changed = models != engine.models
        if changed:
            engine.models = models
            engine.paces = {key: pace for key, pace in engine.paces.items() if key in models}
            engine.find_warm()
            self._change()
        return (report.loaded is not None and self.learn_loaded(engine, report.loaded)) or changed

    def only_relays(self, key: str) -> bool:
        """Does every engine that lists a model only relay it?"""
        having = self.having(key)
        return bool(having) and all(engine.relays(key) for engine in having)

    def _learn_slots(self, engine: Engine, reported: int | None) -> None:
        engine.reported_slots = reported
        told = engine.configured_slots or reported
        usual = (told, told) if told else usual_slots(engine.kind, engine.version)
        if usual != (engine.first_slots, engine.most_slots) or engine.guess > usual[1]:
            engine.first_slots, engine.most_slots = usual
            engine.guess = engine.first_slots
            is_guessed = engine.kind is EngineKind.OLLAMA and not engine.is_sized
            engine.proven = engine.first_slots if is_guessed else float("inf")
            engine.insides = 0
        engine.apply_slots()
        self.changed.add(engine)

    def learn_loaded(self, engine: Engine, loaded: Iterable[LoadedModel]) -> bool:
        """Take what an engine has in memory; return whether that changed."""
        now_loaded = {model.key: model for model in loaded}
        has_changed = now_loaded != engine.loaded
        before, engine.loaded = engine.loaded, now_loaded
        if has_changed:
            engine.find_warm()
        if engine.loaded_as:
            engine.loaded_as = {key: options for key, options in engine.loaded_as.items() if key in engine.warm}
            engine.apply_slots()
        if not has_changed:
            return False
        for key in before.keys() - now_loaded.keys():
            self.copies[key] = self.copies.get(key, 0) - 1
            if self.copies[key] <= 0:
                del self.copies[key]
        for key in now_loaded.keys() - before.keys():
            self.copies[key] = self.copies.get(key, 0) + 1
        sizes = [engine.models[key].size_bytes if key in engine.models else 0 for key in now_loaded]
        engine.proven_bytes = max(engine.proven_bytes, sum(sizes))
        engine.apply_slots()
        self.changed.add(engine)
        self.revision += 1
        return True

    def forget_loaded(self, engine: Engine, model: str) -> bool:
        """A model is going from an engine's memory, before any listing says so; return whether that is news."""
        engine.loaded_as.pop(model, None)
        kept = {key: entry for key, entry in engine.loaded.items() if key != model}
        known_as, engine.loaded_as = engine.loaded_as, {}
        has_changed = self.learn_loaded(engine, kept.values())
        engine.loaded_as = known_as  # what was loaded a moment ago is in no listing yet
        engine.apply_slots()
        return has_changed

    def set_health(self, engine: Engine, health: Health, error: str = "") -> bool:
        """Set an engine's health; return whether it changed."""
        engine.error = error
        if engine.health is health:
            return False
        engine.health = health
        engine.apply_slots()
        self.changed.add(engine)
        self.revision += 1
        self.shape += 1
        return True

    def add(self, engine: Engine) -> None:
        """A node has one more engine."""
        self.engines.append(engine)
        for key in engine.loaded:
            self.copies[key] = self.copies.get(key, 0) + 1
        self.changed.add(engine)
        self._change()

    def remove(self, engine: Engine) -> None:
        """A node has this engine no more."""
        if engine in self.engines:
            self.engines.remove(engine)
            self.learn_loaded(engine, ())
            self.changed.discard(engine)
            self._change()

    def _change(self) -> None:
        self._having = None
        self.revision += 1
        self.shape += 1

    def _index(self) -> dict[str, list[Engine]]:
        having: dict[str, list[Engine]] = {}
        for engine in self.engines:
            for key in engine.models:
                having.setdefault(key, []).append(engine)
        return having
