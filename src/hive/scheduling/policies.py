"""Choosing among engines that could all serve a ticket now."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hive.fleet.engines import Engine
from hive.scheduling.tickets import Ticket

Policy = Callable[[Ticket, Sequence[Engine], random.Random], tuple[Engine, str]]
"""Returns the engine and why, in a few words. `engines` is never empty."""


def loaded_then_idle(ticket: Ticket, engines: Sequence[Engine], rng: random.Random) -> tuple[Engine, str]:
    """Prefer engines that have the model in memory, among them those that run least; ties at random."""
    if len(engines) == 1:
        return engines[0], "only choice"
    loaded = [engine for engine in engines if ticket.model in engine.loaded]
    candidates = loaded or engines
    least = min(engine.running for engine in candidates)
    chosen = rng.choice([engine for engine in candidates if engine.running == least])
    return chosen, "loaded, fewest running" if loaded else "fewest running"
