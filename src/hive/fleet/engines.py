"""The engines of the fleet: what identifies each, its health, how much it may do now, and which has which model.

The live state of an engine stands in four parts, one for each writer: `known`, `running`, `learned`, `signs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from hive.dialects.tasks import Dialect, EngineRoute, Task
from hive.fleet.kinds import OTHER_SLOTS, EngineKind, routes_of, usual_slots
from hive.fleet.known import EngineReport, Known, LoadedModel
from hive.fleet.learned import Learned
from hive.fleet.running import Running
from hive.fleet.signs import Signs


class Health(StrEnum):
    """Whether an engine may get work. `hive.fleet.health` says when one state becomes another."""

    JOINING = "joining"
    """The hub has not heard of it yet, or not since the hub's start."""
    READY = "ready"
    DOUBTFUL = "doubtful"
    """It answers, but all its streams are silent: it gets only work that no other engine can do."""
    SUSPECT = "suspect"
    """It gave no sign of life for `SUSPECT_AFTER` seconds."""
    DOWN = "down"
    """It refused a connection, or its answer was not that of an engine."""
    DRAINING = "draining"
    """An operator wants it empty: what runs may end."""
    PROBATION = "probation"
    """It is back from `DOWN`, and gets one exchange at a time."""


IN_SERVICE = frozenset({Health.READY, Health.PROBATION})
"""States in which an engine gets work as a matter of course."""
SUSPECT_AFTER = 5.0
MOST_RELAYED = 32
"""An engine may pass on at most this many exchanges to another machine at the same time."""


@dataclass(slots=True, eq=False)
class Engine:
    """An engine: identity, health, what it may do now, and the four parts of its live state."""

    node: str
    url: str
    configured_slots: int | None = None
    """The number of slots that an operator set."""
    id: str = ""
    """The name that a joined node has for it; a dialed node has one engine only."""
    health: Health = Health.JOINING
    error: str = ""
    """Why it is not ready, in one sentence."""
    slots: int = OTHER_SLOTS
    """How many exchanges it is believed to run at once: the guess made whole, for some kinds for each loaded model."""
    model_slots: int = OTHER_SLOTS
    """How many of them may be for one model."""
    limit: int = OTHER_SLOTS
    """How many exchanges it may run now: `slots`, or fewer on probation and during a load."""
    is_unproven: bool = False
    """Is it on probation?"""
    known: Known = field(default_factory=Known)
    """What it says of itself."""
    running: Running = field(default_factory=Running)
    """What it does now."""
    learned: Learned = field(default_factory=Learned)
    """What its work has taught the hub."""
    signs: Signs = field(default_factory=Signs)
    """Its signs of life."""

    def __post_init__(self) -> None:
        self.model_slots = self.limit = self.slots

    def __repr__(self) -> str:
        known, running = self.known, self.running
        return f"<Engine {self.node} {known.kind} {known.version} {self.health} {running.count}/{self.slots}>"

    @property
    def takes_work(self) -> bool:
        """May the engine get an exchange, free slots aside?"""
        return self.health in IN_SERVICE

    @property
    def is_last_resort(self) -> bool:
        """May the engine get an exchange that no other engine can take?"""
        return self.health is Health.DOUBTFUL

    @property
    def is_sized(self) -> bool:
        """Did an operator state the number of slots? An Ollama never does, so what is reported came from its node."""
        is_reported = self.known.reported_slots is not None and self.known.kind is EngineKind.OLLAMA
        return self.configured_slots is not None or is_reported

    @property
    def loads_models(self) -> bool:
        """Does the engine load models on demand? Engines of other kinds have in memory all that they list."""
        return self.known.kind is EngineKind.OLLAMA

    def is_warm(self, model: str, load_options: str = "") -> bool:
        """Could the engine begin a request for this model, with these options, without loading anything?"""
        known = self.known
        if known.kind is not EngineKind.OLLAMA:
            return True
        running = self.running
        if model == running.loading:
            return False  # an Ollama lists a model from the moment in which its load begins
        loaded_as = running.loaded_as.get(model)
        return loaded_as == load_options if loaded_as is not None else model in known.warm

    def relays(self, model: str) -> bool:
        """Does another machine work for this model (Ollama's cloud)? It costs this engine nothing."""
        found = self.known.models.get(model)
        return found is not None and found.is_remote

    @property
    def most_exchanges(self) -> int:
        """Return how many exchanges the engine may have at once, relayed ones included."""
        return self.slots + (MOST_RELAYED if self.known.relays_any else 0)

    def apply_slots(self) -> None:
        """Bring `slots`, `model_slots` and `limit` into line with the guess, the loaded models and the health."""
        believed = max(1, int(self.learned.guess))
        self.model_slots = self.slots = believed
        if not self.is_sized and self.known.kind is EngineKind.OLLAMA:
            self.slots = believed * max(1, len(self.known.loaded.keys() | self.running.loaded_as.keys()))
        self.is_unproven = self.health is Health.PROBATION
        self.limit = 0 if self.running.loads_alone else 1 if self.is_unproven else self.slots

    def route_for(self, task: Task, dialect: Dialect) -> EngineRoute | None:
        """Return the engine's own route for a task in a dialect; None when it has none."""
        return self.known.routes.get((task, dialect))


class Fleet:
    """All engines, and which of them has which model. Watchers write it through its methods; every request reads it."""

    def __init__(self, engines: Iterable[Engine] = ()) -> None:
        self.engines: list[Engine] = list(engines)
        self.revision = 0
        """Rises with every change that shows in a listing."""
        self.shape = 0
        """Rises with every change of which engine may serve what: health, models, routes."""
        self.changed: set[Engine] = set()
        """Engines that may serve more or other tickets than before; the dispatcher empties it."""
        self.copies: dict[str, int] = {}
        """How many engines have a model in memory."""
        self._having: dict[str, list[Engine]] | None = {}
        """The engines that list a model; None when the index must be built anew."""
        self._relays_any = False
        """Does any engine relay any model? True to the index."""

    def having(self, key: str) -> list[Engine]:
        """Return the engines that list a model (canonical name), whatever their health."""
        if self._having is None:  # built only now: a report of many engines changes it many times
            self._having = self._index()
        return self._having.get(key, [])

    def learn(self, engine: Engine, report: EngineReport) -> bool:
        """Take an engine's report; return whether a listing changed."""
        known = engine.known
        routes = routes_of(report.kind, report.version)
        if report.kind is not known.kind or routes != known.routes:
            self.shape += 1
        known.kind, known.version, known.routes = report.kind, report.version, routes
        self._learn_slots(engine, report.slots)
        models = {model.key: model for model in report.models}
        changed = models != known.models
        if changed:
            known.models = models
            known.find_warm()
            engine.learned.keep_paces(models)
            self._change()
        return (report.loaded is not None and self.learn_loaded(engine, report.loaded)) or changed

    def only_relays(self, key: str) -> bool:
        """Does every engine that lists a model only relay it?"""
        having = self.having(key)
        return self._relays_any and bool(having) and all(engine.relays(key) for engine in having)

    def _learn_slots(self, engine: Engine, reported: int | None) -> None:
        known = engine.known
        known.reported_slots = reported
        told = engine.configured_slots or reported
        first, most = (told, told) if told else usual_slots(known.kind, known.version)
        is_guessed = known.kind is EngineKind.OLLAMA and not engine.is_sized
        engine.learned.begin_slots(first, most, is_guessed=is_guessed)
        engine.apply_slots()
        self.changed.add(engine)

    def learn_loaded(self, engine: Engine, loaded: Iterable[LoadedModel]) -> bool:
        """Take the models that an engine has in memory; return whether they changed."""
        has_changed = self._take_loaded(engine, loaded)
        if engine.running.loaded_as:
            engine.running.keep_loaded(engine.known.warm)
        engine.apply_slots()
        return has_changed

    def forget_loaded(self, engine: Engine, model: str) -> bool:
        """A model is going from an engine's memory, before any listing says so; return whether that is news."""
        # Other loads of the hub are kept, for a model that was loaded a moment ago is in no listing yet.
        engine.running.loaded_as.pop(model, None)
        has_changed = self._take_loaded(engine, [each for key, each in engine.known.loaded.items() if key != model])
        engine.apply_slots()
        return has_changed

    def _take_loaded(self, engine: Engine, loaded: Iterable[LoadedModel]) -> bool:
        known = engine.known
        before, known.loaded = known.loaded, {model.key: model for model in loaded}
        if known.loaded == before:
            return False
        known.find_warm()
        for key in before.keys() - known.loaded.keys():
            self.copies[key] = self.copies.get(key, 0) - 1
            if self.copies[key] <= 0:
                del self.copies[key]
        for key in known.loaded.keys() - before.keys():
            self.copies[key] = self.copies.get(key, 0) + 1
        engine.learned.note_held(sum(known.models[key].size_bytes for key in known.loaded if key in known.models))
        self.changed.add(engine)
        self.revision += 1
        return True

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
        """Add an engine to the fleet."""
        self.engines.append(engine)
        for key in engine.known.loaded:
            self.copies[key] = self.copies.get(key, 0) + 1
        self.changed.add(engine)
        self._change()

    def remove(self, engine: Engine) -> None:
        """Take an engine out of the fleet."""
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
        self._relays_any = False
        for engine in self.engines:
            self._relays_any = self._relays_any or engine.known.relays_any
            for key in engine.known.models:
                having.setdefault(key, []).append(engine)
        return having
