"""What the hub asks of an engine's watcher: the `Prober` of a dialed engine, or the `JoinedEngine` of a joined one."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Watcher(Protocol):
    """The only writer of what is known of an engine."""

    @property
    def has_looked(self) -> asyncio.Event:
        """Set after the first look, whatever its result."""

    def kick(self) -> None:
        """Look again at once: something may have changed."""

    def kick_later(self) -> None:
        """Look again as soon as the engine has done what it confirmed (for example an unload)."""
