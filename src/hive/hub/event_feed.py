"""Lets coroutines follow the event log as it grows.

A follower is a position in the log, and holds no event itself: however slow it is, it costs no memory, and when it
falls behind what the log keeps it is told of a gap. All followers that wait are woken by one future, at the end of
the turn of the event loop in which events came: a writer's cost does not depend on how many follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass

from hive.errors import OVERLOADED, Fault
from hive.hub.event_log import EventLog, Gap, Position
from hive.hub.events import Event, EventKind

MAX_FOLLOWERS = 100
BATCH = 100
"""Events that a follower gets at once, at most."""


@dataclass(frozen=True, slots=True)
class News:
    """Events that a follower gets together, and its position when it has read them."""

    events: Sequence[Event]
    position: Position


class EventFeed:
    """The followers of a log. Make it inside a running loop."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.followers = 0
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] | None = None
        """What those wait for that have read everything."""
        self._is_waking = False
        log.on_news = self._on_news

    def check_room(self) -> None:
        """Raise `Fault` if there is no room for one more follower."""
        if self.followers >= MAX_FOLLOWERS:
            raise Fault(OVERLOADED, f"{MAX_FOLLOWERS} clients follow the events already")

    async def follow(
        self, position: Position, kinds: Collection[EventKind], quiet: float, may_follow: Callable[[], bool]
    ) -> AsyncGenerator[News | Gap, None]:
        """Yield the events after a position, and then each new event; only events of these kinds.

        It ends with the first event after which the follower may not follow any more.
        News without an event say that none came for `quiet` seconds. After a gap it goes on with the oldest event kept.
        """
        self.followers += 1
        try:
            deadline = self._loop.time() + quiet
            while may_follow():  # the end of a key is an event too, which wakes its follower
                found = self.log.since(position, BATCH)
                if isinstance(found, Gap):
                    position = found.resume
                    yield found
                elif found:
                    position = Position(self.log.epoch, found[-1].number)
                    wanted = [event for event in found if event.kind in kinds]
                    if not wanted and self._loop.time() < deadline:
                        await asyncio.sleep(0)  # a long log of other kinds must not keep the hub busy
                        continue
                    yield News(wanted, position)
                elif await self._has_news(deadline - self._loop.time()):
                    continue
                else:
                    yield News((), position)
                deadline = self._loop.time() + quiet
        finally:
            self.followers -= 1

    async def _has_news(self, seconds: float) -> bool:
        """Wait for the next event; return False if none came within `seconds`."""
        if self._news is None:
            self._news = self._loop.create_future()
        news = self._news
        await asyncio.wait(
            [news], timeout=max(seconds, 0.0)
        )  # a follower that is cancelled takes its callback away again
        return news.done()

    def _on_news(self) -> None:
        if self._news is not None and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._is_waking = False
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)
