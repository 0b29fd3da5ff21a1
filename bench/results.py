"""The values that a run measured, and the figures that a report derives from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from native import Outcome
from processes import Memory

DIRECT = "direct"
"""The name of the engine without a proxy."""


class Scenario(StrEnum):
    """What was measured. The value is its name in the JSON file."""

    REQUESTS = "requests"
    CHUNKS = "chunks"
    BODIES = "bodies"
    LATENCY = "latency"


@dataclass(frozen=True)
class Sample:
    """One round of one scenario through one proxy; `cpu_us` is per request, in CHUNKS per chunk."""

    scenario: Scenario
    proxy: str
    engines: int
    round: int
    cpu_us: float
    outcome: Outcome


@dataclass(frozen=True)
class Footprint:
    """The memory of one proxy after its start, and with all streams running."""

    proxy: str
    idle: Memory
    streaming: Memory
    streams: int


@dataclass(frozen=True)
class Reconnect:
    """A restart of a hub with many joined nodes: the seconds until all were back, and the gaps in running streams.

    `seconds` counts from the SIGTERM. `stop_seconds` of them pass until the old hub has ended. `joined` is how many
    nodes the new hub calls ready. The gaps are the largest within any stream over a dialed node, before and after the
    restart. For comparison there is the largest within streams of the engine without a hub, after it: the machine's own
    gaps.
    """

    nodes: int
    seconds: float
    stop_seconds: float
    joined: int
    streams: int
    calm_gap: float
    busy_gap: float
    direct_gap: float


@dataclass
class Results:
    """All samples of a run, and one sentence for each round in which something was lost."""

    samples: list[Sample] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    reconnects: list[Reconnect] = field(default_factory=list)

    def cpu(self, scenario: Scenario, proxy: str, engines: int = 1) -> list[float]:
        """Return the CPU microseconds per request or chunk, one value for each round."""
        return [sample.cpu_us for sample in self._of(scenario, proxy, engines)]

    def ratios(self, scenario: Scenario, proxy: str, other: str, engines: int = 1) -> list[float]:
        """Return the CPU time of a proxy as a multiple of that of `other`, one value for each round."""
        return _quotients(self.cpu(scenario, proxy, engines), self.cpu(scenario, other, engines))

    def growth(self, proxy: str, engines: int) -> list[float]:
        """Return the CPU time per request with several engines, as a multiple of that with one."""
        return _quotients(self.cpu(Scenario.REQUESTS, proxy, engines), self.cpu(Scenario.REQUESTS, proxy))

    def chunks_per_read(self, proxy: str) -> list[float]:
        """Return how many chunks came to the client in one read. More than 1 means that some were held back."""
        outcomes = [sample.outcome for sample in self._of(Scenario.CHUNKS, proxy, 1)]
        return [outcome.lines / outcome.reads for outcome in outcomes]

    def latencies(self, proxy: str) -> list[tuple[float, float]]:
        """Return p50 and p99 at one connection, in milliseconds, one pair for each round."""
        outcomes = [sample.outcome for sample in self._of(Scenario.LATENCY, proxy, 1)]
        return [(outcome.p50_us / 1000, outcome.p99_us / 1000) for outcome in outcomes]

    def added_latencies(self, proxy: str) -> list[tuple[float, float]]:
        """Return by how much a proxy raised p50 and p99 over the engine alone in the same round."""
        pairs = zip(self.latencies(proxy), self.latencies(DIRECT), strict=False)
        return [(mine[0] - direct[0], mine[1] - direct[1]) for mine, direct in pairs]

    def _of(self, scenario: Scenario, proxy: str, engines: int) -> list[Sample]:
        wanted = (scenario, proxy, engines)
        return [each for each in self.samples if (each.scenario, each.proxy, each.engines) == wanted]


def _quotients(these: list[float], those: list[float]) -> list[float]:
    return [this / that for this, that in zip(these, those, strict=False)]
