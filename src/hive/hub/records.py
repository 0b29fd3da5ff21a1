"""The record of every exchange: its line in the log and the sums behind the metrics. It holds no prompt and no secret.

An exchange only adds its record. Lines and sums are made for many records together, a few times a second: in a tight
loop this code costs a quarter of what it costs when it runs once after each exchange.
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

    __hash__ = str.__hash__  # Enum's own is written in Python, and every exchange hashes an outcome

    OK = "ok"
    CLIENT_ERROR = "client_error"
    NODE_ERROR = "node_error"
    HUB_ERROR = "hub_error"
    CLIENT_GONE = "client_gone"
    CANCELLED = "cancelled"


_OUTCOMES = {Family.CLIENT: Outcome.CLIENT_ERROR, Family.NODE: Outcome.NODE_ERROR, Family.HUB: Outcome.HUB_ERROR}


def outcome_of(kind: Kind) -> Outcome:
    """Return the outcome of an exchange whose client gets this error."""
    return Outcome.CANCELLED if kind is CANCELLED else _OUTCOMES[kind.family]


def timestamp(seconds: float) -> str:
    """Return a Unix time as RFC 3339 in UTC, with milliseconds."""
    whole = int(seconds)
    return f"{_whole_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class Record(msgspec.Struct):
    """One exchange, as its line in the log shows it. Times are in milliseconds."""

    time: str = ""
    """The end of the exchange in RFC 3339. It is filled in when the record is settled."""
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
    """The canonical name; empty for a model that no engine has."""
    node: str = ""
    why: str = ""
    """Why this node was chosen."""
    attempts: int = 0
    error: str = ""
    """The stable code of the error."""
    detail: str = ""
    """What went wrong in the hub or at a node, as the client read it. It quotes neither client nor engine."""
    queued_ms: float = 0.0
    first_byte_ms: float | None = None
    total_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


class Histogram:
    """Counts of durations by `SECONDS_BUCKETS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.total = 0.0

    def add(self, milliseconds: float) -> None:
        """Count one duration."""
        seconds = milliseconds / 1000
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Tally:
    """The sums of all exchanges with the same operation, node and outcome."""

    count: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: int = 0
    duration: Histogram = field(default_factory=Histogram)


class Tallies:
    """All sums, by operation, node and outcome. The configuration bounds their number, whatever clients send."""

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
    """Takes the records of ended exchanges and settles them together: it counts, writes and notes them as events."""

    def __init__(self, write: Callable[[Sequence[Record]], None], note: Callable[[Sequence[Record]], None]) -> None:
        self._write = write
        self._note = note
        self._tallies = Tallies()
        self._unsettled: list[Record] = []
        self._ended_at: list[float] = []
        """When each record was added, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def tallies(self) -> Tallies:
        """Return the sums of all exchanges so far."""
        self.settle()
        return self._tallies

    def add(self, record: Record) -> None:
        """Add the record of an exchange."""
        self._unsettled.append(record)
        self._ended_at.append(self._loop.time())
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_INTERVAL, self.settle)
        elif len(self._unsettled) >= MAX_UNSETTLED:
            self.settle()

    def settle(self) -> None:
        """Date, count, write and note the records that were added."""
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
        self._note(records)
