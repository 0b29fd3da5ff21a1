"""The demand for each model and each engine of late, and how fast the fleet serves: counted, then averaged."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from hive.fleet.engines import Engine

K = TypeVar("K", bound=Hashable)

SPAN = 900.0
"""Demand is averaged over about this many seconds."""
SERVE_SPAN = 10.0
LEAST_SPAN = 0.05
"""A rate over less time than this says nothing."""
_NOTHING = 1e-4
_LEAST_SCALE = 0.5
"""When the scale has fallen below this, all averages are written anew, and those that are almost 0 are forgotten."""


class Rates(Generic[K]):
    """Averages of counts a second, by key. A key that is not counted costs nothing while its average fades."""

    def __init__(self) -> None:
        self._scaled: dict[K, float] = {}
        self._scale = 1.0
        """The factor of all numbers in `_scaled`: it falls, and so all averages fall."""

    def __len__(self) -> int:
        return len(self._scaled)

    def of(self, key: K) -> float:
        """Return the average for a key."""
        return self._scaled.get(key, 0.0) * self._scale

    def fade(self, share: float) -> None:
        """Let all averages fall by a share."""
        self._scale *= 1.0 - share
        if self._scale < _LEAST_SCALE:
            scale, self._scale = self._scale, 1.0
            self._scaled = {key: rate * scale for key, rate in self._scaled.items() if rate * scale > _NOTHING}

    def add(self, key: K, rate: float) -> None:
        """Raise the average for a key."""
        self._scaled[key] = self._scaled.get(key, 0.0) + rate / self._scale


class Demand:
    """Counts that the dispatcher raises, and their rates a second, which `fold` brings up to date."""

    def __init__(self) -> None:
        self.arrived: dict[str, int] = {}
        """Tickets since the last fold, by model."""
        self.granted: dict[tuple[Engine, str], int] = {}
        """Leases since the last fold, by engine and model."""
        self.ended = 0
        """Leases that ended since the last fold."""
        self.serves_per_second = 0.0
        self._models: Rates[str] = Rates()
        self._engines: Rates[Engine] = Rates()
        self._pairs: Rates[tuple[Engine, str]] = Rates()
        self._all = 0.0
        self._folded_at: float | None = None

    def of_model(self, model: str) -> float:
        """Return how many tickets for a model come in a second."""
        return self._models.of(model)

    def of_engine(self, engine: Engine) -> float:
        """Return how many exchanges an engine begins in a second."""
        return self._engines.of(engine)

    def share_of(self, engine: Engine) -> float:
        """Return the share of all exchanges that an engine begins."""
        return self._engines.of(engine) / self._all if self._all > _NOTHING else 0.0

    def of_pair(self, engine: Engine, model: str) -> float:
        """Return how many exchanges with a model an engine begins in a second."""
        return self._pairs.of((engine, model))

    def fold(self, now: float) -> None:
        """Add the counts to the rates. The time that this takes grows with the number of counts alone."""
        if self._folded_at is None:
            self._folded_at = now
        elapsed = now - self._folded_at
        if elapsed < LEAST_SPAN:
            return
        self._folded_at = now
        share = min(1.0, elapsed / SPAN)
        for rates in (self._models, self._engines, self._pairs):
            rates.fade(share)
        self._all *= 1.0 - share
        weight = share / elapsed
        for model, count in self.arrived.items():
            self._models.add(model, count * weight)
        for pair, count in self.granted.items():
            self._pairs.add(pair, count * weight)
            self._engines.add(pair[0], count * weight)
            self._all += count * weight
        self.arrived.clear()
        self.granted.clear()
        self.serves_per_second += (self.ended / elapsed - self.serves_per_second) * min(1.0, elapsed / SERVE_SPAN)
        self.ended = 0
