"""The tick of a hub: twice a second, everything that waits for time is told that time has passed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hive.fleet.health import STALL

_log = logging.getLogger(__name__)

TICK = 0.5

Tick = Callable[[float], None]


class Ticker:
    """Calls each of its ticks with the hub's time. One that fails is logged, and is called again the next time."""

    def __init__(self, now: Callable[[], float], ticks: Sequence[Tick], on_stall: Callable[[float], None]) -> None:
        """`on_stall` hears of the seconds for which the hub itself stood still, before the ticks."""
        self._now = now
        self._ticks = tuple(ticks)
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.last = now()
        """The time of the last tick."""

    def start(self) -> None:
        """Tick now, and from now on."""
        self._timer = self._loop.call_later(TICK, self.start)
        now = self._now()
        stall, self.last = now - self.last, now
        if stall > STALL:
            _log.warning("the hub stood still for %.0f s: no engine is blamed for this time", stall)
            self._on_stall(stall)
        for tick in self._ticks:
            try:
                tick(now)
            except Exception:
                _log.exception("tick")

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
