"""What is known of the engines of a node that joined: its reports and heartbeats, as the fleet takes them.

A report says what an engine has and whether it answers at all (ready or down). A heartbeat only makes an engine
suspect, or ready again: silence is no death.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hive.fleet.engines import SUSPECT_AFTER, Engine, EngineKind, EngineReport, Fleet, Health
from hive.fleet.listings import UnreadableListing, read_ps, read_tags, read_v1_models
from hive.wire import link_messages as messages
from hive.wire.link_messages import NOTHING, EngineBeat

_log = logging.getLogger(__name__)

UNLOAD_TIME = 0.5
REFRESH_INTERVAL = 1.0
"""A node is asked for an engine's models no more often than this, in seconds."""


def read_report(reported: messages.Engine) -> EngineReport:
    """Return what a node says of an engine as the fleet takes it. Raises `UnreadableListing`."""
    kind = _kind_of(reported.kind)
    if kind is not EngineKind.OLLAMA:
        models, loaded = read_v1_models(bytes(reported.v1_models), kind)
        return EngineReport(kind, reported.version, models, loaded, reported.slots)
    in_memory = read_ps(bytes(reported.ps)) if reported.ps != NOTHING else ()
    return EngineReport(kind, reported.version, read_tags(bytes(reported.tags)), in_memory, reported.slots)


def _kind_of(text: str) -> EngineKind:
    try:
        kind = EngineKind(text)
    except ValueError:
        return EngineKind.OPENAI
    return EngineKind.OPENAI if kind is EngineKind.UNKNOWN else kind


class JoinedEngine:
    """The one writer of what is known of an engine behind a joined link. `on_change` is called after changes."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        refresh: Callable[[str], None],
        on_change: Callable[[Engine], None],
        now: Callable[[], float],
    ) -> None:
        """`refresh` asks the node, if it is there, for this engine's models."""
        self.engine = engine
        self.has_looked = asyncio.Event()
        self.has_looked.set()
        self._fleet = fleet
        self._refresh = refresh
        self._on_change = on_change
        self._now = now
        self._last: messages.Engine | None = None
        self._refresh_due: float | None = None
        self._refreshed_at = float("-inf")

    def learn(self, reported: messages.Engine) -> None:
        """Take a report."""
        engine = self.engine
        engine.url = reported.address or engine.url
        if not reported.is_alive:
            self._last = None
            self.set_health(Health.DOWN, reported.error or "its node finds no engine there")
            return
        engine.last_sign = self._now()
        if reported != self._last:
            try:
                changed = self._fleet.learn(engine, read_report(reported))
            except UnreadableListing as unreadable:
                self.set_health(Health.DOWN, f"its node reports {unreadable}")
                return
            self._last = reported
            if changed:
                self._on_change(engine)
        self.set_health(Health.READY, "")

    def take_beat(self, beat: EngineBeat | None) -> None:
        """Take a heartbeat; None: its node said nothing of this engine."""
        engine, now = self.engine, self._now()
        if beat is not None and beat.alive and not beat.stopped:
            engine.last_sign = now
            if engine.health is Health.SUSPECT:
                self.set_health(Health.READY, "")
            elif engine.health is Health.DOWN:
                self.kick()
        elif beat is not None and beat.stopped:
            self.suspect("its process is stopped")
        elif now - engine.last_sign >= SUSPECT_AFTER:
            self.suspect("it does not answer its node")

    def suspect(self, reason: str) -> None:
        """Give it no new work until there is a sign of life."""
        if self.engine.health is Health.READY:
            self.set_health(Health.SUSPECT, reason)

    def set_health(self, health: Health, error: str) -> None:
        """Set its health, and tell of a change."""
        engine = self.engine
        before = engine.health
        if not self._fleet.set_health(engine, health, error):
            return
        level = logging.INFO if health is Health.READY else logging.WARNING
        why = f" ({error})" if error else ""
        _log.log(level, "node %s, engine %s: %s -> %s%s", engine.node, engine.id, before, health, why)
        self._on_change(engine)

    def kick(self) -> None:
        """Ask the node for a report, soon."""
        self._ask_at(self._now())

    def kick_later(self) -> None:
        """Ask the node for a report, when the engine has done what it said."""
        self._ask_at(self._now() + UNLOAD_TIME)

    def tick(self, now: float) -> None:
        """Let time pass."""
        if self._refresh_due is not None and now >= self._refresh_due:
            self._refresh_due = None
            self._refreshed_at = now
            self._refresh(self.engine.id)

    def _ask_at(self, when: float) -> None:
        self._refresh_due = max(when, self._refreshed_at + REFRESH_INTERVAL)
        self.tick(self._now())
