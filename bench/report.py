"""The table of a run, beside the budget of the hub: for a terminal and for docs/performance.md."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from processes import BenchError, Memory
from proxies import BEFORE_JOINED, JOINED, NODE
from results import DIRECT, Results, Scenario
from scenarios import BODY_BYTES, CONNECTIONS, ENGINES, STREAMS

BEGIN, END = "<!-- results: bench/run.py --markdown writes what follows -->", "<!-- end of results -->"
HUB = "hive"
MEGABYTE = 1 << 20
REQUEST_BUDGET, CHUNK_BUDGET = 3.5, 1.4
"""Multiples of HAProxy's time in the same run, because microseconds differ between machines."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """One line of the budget: `values` (one a round) should have a median of at most `limit`."""

    text: str
    limit: float
    values: Sequence[float]

    def is_held(self) -> bool:
        return statistics.median(self.values) <= self.limit


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure: a cell for each proxy, the ratio to each other proxy, and the limit of the budget."""

    measure: str
    cells: Sequence[str]
    ratios: Sequence[str]
    limits: Sequence[Limit] = ()

    def texts(self) -> list[str]:
        """Return all cells from left to right."""
        measured = [limit for limit in self.limits if limit.values]
        budget = ", ".join(limit.text for limit in measured)
        verdict = "yes" if all(limit.is_held() for limit in measured) else "NO"
        return [self.measure, *self.cells, *self.ratios, budget, verdict if measured else ""]


def table(results: Results, proxies: Sequence[str]) -> list[list[str]]:
    """Return the lines of the table of proxies, the first one its heading."""
    proxies = [proxy for proxy in proxies if proxy not in (JOINED, NODE, BEFORE_JOINED)]
    others = _others(proxies)
    heading = ["measure", *proxies, *(f"{HUB} / {other}" for other in others), "budget", "held"]
    request, chunk = f"request, {CONNECTIONS} connections (us)", f"chunk, {STREAMS:,} streams (us)"
    rows = [
        _cpu_row(results, proxies, request, Scenario.REQUESTS, 1, REQUEST_BUDGET),
        _cpu_row(results, proxies, chunk, Scenario.CHUNKS, 1, CHUNK_BUDGET),
        _row(proxies, "chunks that arrive at once", results.chunks_per_read, 2),
        _cpu_row(results, proxies, f"request of {BODY_BYTES // 1000} KB (us)", Scenario.BODIES, 1, None),
        _cpu_row(results, proxies, f"request, {ENGINES} nodes (us)", Scenario.REQUESTS, ENGINES, None),
        _row(proxies, f"{ENGINES} nodes / one node", lambda proxy: results.growth(proxy, ENGINES), 2),
        _latency_row(results, proxies, 0, "added latency, p50 (ms)", Limit("0.3 ms", 0.3, ())),
        _latency_row(results, proxies, 1, "added latency, p99 (ms)", Limit("1 ms", 1.0, ())),
        *_memory_rows(results, proxies),
    ]
    return [heading, *(row.texts() for row in rows if proxies)]


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in padded)


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, figures to the right."""
    ruler = ["---", *(["--:"] * (len(lines[0]) - 3)), "---", "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ruler, *lines[1:]])


def footnote(results: Results) -> str:
    """Return the latencies of the engine alone, to which the table's latencies are added."""
    if not (alone := results.latencies(DIRECT)):
        return ""
    p50, p99 = (statistics.median(pair[which] for pair in alone) for which in (0, 1))
    return f"The engine alone, at one connection: p50 {p50:.3f} ms, p99 {p99:.3f} ms."


def check_markers(path: Path) -> None:
    """Refuse a file that cannot take a report. It is called before the run, so that no run is lost."""
    text = path.read_text() if path.exists() else ""
    if text and not 0 <= text.find(BEGIN) < text.find(END):
        raise BenchError(f"{path} lacks the two markers that the results belong between:\n{BEGIN}\n{END}")


def write_markdown(path: Path, report: str) -> None:
    """Put a report between the markers of a file, or into a new file."""
    text = path.read_text() if path.exists() else f"{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{rest.split(END, 1)[1]}")


def write_json(path: Path, machine: str, results: Results) -> None:
    """Write every sample of a run, for programs."""
    path.write_text(json.dumps({"machine": machine, **dataclasses.asdict(results)}, indent=1) + "\n")


def _others(proxies: Sequence[str]) -> list[str]:
    return [proxy for proxy in proxies if proxy != HUB] if HUB in proxies else []


def cell(values: Sequence[float], digits: int) -> str:
    """Return the median and, when there are several rounds, the lowest and the highest."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _cpu_row(
    results: Results,
    proxies: Sequence[str],
    measure: str,
    scenario: Scenario,
    engines: int,
    budget: float | None,
) -> Row:
    cells = [cell(results.cpu(scenario, proxy, engines), 1) for proxy in proxies]
    ratios = [cell(results.ratios(scenario, HUB, other, engines), 2) for other in _others(proxies)]
    if budget is None:
        return Row(measure, cells, ratios)
    limit = Limit(f"{budget} x haproxy", budget, results.ratios(scenario, HUB, "haproxy", engines))
    return Row(measure, cells, ratios, [limit])


def _row(proxies: Sequence[str], measure: str, values: Callable[[str], Sequence[float]], digits: int) -> Row:
    cells = [cell(values(proxy), digits) for proxy in proxies]
    return Row(measure, cells, ["" for _ in _others(proxies)])


def _latency_row(results: Results, proxies: Sequence[str], which: int, measure: str, limit: Limit) -> Row:
    added = {proxy: [pair[which] for pair in results.added_latencies(proxy)] for proxy in proxies}
    cells = [cell(added[proxy], 3) for proxy in proxies]
    limits = [dataclasses.replace(limit, values=added.get(HUB, ()))]
    return Row(measure, cells, ["" for _ in _others(proxies)], limits)


def _memory_rows(results: Results, proxies: Sequence[str]) -> list[Row]:
    measured = {footprint.proxy: footprint for footprint in results.footprints}
    idle = [measured[proxy].idle for proxy in proxies]
    streaming = [measured[proxy].streaming for proxy in proxies]
    empty = ["" for _ in _others(proxies)]
    limit = Limit("100 MB", 100, [measured[HUB].idle.rss / MEGABYTE] if HUB in measured else [])
    return [
        Row("memory idle, RSS / PSS (MB)", [_megabytes(memory) for memory in idle], empty, [limit]),
        Row(f"memory, {STREAMS:,} streams (MB)", [_megabytes(memory) for memory in streaming], empty),
    ]


def _megabytes(memory: Memory) -> str:
    return f"{memory.rss / MEGABYTE:.1f} / {memory.pss / MEGABYTE:.1f}"
