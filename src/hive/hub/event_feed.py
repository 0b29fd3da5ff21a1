"""Lets coroutines follow the event log as it grows.

A follower is a position in the log and holds no events, so a slow follower costs no memory. A follower that falls
behind the oldest event in the log is told of a gap. One future wakes all followers that wait, at the end of the event
loop's turn in which events came. So the cost of a writer does not depend on the number of followers.
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
"""The most events that a follower gets at once."""


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
        """The followers that have read everything wait for this future."""
        self._is_waking = False
        log.on_news = self._on_news

    def check_room(self) -> None:
        """Raise `Fault` (overloaded) when there is no room for one more follower."""
        if self.followers >= MAX_FOLLOWERS:
            raise Fault(OVERLOADED, f"{MAX_FOLLOWERS} clients follow the events already")

    async def follow(
        self, position: Position, kinds: Collection[EventKind], quiet: float, may_follow: Callable[[], bool]
    ) -> AsyncGenerator[News | Gap, None]:
        """Yield the events of these kinds that came after a position, and then each new one.

        The generator ends at the first event after which `may_follow` returns False. News without an event say that
        none came for `quiet` seconds. After a gap, the oldest event in the log comes next.
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
        # A cancelled follower takes only its own callback away: the future stays for the others.
        await asyncio.wait([news], timeout=max(seconds, 0.0))
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
