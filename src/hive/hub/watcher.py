"""What the hub asks of whoever knows an engine's state: a prober for a dialed one, its node for a joined one."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Watcher(Protocol):
    """The one writer of what is known of an engine."""

    @property
    def has_looked(self) -> asyncio.Event:
        """Set after the first look, whatever it brought."""

    def kick(self) -> None:
        """Look again at once: something may have changed."""

    def kick_later(self) -> None:
        """Look again as soon as the engine has done what it said."""
