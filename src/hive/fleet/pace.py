"""Measurements of an engine's speed, as means that follow changes."""

from __future__ import annotations

from dataclasses import dataclass, field

FIXED_TOKENS = 50
"""A prompt costs as much as its tokens and this many more, which stand for the fixed cost of each request."""
_NEWEST_COUNTS = 0.2
"""The share of the newest measurement in a mean of five or more."""
_CROWDS = (1.0, 1.0, 2.5, 5.5, 11.0)
"""About how many exchanges run in each band."""
_SLOWER_BY = 0.35
"""One more exchange on the same engine is believed to add this share to the time of each, if that was not measured."""
_SPREAD = 8
_FORGET = 0.995
"""The slowest measurement is multiplied by this with each one that follows."""
BANDS = len(_CROWDS)


def band(running: int) -> int:
    """Return the band of concurrency for `running` exchanges on an engine, the asking one included."""
    return min(running.bit_length(), BANDS - 1)


@dataclass(slots=True)
class Mean:
    """A mean of all measurements while they are few, and mostly of the newest ones later."""

    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take one measurement."""
        self.count += 1
        self.value += (value - self.value) * max(1.0 / self.count, _NEWEST_COUNTS)


def crowd_factor(of_band: int) -> float:
    """Return how much slower one exchange is believed to be in this band than alone."""
    return 1.0 + _SLOWER_BY * (_CROWDS[of_band] - 1.0)


_FACTORS = tuple(crowd_factor(each) for each in range(BANDS))


def _means() -> list[Mean]:
    return [Mean() for _ in range(BANDS)]


class Curve:
    """Seconds, by the number of exchanges that run at once; a band without a measurement follows its neighbour."""

    __slots__ = ("_means", "count", "seconds")

    def __init__(self) -> None:
        self._means = _means()
        self.count = 0
        self.seconds = [0.0] * BANDS
        """The seconds by band; zeros until the first measurement."""

    def add(self, of_band: int, seconds: float) -> None:
        """Take one measurement."""
        mean = self._means[of_band]
        mean.add(seconds)
        self.count += 1
        if mean.count > 4 and self.count % _SPREAD:
            self.seconds[of_band] = mean.value  # its neighbours follow now and then: this is on the way of a request
            return
        measured = [each for each in range(BANDS) if self._means[each].count]
        for each in range(BANDS):
            nearest = min(measured, key=lambda other: abs(other - each))
            self.seconds[each] = self._means[nearest].value * _FACTORS[each] / _FACTORS[nearest]


@dataclass(slots=True)
class Pace:
    """How fast one engine was with one model."""

    prompt: Curve = field(default_factory=Curve)
    """Seconds to the first byte for each token of the prompt (and `FIXED_TOKENS`)."""
    decode: Curve = field(default_factory=Curve)
    """Seconds for each token of the answer."""
    load: Mean = field(default_factory=Mean)
    """Seconds until the model was in memory."""
    slowest: float = 0.0
    """The most seconds that a token of a prompt took of late. It takes less where the engine remembers a part of it."""
    is_rough: bool = False
    """Is it only worked out from answers that came in one piece?"""
    measured_at: float = float("-inf")
    """When the newest measurement was taken."""

    def note_slowest(self, seconds: float) -> None:
        """Take the seconds that a token of a prompt took."""
        self.slowest = max(seconds, self.slowest * _FORGET)

    @property
    def may_be_rough(self) -> bool:
        """Is there no better measurement?"""
        return self.is_rough or not self.prompt.count

    def forget_rough(self) -> None:
        """Forget what was worked out roughly: a better measurement has come."""
        self.is_rough = False
        self.prompt, self.decode = Curve(), Curve()
