"""The engines of a hub, with links and watchers: added, looked at, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hive.fleet.engines import Engine, Fleet
from hive.hub.event_log import EventLog
from hive.hub.health_watch import HealthWatch
from hive.hub.roster import Roster


class FakeWatcher:
    """Counts how often it is told to look."""

    def __init__(self) -> None:
        self.has_looked = asyncio.Event()
        self.kicks: list[str] = []

    def kick(self) -> None:
        self.kicks.append("now")

    def kick_later(self) -> None:
        self.kicks.append("later")


class FakeLink:
    """Remembers what it was told to expect, and whether it was closed."""

    base_path = host_field = credential = b""

    def __init__(self) -> None:
        self.expected = 0
        self.is_closed = False

    def take_idle(self) -> None:
        return None

    async def dial(self) -> object:  # type: ignore[explicit-any]
        raise OSError

    def expect(self, slots: int) -> None:
        self.expected = slots

    def close(self) -> None:
        self.is_closed = True


class Place:
    """A roster with one engine."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.fleet = Fleet()
        self.roster = Roster(self.fleet, HealthWatch(self.fleet, lambda: 0.0, self.events, lambda _: None), self.events)
        self.engine, self.link, self.watcher = Engine("a", "http://a"), FakeLink(), FakeWatcher()
        self.roster.add(self.engine, self.link, self.watcher)  # type: ignore[arg-type]


def run(work: Callable[[Place], Awaitable[None]]) -> None:
    async def start() -> None:
        await work(Place())

    asyncio.run(start())


def test_an_engine_is_looked_at_when_it_is_kicked() -> None:
    async def work(place: Place) -> None:
        place.roster.kick(place.engine)
        place.roster.kick(place.engine, later=True)
        assert place.watcher.kicks == ["now", "later"]

    run(work)


def test_a_removed_engine_is_in_no_fleet_and_a_kick_of_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.hub.roster.REMOVAL", 0.0)

    async def work(place: Place) -> None:
        place.roster.remove(place.engine)
        place.roster.kick(place.engine)
        assert (place.fleet.engines, place.watcher.kicks) == ([], [])
        assert place.roster.links[place.engine] is place.link  # a lease granted in this turn still finds it
        while place.engine in place.roster.links:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert place.link.is_closed

    run(work)


def test_the_first_look_ends_when_every_engine_was_asked() -> None:
    async def work(place: Place) -> None:
        assert not place.roster.has_looked
        waiting = asyncio.create_task(place.roster.first_look())
        await asyncio.sleep(0)
        assert not waiting.done()
        place.watcher.has_looked.set()
        await waiting
        assert place.roster.has_looked

    run(work)


def test_the_first_look_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.hub.roster.FIRST_LOOK", 0.01)

    async def work(place: Place) -> None:
        await place.roster.first_look()
        assert not place.roster.has_looked

    run(work)


def test_links_are_ready_for_as_many_exchanges_as_their_engine_may_run() -> None:
    async def work(place: Place) -> None:
        place.roster.expect(place.engine)
        assert place.link.expected == place.engine.most_exchanges > 0
        place.roster.close()
        assert place.link.is_closed

    run(work)
