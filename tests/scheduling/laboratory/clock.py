"""Virtual time: what is to happen, in order, as fast as it can be computed."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

Act = Callable[[], None]


class Clock:
    """The one clock of a simulated world; seconds since its beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._last = 0
        self._agenda: list[tuple[float, int, Act]] = []

    def at(self, when: float, act: Act) -> None:
        """Have something happen; at the same moment, what was asked for first happens first."""
        self._last += 1
        heappush(self._agenda, (max(when, self.now), self._last, act))

    def after(self, delay: float, act: Act) -> None:
        """Have something happen after so many seconds."""
        self.at(self.now + delay, act)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, act = heappop(self._agenda)
            act()
        self.now = until
