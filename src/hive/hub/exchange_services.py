"""What a hub does for its exchanges: an exchange knows only this object of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hive import errors
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet
from hive.hub.background import Background
from hive.hub.exchange import Exchange
from hive.hub.exchange_register import ExchangeRegister
from hive.hub.health_watch import HealthWatch
from hive.hub.loader import Loader
from hive.hub.queue import Queue
from hive.hub.relay import RelayLimits
from hive.hub.roster import Roster
from hive.net.link import Connection, Link

NO_CONNECTION_REST = 1.0
"""Seconds for which an engine rests when all connections of its node are taken."""


class ExchangeServices:
    """The parts of a hub that exchanges use, and what exchanges report of engines."""

    def __init__(
        self,
        now: Callable[[], float],
        fleet: Fleet,
        queue: Queue,
        roster: Roster,
        health: HealthWatch,
        loader: Loader,
        register: ExchangeRegister,
        background: Background,
        relay_limits: RelayLimits,
    ) -> None:
        self.now = now
        self.fleet = fleet
        self.queue = queue
        self.links = roster.links
        self.relay_limits = relay_limits
        self.first_look = roster.first_look
        self.spawn = background.spawn
        self.exchanges = register.running
        self.end_exchange: Callable[[Exchange], None] = register.end
        self._roster = roster
        self._health = health
        self._loader = loader
        self._loop = asyncio.get_running_loop()

    def dial(self, link: Link) -> asyncio.Task[Connection]:
        """Open a connection to an engine, in a task of its own. Raises `Fault` (node_unreachable)."""
        return self._loop.create_task(link.dial())

    def note_unreachable(self, engine: Engine, fault: Fault) -> None:
        """Take note that an exchange found no way to an engine: no exchange goes there before the next look at it."""
        if fault.kind is errors.NODE_BUSY:  # all connections of its node are taken: nothing is wrong with the engine
            self.queue.rest(engine, NO_CONNECTION_REST)
            return
        self._health.note_failure(engine, fault.message)
        self._roster.kick(engine)

    def note_exchange(self, engine: Engine, model: str, *, unloads: bool, changes: bool) -> None:
        """Take note that an exchange ended on an engine: what the engine has in memory may have changed."""
        if unloads:
            # The engine still lists the model for some moments; a client that asks the hub must not see it there.
            self.fleet.forget_loaded(engine, model)
            self._loader.unload_elsewhere(engine, model)
            self._roster.kick(engine, later=True)
        elif changes or model not in engine.known.warm:
            self._roster.kick(engine)
        else:
            engine.known.is_stale = True
