"""Watches the engines: it records the signs of life from exchanges and applies the rules of health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from hive.fleet.engines import IN_SERVICE, Engine, Fleet, Health
from hive.fleet.health import NOT_BACK, HealthMonitor, Transition
from hive.fleet.signs import NEVER
from hive.hub.event_log import EventLog
from hive.hub.events import EngineHealth, EventKind, engine_subject

_log = logging.getLogger(__name__)

BY_OPERATOR = "an operator drains it"


class Sighting(Protocol):
    """A running exchange or load on an engine, as a sign of the engine's life."""

    @property
    def engine(self) -> Engine:
        """Return the engine on which it runs."""

    @property
    def last_byte_at(self) -> float:
        """Return when its newest byte came, or when it was sent."""

    @property
    def has_answered(self) -> bool:
        """Has a byte of its answer come?"""

    def is_excused(self, now: float) -> bool:
        """Is its silence so far normal for an engine that works?"""


class HealthWatch:
    """The only writer of an engine's health. `on_transition` is called after every change."""

    def __init__(
        self, fleet: Fleet, now: Callable[[], float], events: EventLog, on_transition: Callable[[Transition], None]
    ) -> None:
        self._fleet = fleet
        self._now = now
        self._events = events
        self._on_transition = on_transition
        self._monitor = HealthMonitor()

    def watch(self, engine: Engine) -> None:
        """Begin to watch an engine."""
        self._monitor.watch(engine, self._now())

    def forget(self, engine: Engine) -> None:
        """Stop watching an engine."""
        self._monitor.forget(engine)

    def note_answer(self, engine: Engine) -> None:
        """Note that the engine, or its node for it, has said that it can serve."""
        signs = engine.signs
        signs.last_sign = signs.answered_at = self._now()
        signs.failure = ""
        self.judge(engine)
        signs.is_remembered = False

    def note_failure(self, engine: Engine, reason: str) -> None:
        """Note that the engine cannot serve: it has no connection, sends nonsense, or its node says so."""
        engine.signs.failure = reason
        engine.signs.is_remembered = False
        if engine.health is Health.DOWN:
            engine.error = reason
        self.judge(engine)

    def note_remembered(self, engine: Engine) -> None:
        """Note that the engine is only known from before the hub's start. Its node may dial in at any moment."""
        engine.signs.is_remembered = True
        self._fleet.set_health(engine, engine.health, NOT_BACK)

    def drain(self, engine: Engine, by: str) -> None:
        """Drain an engine for the reason `by`, or let it serve again if `by` is empty."""
        engine.signs.drained_by = by
        self.judge(engine)

    def judge(self, engine: Engine) -> None:
        """Judge an engine at once, and again until its state stays."""
        for _ in Health:
            change = self._monitor.judge(engine, self._now())
            if change is None:
                return
            self._apply(change)

    def sweep(self, running: Iterable[Sighting], now: float) -> None:
        """Collect the signs of everything that runs, and judge every engine."""
        self._gather(running, now)
        for change in self._monitor.sweep(now):
            self._apply(change)

    def _gather(self, running: Iterable[Sighting], now: float) -> None:
        for engine in self._fleet.engines:
            engine.signs.streams = engine.signs.computing = 0
            engine.signs.last_stream_byte = NEVER
        for each in running:
            signs = each.engine.signs
            if each.has_answered:
                signs.last_answer_byte = max(signs.last_answer_byte, each.last_byte_at)
                signs.last_sign = max(signs.last_sign, each.last_byte_at)
            if not each.is_excused(now):
                signs.streams += 1
                newest = each.last_byte_at if each.has_answered else signs.last_answer_byte
                signs.last_stream_byte = max(signs.last_stream_byte, newest, each.last_byte_at)
            elif not each.has_answered:
                signs.computing += 1

    def _apply(self, change: Transition) -> None:
        engine, after = change.engine, change.after
        is_well = after in IN_SERVICE
        if not self._fleet.set_health(engine, after, "" if is_well else change.cause):
            return
        name = f"{engine.node}, engine {engine.id}" if engine.id else engine.node
        level = logging.INFO if is_well or after is Health.DRAINING else logging.WARNING
        _log.log(level, "node %s: %s -> %s (%s)", name, change.before, after, change.cause)
        details = EngineHealth(engine.node, engine.id, change.before, after, change.cause)
        self._events.append(EventKind.ENGINE_HEALTH, engine_subject(engine.node, engine.id), details)
        self._on_transition(change)
