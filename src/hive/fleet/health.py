"""The health of an engine: signs of life in, state and cause out; the rules are a table.

Silence alone is no failure: an engine sends nothing before the first token, and a load takes minutes. So any sign
shows that an engine lives: a heartbeat, an answered probe, a byte of any exchange. Time in which the hub itself stood
still counts against no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hive.fleet.engines import SUSPECT_AFTER, Engine, Health
from hive.fleet.signs import NEVER, Signs

DOUBTFUL_AFTER = 5.0
"""Seconds for which every begun stream of an engine that answers has been silent."""
DOUBTFUL_REST = 30.0
"""Seconds after which a doubtful engine may try again, if no stream on it stands still any more."""
DOWN_AFTER = 30.0
"""Seconds without a sign of life after which a suspect engine is down."""
PROBATION = 10.0
"""Seconds without a failure that end the first probation; each fall from then on doubles it."""
LONGEST_PROBATION = 160.0
PROVEN_BY = 3
"""Exchanges answered to their end that end a probation sooner."""
FORGIVEN_AFTER = 600.0
"""Seconds in service after which earlier falls are forgotten."""
SILENT_ON_SUSPECT = 10.0
"""Seconds of silence that end a begun stream on an engine without a sign of life."""
MISSED_AFTER = 90.0
"""Seconds after the hub's start in which a node that it remembers may come back: 60 at most pass between two dials."""
NOT_BACK = "its node has not come back since the hub started"
STALL = 3.0
"""A sweep that comes this many seconds late means that the hub itself stood still."""

_LIVE = frozenset({Health.READY, Health.DOUBTFUL, Health.PROBATION})
_ANY = frozenset(Health)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: from these states to that one, when `holds` returns a cause."""

    states: frozenset[Health]
    to: Health
    holds: Callable[[Signs, float], str]


@dataclass(frozen=True, slots=True)
class Transition:
    """An engine's health changed, and why."""

    engine: Engine
    before: Health
    after: Health
    cause: str


def _is_drained(signs: Signs, now: float) -> str:
    return signs.drained_by


def _is_back_drained(signs: Signs, now: float) -> str:
    return signs.drained_by if _is_back(signs, now) else ""


def _is_resumed(signs: Signs, now: float) -> str:
    return "" if signs.drained_by else "it may serve again"


def _has_failed(signs: Signs, now: float) -> str:
    return signs.failure


def _has_gone(signs: Signs, now: float) -> str:
    return signs.failure if signs.has_left else ""


def _has_returned(signs: Signs, now: float) -> str:
    is_back = signs.has_left and not signs.failure and signs.answered_at > signs.since
    return "it is back from a planned end" if is_back else ""


def _is_back(signs: Signs, now: float) -> str:
    return "it answers again" if not signs.failure and signs.answered_at > signs.since else ""


def _has_answered(signs: Signs, now: float) -> str:
    return "it answered" if signs.answered_at > NEVER and is_alive(signs, now) else ""


def _is_silent(signs: Signs, now: float) -> str:
    return "" if is_alive(signs, now) else f"no sign of life for {SUSPECT_AFTER:g} s"


def _never_answered(signs: Signs, now: float) -> str:
    is_late = not signs.is_remembered and now - signs.since >= SUSPECT_AFTER
    return f"no answer in {SUSPECT_AFTER:g} s" if is_late else ""


def _is_missed(signs: Signs, now: float) -> str:
    return NOT_BACK if signs.is_remembered and now - signs.since >= MISSED_AFTER else ""


def _has_come(signs: Signs, now: float) -> str:
    return "its node has come back" if signs.is_remembered and _is_back(signs, now) else ""


def _has_stopped(signs: Signs, now: float) -> str:
    return "its agent sees it stand still" if signs.has_stopped else ""


def _is_long_silent(signs: Signs, now: float) -> str:
    silence = now - (signs.last_sign if signs.last_sign > NEVER else signs.since)
    return f"no sign of life for {DOWN_AFTER:g} s" if not signs.has_stopped and silence >= DOWN_AFTER else ""


def _gives_signs(signs: Signs, now: float) -> str:
    is_new = signs.last_sign > signs.since
    return "it gives signs of life again" if is_new and is_alive(signs, now) and not signs.has_stopped else ""


def _gives_signs_unproven(signs: Signs, now: float) -> str:
    return _gives_signs(signs, now) if signs.is_unproven else ""


def _is_frozen(signs: Signs, now: float) -> str:
    if not signs.streams or signs.computing or now - signs.last_stream_byte < DOUBTFUL_AFTER:
        return ""
    return f"it answers, but its streams have been silent for {DOUBTFUL_AFTER:g} s"


def _flows_again(signs: Signs, now: float) -> str:
    flows = signs.last_answer_byte > signs.since and not _is_frozen(signs, now)
    return "its answers flow again" if flows else ""


def _is_left_alone(signs: Signs, now: float) -> str:
    is_over = now - signs.since >= DOUBTFUL_REST and not signs.streams
    return "nothing stands still there any more" if is_over else ""


def _is_proven(signs: Signs, now: float) -> str:
    if signs.served >= PROVEN_BY:
        return f"it served {signs.served} requests"
    length = probation(signs.falls)
    return f"no failure for {length:g} s" if now - signs.since >= length else ""


TABLE: tuple[Rule, ...] = (
    Rule(_ANY - {Health.DRAINING, Health.DOWN}, Health.DRAINING, _is_drained),
    Rule(frozenset({Health.DOWN}), Health.DRAINING, _is_back_drained),
    Rule(frozenset({Health.DRAINING}), Health.DOWN, _has_gone),
    Rule(frozenset({Health.DRAINING}), Health.JOINING, _is_resumed),
    Rule(_ANY - {Health.DRAINING, Health.DOWN}, Health.DOWN, _has_failed),
    Rule(frozenset({Health.DOWN}), Health.READY, _has_come),
    Rule(frozenset({Health.DOWN}), Health.READY, _has_returned),
    Rule(frozenset({Health.DOWN}), Health.PROBATION, _is_back),
    Rule(frozenset({Health.JOINING}), Health.READY, _has_answered),
    Rule(frozenset({Health.JOINING}), Health.SUSPECT, _never_answered),
    Rule(frozenset({Health.JOINING}), Health.DOWN, _is_missed),
    Rule(_LIVE, Health.SUSPECT, _has_stopped),
    Rule(_LIVE, Health.SUSPECT, _is_silent),
    Rule(frozenset({Health.SUSPECT}), Health.DOWN, _is_long_silent),
    Rule(frozenset({Health.SUSPECT}), Health.PROBATION, _gives_signs_unproven),
    Rule(frozenset({Health.SUSPECT}), Health.READY, _gives_signs),
    Rule(frozenset({Health.READY, Health.PROBATION}), Health.DOUBTFUL, _is_frozen),
    Rule(frozenset({Health.DOUBTFUL}), Health.READY, _flows_again),
    Rule(frozenset({Health.DOUBTFUL}), Health.PROBATION, _is_left_alone),
    Rule(frozenset({Health.PROBATION}), Health.READY, _is_proven),
)
"""The first row that fits decides."""


def next_health(health: Health, signs: Signs, now: float) -> tuple[Health, str] | None:
    """Return the state that follows and its cause; None when the engine stays as it is."""
    for rule in TABLE:
        if health in rule.states:
            cause = rule.holds(signs, now)
            if cause:
                return rule.to, cause
    return None


def is_alive(signs: Signs, now: float) -> bool:
    """Has the engine given a sign of life of late, whatever its health?"""
    return now - signs.last_sign < SUSPECT_AFTER


def probation(falls: int) -> float:
    """Return the length of a probation after this many falls, in seconds."""
    return min(PROBATION * 2.0 ** min(max(falls - 1, 0), 30), LONGEST_PROBATION)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an attempt may be silent, in seconds."""

    first_byte: float = 600.0
    gap: float = 60.0
    tools_gap: float = 600.0


def silence_limit(signs: Signs, now: float, patience: Patience, *, has_begun: bool, has_tools: bool) -> float:
    """Return the seconds of silence that end an attempt on this engine; one not begun leaves a suspect at once.

    With tools an engine may be silent for long, so that idle processors alone do not end what has begun.
    """
    stands_still = signs.is_halted or (signs.has_stopped and not (has_begun and has_tools))
    if stands_still or not is_alive(signs, now):
        return SILENT_ON_SUSPECT if has_begun else 0.0
    if not has_begun:
        return patience.first_byte
    return patience.tools_gap if has_tools else patience.gap


def _note_fall(signs: Signs, before: Health, after: Health, now: float) -> None:
    """Note what a change of health says against an engine, or forget what was noted."""
    is_fall = after is Health.DOWN and not signs.is_remembered and not signs.has_left
    if is_fall or (before is Health.DOUBTFUL and after is Health.PROBATION):
        signs.falls += 1
        signs.fell_at = now
    if after is Health.PROBATION:
        signs.is_unproven = True
    if after is Health.READY:
        signs.is_unproven = signs.has_left = False


@dataclass(slots=True)
class HealthMonitor:
    """Judges the engines it watches by their signs. It changes no health: `Fleet.set_health` does."""

    _engines: dict[Engine, None] = field(default_factory=dict)
    _swept_at: float | None = None

    def watch(self, engine: Engine, now: float) -> None:
        """Begin to watch an engine."""
        self._engines[engine] = None
        engine.signs.since = now

    def forget(self, engine: Engine) -> None:
        """Watch an engine no longer."""
        self._engines.pop(engine, None)

    def sweep(self, now: float) -> list[Transition]:
        """Judge all engines; return the changes. After a stall of the hub it judges none, and no silence counts."""
        swept_at = self._swept_at if self._swept_at is not None else now
        self._swept_at = now
        if now - swept_at > STALL:
            self._forgive(now - swept_at, now)
            return []
        return [change for engine in list(self._engines) if (change := self.judge(engine, now)) is not None]

    def judge(self, engine: Engine, now: float) -> Transition | None:
        """Judge one engine at once: something decisive was heard of it. The caller puts the change into effect."""
        signs = engine.signs
        found = next_health(engine.health, signs, now)
        if found is None:
            if signs.falls and now - signs.fell_at >= FORGIVEN_AFTER and engine.health is not Health.DOWN:
                signs.falls = 0
            return None
        after, cause = found
        _note_fall(signs, engine.health, after, now)
        signs.since, signs.served = now, 0
        return Transition(engine, engine.health, after, cause)

    def _forgive(self, stall: float, now: float) -> None:
        for signs in (engine.signs for engine in self._engines):
            signs.last_sign = min(signs.last_sign + stall, now)
            signs.last_stream_byte = min(signs.last_stream_byte + stall, now)
            signs.last_answer_byte = min(signs.last_answer_byte + stall, now)
            if signs.since > NEVER:
                signs.since = min(signs.since + stall, now)
