"""The engines of a hub, each with the link that leads to it and the watcher that knows it."""

from __future__ import annotations

import asyncio

from hive.fleet.engines import Engine, Fleet
from hive.hub.event_log import EventLog
from hive.hub.events import EngineSeen, EventKind, engine_subject
from hive.hub.health_watch import HealthWatch
from hive.hub.listing_notes import ListingNotes
from hive.hub.watcher import Watcher
from hive.net.link import Link

FIRST_LOOK = 3.0
"""A request waits at most this many seconds for every engine to be asked once."""
REMOVAL = 5.0
"""Seconds after its removal in which an engine's link can still be found."""


class Roster:
    """Adds and removes engines, and has them looked at. Make it inside a running loop."""

    def __init__(self, fleet: Fleet, health: HealthWatch, events: EventLog) -> None:
        self._fleet = fleet
        self._events = events
        self._listings = ListingNotes(events)
        self._health = health
        self._loop = asyncio.get_running_loop()
        self.links: dict[Engine, Link] = {}
        self._watchers: dict[Engine, Watcher] = {}

    def add(self, engine: Engine, link: Link, watcher: Watcher) -> None:
        """Add an engine to the fleet."""
        self.links[engine] = link
        self._watchers[engine] = watcher
        self._fleet.add(engine)
        self._health.watch(engine)
        self._note(EventKind.ENGINE_ADDED, engine)

    def remove(self, engine: Engine) -> None:
        """Remove an engine from the fleet for good."""
        self._fleet.remove(engine)
        self._health.forget(engine)
        self._listings.forget(engine)
        del self._watchers[engine]
        self._note(EventKind.ENGINE_REMOVED, engine)
        # A lease that was granted in this turn still finds the link, and learns at its end that the engine is gone.
        self._loop.call_later(REMOVAL, lambda: self.links.pop(engine).close())

    def note_listing(self, engine: Engine) -> None:
        """Take note that an engine was asked for its slots, its models, and what it has in memory."""
        self.expect(engine)
        self._listings.note(engine)

    def _note(self, kind: EventKind, engine: Engine) -> None:
        details = EngineSeen(engine.node, engine.id, engine.url)
        self._events.append(kind, engine_subject(engine.node, engine.id), details)

    def watchers(self) -> list[Watcher]:
        """Return the watchers of all engines."""
        return list(self._watchers.values())

    def kick(self, engine: Engine, *, later: bool = False) -> None:
        """Have an engine looked at now; `later`: once the engine has done what it confirmed (an unload)."""
        watcher = self._watchers.get(engine)
        if watcher is None:
            return  # it was removed meanwhile
        if later:
            watcher.kick_later()
        else:
            watcher.kick()

    @property
    def has_looked(self) -> bool:
        """Has every engine been asked once, or given the time for it?"""
        return all(watcher.has_looked.is_set() for watcher in self._watchers.values())

    async def first_look(self) -> None:
        """Wait, a little, until every engine has been asked once: before that the hub does not know all models."""
        waiting = [watcher.has_looked.wait() for watcher in self.watchers() if not watcher.has_looked.is_set()]
        if not waiting:
            return
        try:
            async with asyncio.timeout(FIRST_LOOK):
                await asyncio.gather(*waiting)
        except TimeoutError:
            pass

    def expect(self, engine: Engine) -> None:
        """Have as many connections ready as the engine may run exchanges."""
        self.links[engine].expect(engine.most_exchanges)

    def follow_slots(self) -> None:
        """Adjust the number of ready connections to the slots that were learned since."""
        for engine in self._fleet.engines:
            if engine.takes_work:
                self.expect(engine)

    def close(self) -> None:
        """Close every link."""
        for link in self.links.values():
            link.close()
