"""What is kept of every exchange: a line of the log and the tallies behind the metrics. No prompt, no secret.

An exchange only hands its record in; lines and sums are made for many records at once, a few times a second,
because code that runs in a tight loop costs a quarter of what it costs in between.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import msgspec

from hive.errors import CANCELLED, Family, Kind

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
SETTLE_INTERVAL = 0.2
MAX_UNSETTLED = 1000


class Outcome(StrEnum):
    """How an exchange ended, from the client's side."""

    __hash__ = str.__hash__  # Enum's own is written in Python: every exchange asks for it

    OK = "ok"
    CLIENT_ERROR = "client_error"
    NODE_ERROR = "node_error"
    HUB_ERROR = "hub_error"
    CLIENT_GONE = "client_gone"
    CANCELLED = "cancelled"


_OUTCOMES = {Family.CLIENT: Outcome.CLIENT_ERROR, Family.NODE: Outcome.NODE_ERROR, Family.HUB: Outcome.HUB_ERROR}


def outcome_of(kind: Kind) -> Outcome:
    """Return how an exchange ends whose client gets this error."""
    return Outcome.CANCELLED if kind is CANCELLED else _OUTCOMES[kind.family]


def timestamp(seconds: float) -> str:
    """Return a Unix time as RFC 3339 in UTC, with milliseconds."""
    whole = int(seconds)
    return f"{_whole_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class Record(msgspec.Struct):
    """One exchange, as its line in the log has it. Times are lengths in milliseconds."""

    time: str = ""
    """When it ended, RFC 3339; filled in when it is settled."""
    event: str = "exchange"
    request_id: str = ""
    operation: str = ""
    key: str = ""
    """The key's name."""
    key_id: str = ""
    """Which key of this name it is: the start of its digest, in hexadecimal."""
    outcome: Outcome = Outcome.OK
    status: int = 0
    model: str = ""
    """The canonical name; empty for one that no engine has."""
    node: str = ""
    why: str = ""
    """Why this node."""
    attempts: int = 0
    error: str = ""
    """The stable code of a fault."""
    detail: str = ""
    """What went wrong with the hub or a node, in the words that the client got; no word of a client or an engine."""
    queued_ms: float = 0.0
    first_byte_ms: float | None = None
    total_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


class Histogram:
    """Counts of lengths of time by `SECONDS_BUCKETS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.total = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one length of time."""
        seconds = milliseconds / 1000
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Tally:
    """The sums of one kind of exchange."""

    count: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: int = 0
    duration: Histogram = field(default_factory=Histogram)


class Tallies:
    """All sums, by operation, node and outcome: as many as the configuration allows, whatever clients send."""

    def __init__(self) -> None:
        self.exchanges: dict[tuple[str, str, Outcome], Tally] = {}
        self.queued = Histogram()
        self.first_byte: dict[str, Histogram] = {}

    def add(self, record: Record) -> None:
        """Count one exchange."""
        key = (record.operation, record.node, record.outcome)
        tally = self.exchanges.get(key)
        if tally is None:
            tally = self.exchanges[key] = Tally()
        tally.count += 1
        tally.bytes_in += record.bytes_in
        tally.bytes_out += record.bytes_out
        tally.attempts += record.attempts
        tally.duration.add(record.total_ms)
        if not record.node:
            return
        self.queued.add(record.queued_ms)
        if record.first_byte_ms is not None:
            histogram = self.first_byte.get(record.node)
            if histogram is None:
                histogram = self.first_byte[record.node] = Histogram()
            histogram.add(record.first_byte_ms)


class Records:
    """Takes the records of exchanges that are over; settles them together: counted, then written."""

    def __init__(self, write: Callable[[Sequence[Record]], None]) -> None:
        self._write = write
        self._tallies = Tallies()
        self._unsettled: list[Record] = []
        self._ended_at: list[float] = []
        """When each of them came, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def tallies(self) -> Tallies:
        """Return the sums of all exchanges so far."""
        self.settle()
        return self._tallies

    def add(self, record: Record) -> None:
        """Take the record of an exchange."""
        self._unsettled.append(record)
        self._ended_at.append(self._loop.time())
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_INTERVAL, self.settle)
        elif len(self._unsettled) >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Date, count and write what was taken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        records, self._unsettled = self._unsettled, []
        ended_at, self._ended_at = self._ended_at, []
        if not records:
            return
        offset = time.time() - self._loop.time()
        for record, at in zip(records, ended_at, strict=True):
            record.time = timestamp(offset + at)
            self._tallies.add(record)
        self._write(records)
