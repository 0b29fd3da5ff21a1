"""What the hub knows of the engines of a joined node: it passes the node's reports and heartbeats to the fleet.

A report says what models an engine has and whether it answers at all. A heartbeat is a sign of life, or says that the
engine's process is stopped or idle.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace

import msgspec
from msgspec import Raw

from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport
from hive.fleet.listings import UnreadableListing, read_ps, read_tags, read_v1_models
from hive.hub.health_watch import HealthWatch
from hive.wire import link_messages as messages
from hive.wire.link_messages import NOTHING, EngineBeat

_log = logging.getLogger(__name__)

MAX_MODELS = 2000
"""The most models of one joined engine: while the hub reads a report it does nothing else."""
UNLOAD_TIME = 0.5
STANDSTILL = 4.0
"""If an engine's streams are silent and no processor worked for this many seconds, the engine stands still."""
REFRESH_INTERVAL = 1.0
"""The least seconds between two requests to a node for an engine's models."""


def read_report(reported: messages.ReportedEngine) -> EngineReport:
    """Return a node's report of an engine in the form of the fleet. Raises `UnreadableListing`."""
    kind = _kind_of(reported.kind)
    if kind is not EngineKind.OLLAMA:
        models, loaded = read_v1_models(bytes(reported.v1_models), kind)
        return EngineReport(kind, reported.version, models, loaded, reported.slots)
    in_memory = read_ps(bytes(reported.ps)) if reported.ps != NOTHING else ()
    return EngineReport(kind, reported.version, read_tags(bytes(reported.tags)), in_memory, reported.slots)


def _mark(reported: messages.ReportedEngine) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(reported)).digest()


def _kind_of(text: str) -> EngineKind:
    try:
        kind = EngineKind(text)
    except ValueError:
        return EngineKind.OPENAI
    return EngineKind.OPENAI if kind is EngineKind.UNKNOWN else kind


def _should_work(engine: Engine) -> bool:
    """Has the engine work that it should do now: silent streams, or work left after it was found to stand still?"""
    if engine.known.kind is EngineKind.OPENAI:
        return False  # it may be a gateway, which waits for the processors of another machine
    return engine.health is Health.DOUBTFUL or (engine.signs.has_stopped and engine.running.count > 0)


class JoinedEngine:
    """The only writer of what is known of an engine behind a joined link. `on_listing` is called after a report."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        health: HealthWatch,
        refresh: Callable[[str], None],
        on_listing: Callable[[Engine], None],
        now: Callable[[], float],
    ) -> None:
        """Begin. `refresh` asks the node, if it is here, for this engine's models."""
        self.engine = engine
        self.has_looked = asyncio.Event()
        self.has_looked.set()
        self._fleet = fleet
        self._health = health
        self._refresh = refresh
        self._on_listing = on_listing
        self._now = now
        self._last: bytes | None = None
        """A digest of the last report. The report itself would keep its whole message in memory."""
        self._reported = engine.known.loaded
        """The loaded models by the last report. After an unload the hub's own view differs."""
        self._refresh_due: float | None = None
        self._refreshed_at = float("-inf")

    def learn(self, reported: messages.ReportedEngine) -> None:
        """Learn from a report."""
        engine = self.engine
        engine.url = reported.address or engine.url
        if not reported.is_alive:
            self._last = None
            self.fail(reported.error or "its node finds no engine there")
            return
        mark = _mark(reported)
        if mark != self._last or engine.known.loaded is not self._reported:
            try:
                report = read_report(reported)
            except UnreadableListing as unreadable:
                self.fail(reported.error or f"its node reports {unreadable}")
                return
            if len(report.models) > MAX_MODELS:
                self.fail(f"its node reports more than {MAX_MODELS} models")
                return
            self._fleet.learn(engine, report)
            self._last, self._reported = mark, engine.known.loaded
        if not reported.is_silent:
            self._health.note_answer(engine)
            self._on_listing(engine)

    @property
    def lasting(self) -> tuple[object, ...]:
        """Return what must be remembered over a restart of the hub, as a value to compare."""
        engine = self.engine
        return engine.known.kind, engine.known.version, engine.url, engine.known.reported_slots, engine.known.models

    def known(self) -> messages.ReportedEngine | None:
        """Return what must be remembered, as its node would report it; None if the node never reported the models."""
        engine = self.engine
        if engine.known.kind is EngineKind.UNKNOWN:
            return None
        known = messages.ReportedEngine(
            engine.id, engine.known.kind.value, engine.known.version, engine.url, engine.known.reported_slots
        )
        models = engine.known.models.values()
        if engine.known.kind is EngineKind.OLLAMA:
            tags = Raw(b'{"models":[%b]}' % b",".join(model.tags for model in models))
            return msgspec.structs.replace(known, tags=tags)
        listed = Raw(b'{"data":[%b]}' % b",".join(model.listed for model in models))
        return msgspec.structs.replace(known, v1_models=listed)

    def recall(self, known: messages.ReportedEngine) -> None:
        """Take what was remembered: the node may return soon. No model counts as loaded. Raises `UnreadableListing`."""
        self._fleet.learn(self.engine, replace(read_report(known), loaded=()))
        self.engine.url = known.address
        self._health.note_remembered(self.engine)

    def take_beat(self, beat: EngineBeat | None) -> None:
        """Learn from a heartbeat. None: the node said nothing of this engine."""
        engine = self.engine
        if beat is None or not beat.alive:
            return  # silence does not make an engine down: its exchanges may still bring bytes
        signs = engine.signs
        is_idle = beat.idle_s is not None and beat.idle_s >= STANDSTILL
        signs.is_halted = beat.stopped
        signs.has_stopped = beat.stopped or (is_idle and _should_work(engine))
        if engine.health is Health.DOWN and not signs.has_stopped:
            self.kick()
            return
        if not beat.stopped:
            signs.last_sign = self._now()
        self._health.judge(engine)

    def fail(self, reason: str) -> None:
        """Note that the engine cannot serve."""
        self._health.note_failure(self.engine, reason)

    def kick(self) -> None:
        """Ask the node for a report soon."""
        self._ask_at(self._now())

    def kick_later(self) -> None:
        """Ask the node for a report once the engine has done what it confirmed."""
        self._ask_at(self._now() + UNLOAD_TIME)

    def tick(self, now: float) -> None:
        """Do the work that is due."""
        if self._refresh_due is not None and now >= self._refresh_due:
            self._refresh_due = None
            self._refreshed_at = now
            self._refresh(self.engine.id)

    def _ask_at(self, when: float) -> None:
        self._refresh_due = max(when, self._refreshed_at + REFRESH_INTERVAL)
        self.tick(self._now())
