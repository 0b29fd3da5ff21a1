"""How much is asked of each model and each engine of late, and how fast the fleet serves: counted, then averaged."""

from __future__ import annotations

from typing import TypeVar

from hive.fleet.engines import Engine

K = TypeVar("K")

SPAN = 900.0
"""Seconds over which demand is averaged, about."""
SERVE_SPAN = 10.0
LEAST_SPAN = 0.05
"""A rate over less time than this says nothing."""
_NOTHING = 1e-4


class Demand:
    """Counts that whoever serves raises, and their rates a second, brought up to date by `fold`."""

    def __init__(self) -> None:
        self.arrived: dict[str, int] = {}
        """Tickets since the last fold, by model."""
        self.granted: dict[tuple[Engine, str], int] = {}
        """Leases since the last fold, by engine and model."""
        self.ended = 0
        """Leases that ended since the last fold."""
        self.serves_per_second = 0.0
        self._models: dict[str, float] = {}
        self._engines: dict[Engine, float] = {}
        self._pairs: dict[tuple[Engine, str], float] = {}
        self._all = 0.0
        self._folded_at: float | None = None

    def of_model(self, model: str) -> float:
        """Return how many tickets for a model come in a second."""
        return self._models.get(model, 0.0)

    def of_engine(self, engine: Engine) -> float:
        """Return how many exchanges an engine begins in a second."""
        return self._engines.get(engine, 0.0)

    def share_of(self, engine: Engine) -> float:
        """Return the share of all exchanges that an engine begins."""
        return self._engines.get(engine, 0.0) / self._all if self._all else 0.0

    def of_pair(self, engine: Engine, model: str) -> float:
        """Return how many exchanges with a model an engine begins in a second."""
        return self._pairs.get((engine, model), 0.0)

    def fold(self, now: float) -> None:
        """Bring the rates up to date with what was counted."""
        if self._folded_at is None:
            self._folded_at = now
        elapsed = now - self._folded_at
        if elapsed < LEAST_SPAN:
            return
        self._folded_at = now
        _fold(self._models, self.arrived, elapsed)
        _fold(self._pairs, self.granted, elapsed)
        self._engines = {}
        self._all = sum(self._pairs.values())
        for (engine, _), rate in self._pairs.items():
            self._engines[engine] = self._engines.get(engine, 0.0) + rate
        self.serves_per_second += (self.ended / elapsed - self.serves_per_second) * min(1.0, elapsed / SERVE_SPAN)
        self.ended = 0


def _fold(rates: dict[K, float], counts: dict[K, int], elapsed: float) -> None:
    share = min(1.0, elapsed / SPAN)
    for key in [*rates, *(key for key in counts if key not in rates)]:
        rate = rates.get(key, 0.0)
        rate += (counts.get(key, 0) / elapsed - rate) * share
        if rate > _NOTHING:
            rates[key] = rate
        else:
            rates.pop(key, None)
    counts.clear()
