"""What happened in a hub, in order: a bounded log in memory, whose numbers rise by one from event to event.

The number of an event follows from its place, so there are no gaps between numbers. Each start of a hub begins an
epoch with number 1. A reader that has read up to a position asks for the events after it. If some of them are not kept
any more, or the position is of another epoch, the reader gets a `Gap`: it must read the lists again.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from hive.hub.events import Details, Event, EventKind
from hive.hub.records import Record, timestamp

KEPT = 10_000
"""The most events that are kept; the oldest events make room for new ones."""
_POSITION = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """The last event that a reader has read. Number 0 is the beginning of an epoch."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def read(cls, text: str) -> Position | None:
        """Return the position in a text that `str` wrote; None for any other text."""
        found = _POSITION.fullmatch(text)
        return cls(found[1], int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class Gap:
    """Some events after `asked` are not kept. Read on after `resume`, the position before the oldest event kept."""

    asked: Position
    resume: Position


class EventLog:
    """The log. The code that makes a change appends the event, when the change is in effect."""

    def __init__(self, *, epoch: str | None = None, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        """`epoch` is random if it is not given."""
        self.epoch = epoch or secrets.token_hex(6)
        self.last = 0
        """The number of the newest event; 0 while there is none."""
        self.on_news: Callable[[], None] = _ignore
        """Called after each change of the log."""
        self._clock = clock
        self._kept: deque[Event | Record] = deque(maxlen=kept)
        """A record stands for the end of its request. The event is only made when a reader asks for it."""

    @property
    def position(self) -> Position:
        """Return the position of a reader that has read everything."""
        return Position(self.epoch, self.last)

    def append(self, kind: EventKind, subject: str, details: Details) -> None:
        """Add an event that happened now."""
        self.last += 1
        self._kept.append(Event(timestamp(self._clock()), self.epoch, self.last, kind, subject, details))
        self.on_news()

    def append_requests(self, records: Sequence[Record]) -> None:
        """Add an event for the end of each request. Each record has its time already."""
        self.last += len(records)
        self._kept.extend(records)
        self.on_news()

    def since(self, position: Position, most: int = KEPT) -> Sequence[Event] | Gap:
        """Return the first `most` events after a position, in order; a `Gap` when some events are not kept."""
        before_oldest = self.last - len(self._kept)
        if position.epoch != self.epoch or not before_oldest <= position.number <= self.last:
            return Gap(position, Position(self.epoch, before_oldest))
        if position.number == self.last:
            return []
        begin = position.number - before_oldest
        entries = islice(self._kept, begin, begin + most)
        return [self._event(number, entry) for number, entry in enumerate(entries, position.number + 1)]

    def _event(self, number: int, entry: Event | Record) -> Event:
        if isinstance(entry, Event):
            return entry
        return Event(entry.time, self.epoch, number, EventKind.REQUEST_ENDED, entry.request_id, entry)


def _ignore() -> None:
    """Do nothing: the log has no follower."""
