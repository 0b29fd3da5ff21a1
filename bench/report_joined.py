"""The table of joined links: their cost for the hub beside dialed links, the cost of a node, a restart."""

from __future__ import annotations

from collections.abc import Sequence

from proxies import BEFORE_JOINED, JOINED, NODE
from report import HUB, Limit, Row, cell
from results import Results, Scenario
from scenarios import CONNECTIONS, NODE_STREAMS, STREAMS

JOINED_BUDGET = 1.3
"""A multiple of a dialed link's cost for the hub in the same run."""
LATENCY_BUDGET = 0.5
RECONNECT_BUDGET = 10.0


def table(results: Results) -> list[list[str]]:
    """Return the lines of the table, the first one its heading. A measure without values is left out."""
    request, chunk = f"request, {CONNECTIONS} connections", f"chunk, {STREAMS:,} streams"
    added = [pair[0] for pair in results.added_latencies(NODE)]
    tail = [pair[1] for pair in results.added_latencies(NODE)]
    rows = [
        *_hub_rows(results, Scenario.REQUESTS, request),
        *_hub_rows(results, Scenario.CHUNKS, chunk),
        _row(f"the node itself: {request} (us)", results.cpu(Scenario.REQUESTS, NODE), 1),
        _row(f"the node itself: chunk, {NODE_STREAMS} streams (us)", results.cpu(Scenario.CHUNKS, NODE), 1),
        _row("added latency, hub and node, p50 (ms)", added, 3, Limit(f"{LATENCY_BUDGET} ms", LATENCY_BUDGET, added)),
        _row("added latency, hub and node, p99 (ms)", tail, 3),
        *_memory_rows(results),
        *_reconnect_rows(results),
    ]
    return [["joined links", "measured", "budget", "held"], *(row.texts() for row in rows if row.cells != ["-"])]


def _hub_rows(results: Results, scenario: Scenario, what: str) -> list[Row]:
    ratios = results.ratios(scenario, JOINED, HUB)
    limit = Limit(f"{JOINED_BUDGET} x dialed", JOINED_BUDGET, ratios)
    return [
        _row(f"the hub, joined: {what} (us)", results.cpu(scenario, JOINED), 1),
        _row(f"the hub, joined / dialed: {what}", ratios, 2, limit),
        _row(f"the hub, joined / joined before: {what}", results.ratios(scenario, JOINED, BEFORE_JOINED), 2),
    ]


def _memory_rows(results: Results) -> list[Row]:
    footprints = [footprint for footprint in results.footprints if footprint.proxy == NODE]
    return [_row("the node's memory, RSS (MB)", [each.idle.rss / (1 << 20) for each in footprints], 1)]


def _reconnect_rows(results: Results) -> list[Row]:
    rows = []
    for each in results.reconnects:
        limit = Limit(f"{RECONNECT_BUDGET:g} s", RECONNECT_BUDGET, [each.seconds])
        streams = f"largest gap in {each.streams} streams of 20 ms"
        rows += [
            _row(f"{each.nodes} nodes back after the hub's SIGTERM (s)", [each.seconds], 1, limit),
            _row(f"{streams}, while they come back (ms)", [each.busy_gap * 1000], 0),
            _row("the same without the hub, at the same time (ms)", [each.direct_gap * 1000], 0),
            _row(f"{streams}, once they are there (ms)", [each.calm_gap * 1000], 0),
        ]
    return rows


def _row(measure: str, values: Sequence[float], digits: int, *limits: Limit) -> Row:
    return Row(measure, [cell(values, digits)], [], limits)
