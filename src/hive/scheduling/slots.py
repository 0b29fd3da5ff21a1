"""How many slots an engine is believed to have: halved when it says busy, raised again by steady success.

The guess never passes `Learned.most_slots`: what an operator or the engine said, or what is usual for its kind.
"""

from __future__ import annotations

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine
from hive.scheduling.tickets import Lease

BUSY_REST = 1.0
"""Seconds that an engine rests after it said busy; more such answers within them halve nothing."""
MOST_DOUBLINGS = 3
"""The rest doubles so often at most: each time the engine says busy again and has served no exchange in between."""
RAISE_PAUSE = 10.0
"""Seconds after which more slots are tried again."""
INSIDE_PAUSE = 60.0
"""The same after the engine refused nothing, but let exchanges wait inside it; twice as long each time."""
MOST_INSIDE_DOUBLINGS = 6
_LONG_INSIDE = 0.02
"""A wait inside of more seconds than these, and of a larger share of the whole, is no accident."""
_LONG_SHARE = 0.2


def note_busy(engine: Engine, now: float) -> float:
    """Halve the guess of an engine that said that it is busy; return the time until which it is to rest."""
    rests_until = engine.running.rests_until
    if now < rests_until:  # the exchange was sent there before the rest began: its news is not new
        return max(rests_until, now + BUSY_REST)
    _halve(engine, now + RAISE_PAUSE)
    rest = BUSY_REST * 2.0 ** min(engine.signs.busies, MOST_DOUBLINGS)
    engine.signs.busies += 1
    return now + rest


def note_inside(lease: Lease, now: float) -> None:
    """Lower the guess: an exchange waits, or has waited, inside its engine for another exchange."""
    engine = lease.engine
    half = max(1.0, lease.of_model / 2.0)
    engine.learned.proven = min(engine.learned.proven, max(1, lease.of_model - 1))
    if engine.learned.guess <= half and now < engine.learned.may_raise_at:
        return
    engine.learned.guess = min(engine.learned.guess, half)
    engine.learned.may_raise_at = now + INSIDE_PAUSE * 2.0 ** min(engine.learned.insides, MOST_INSIDE_DOUBLINGS)
    engine.learned.insides += 1
    engine.apply_slots()


def note_served(lease: Lease, measured: Measured, now: float) -> None:
    """Learn from a whole answer: a wait inside the engine lowers the guess, full use without such a wait raises it."""
    engine = lease.engine
    waited = measured.waited_inside
    if waited is not None and lease.running > 1 and not engine.is_sized:
        total = measured.total_seconds or 0.0
        if waited > _LONG_INSIDE and waited > _LONG_SHARE * total:
            note_inside(lease, now)
            return
    if waited is not None and lease.of_model > engine.learned.proven and lease.ended_before == engine.running.ended:
        engine.learned.proven = lease.of_model  # it overtook all exchanges that began before it: none stood in its way
    if engine.learned.guess >= engine.learned.most_slots or now < engine.learned.may_raise_at:
        return
    is_proof = waited is not None or engine.learned.guess < engine.learned.first_slots
    is_full = lease.running >= engine.slots or engine.running.of_model.get(lease.ticket.model, 0) >= engine.model_slots
    if is_full and is_proof:
        engine.learned.guess = min(engine.learned.guess + 1.0 / engine.learned.guess, engine.learned.most_slots)
        engine.apply_slots()


def _halve(engine: Engine, may_raise_at: float) -> None:
    engine.learned.guess = max(1.0, min(engine.learned.guess, float(max(engine.running.count, 1))) / 2.0)
    engine.learned.may_raise_at = may_raise_at
    engine.apply_slots()
