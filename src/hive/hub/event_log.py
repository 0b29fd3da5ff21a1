"""What happened in a hub, in order: a bounded log in memory, whose numbers rise by one from event to event.

The number of an event follows from its place, so there are no gaps between numbers. Each start of a hub begins an
epoch with number 1. A reader that has read up to a position asks for what came after it. If part of that is not
kept any more, or if the position is of another epoch, the reader gets a `Gap` and knows that it must read the lists
anew.
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
"""Events that are kept; the oldest make room for new ones."""
_POSITION = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """The last event that a reader has read; number 0 is the beginning of an epoch, before its first event."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def read(cls, text: str) -> Position | None:
        """Parse a position that `str` wrote; return None for any other text."""
        found = _POSITION.fullmatch(text)
        return cls(found[1], int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class Gap:
    """Some events after `asked` are gone. Read on after `resume`, just before the oldest event that is kept."""

    asked: Position
    resume: Position


class EventLog:
    """The log. Its writers are those that make a change; they append when the change is in effect."""

    def __init__(self, *, epoch: str | None = None, kept: int = KEPT, clock: Callable[[], float] = time.time) -> None:
        """`epoch` is made up at random if it is not given."""
        self.epoch = epoch or secrets.token_hex(6)
        self.last = 0
        """The number of the newest event; 0 while there is none."""
        self.on_news: Callable[[], None] = _ignore
        """Called after each change of the log."""
        self._clock = clock
        self._kept: deque[Event | Record] = deque(maxlen=kept)
        """A record stands for its `request_ended` event, which is made only when a reader asks for it."""

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
        """Add the end of each of these requests; their records have their time already."""
        self.last += len(records)
        self._kept.extend(records)
        self.on_news()

    def since(self, position: Position, most: int = KEPT) -> Sequence[Event] | Gap:
        """Return the events after a position, oldest first, at most `most` of them; a `Gap` if some are gone."""
        before_oldest = self.last - len(self._kept)
        if position.epoch != self.epoch or not before_oldest <= position.number <= self.last:
            return Gap(position, Position(self.epoch, before_oldest))
        start = position.number - before_oldest
        entries = islice(self._kept, start, start + most)
        return [self._event(number, entry) for number, entry in enumerate(entries, position.number + 1)]

    def _event(self, number: int, entry: Event | Record) -> Event:
        if isinstance(entry, Event):
            return entry
        return Event(entry.time, self.epoch, number, EventKind.REQUEST_ENDED, entry.request_id, entry)


def _ignore() -> None:
    """Do nothing: no reader follows the log."""
