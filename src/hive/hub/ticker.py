"""The tick of a hub: twice a second, every part that waits for time is called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hive.fleet.health import STALL

_log = logging.getLogger(__name__)

TICK = 0.5

Tick = Callable[[float], None]


class Ticker:
    """Calls each of its ticks with the hub's time. A tick that fails is logged, and is called again the next time."""

    def __init__(self, now: Callable[[], float], ticks: Sequence[Tick], on_stall: Callable[[float], None]) -> None:
        """If the hub itself stood still, `on_stall` is called with the seconds, before the ticks."""
        self._now = now
        self._ticks = tuple(ticks)
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.last = now()
        """The time of the last tick."""

    def start(self) -> None:
        """Call the ticks now, and then twice a second."""
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
        """Call the ticks no more."""
        if self._timer is not None:
            self._timer.cancel()
