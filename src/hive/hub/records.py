"""What is kept of every exchange: one line of the log, and the tallies behind the metrics. No text of a prompt, no secret."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


class Outcome(StrEnum):
    """How an exchange ended, from the client's side."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    NODE_ERROR = "node_error"
    HUB_ERROR = "hub_error"
    CLIENT_GONE = "client_gone"


@dataclass(slots=True)
class Record:
    """One exchange. Times are lengths in seconds."""

    request_id: str
    operation: str
    key: str = ""
    """The key's name."""
    model: str = ""
    """The canonical name; empty for one that no engine has."""
    node: str = ""
    attempts: int = 0
    why: str = ""
    """Why this node."""
    status: int = 0
    outcome: Outcome = Outcome.OK
    error: str = ""
    """The stable code of a fault."""
    queued: float = 0.0
    first_byte: float | None = None
    total: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0


class Histogram:
    """Counts of lengths of time by `SECONDS_BUCKETS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one length of time."""
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Tally:
    """The sums of one kind of exchange."""

    count: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: int = 0
    seconds: Histogram = field(default_factory=Histogram)


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
        tally.seconds.add(record.total)
        if not record.node:
            return
        self.queued.add(record.queued)
        if record.first_byte is not None:
            histogram = self.first_byte.get(record.node)
            if histogram is None:
                histogram = self.first_byte[record.node] = Histogram()
            histogram.add(record.first_byte)
