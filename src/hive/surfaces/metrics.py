"""`/metrics` in Prometheus's text form, made from the tallies when it is asked for: no request pays for a counter."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hive.fleet.engines import Engine
from hive.hub.core import Hub
from hive.hub.records import SECONDS_BUCKETS, Histogram
from hive.net.server import HttpServer

_EXCHANGE_LABELS = ["operation", "node", "outcome"]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, count = [], 0
    for bound, counted in zip((*SECONDS_BUCKETS, float("inf")), histogram.counts, strict=True):
        count += counted
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(count)))
    return buckets


class _HubCollector(Collector):
    def __init__(self, hub: Hub, server: HttpServer) -> None:
        self._hub = hub
        self._server = server

    def collect(self) -> Iterator[Metric]:
        yield from self._exchanges()
        yield from self._times()
        yield from self._nodes()
        yield from self._links()
        yield GaugeMetricFamily("hive_queue_waiting", "Tickets that wait.", value=self._hub.queue.waiting_count)
        yield GaugeMetricFamily("hive_exchanges_running", "Exchanges under way.", value=len(self._hub.register.running))
        connections = len(self._server.connections)
        yield GaugeMetricFamily("hive_client_connections", "Open connections of clients.", value=connections)
        held = self._server.held_body_bytes
        yield GaugeMetricFamily("hive_request_body_bytes_held", "Request bodies in memory.", value=held)

    def _exchanges(self) -> Iterator[Metric]:
        count = CounterMetricFamily("hive_exchanges", "Exchanges that ended.", labels=_EXCHANGE_LABELS)
        attempts = CounterMetricFamily("hive_attempts", "Attempts on nodes.", labels=_EXCHANGE_LABELS)
        received = CounterMetricFamily("hive_received_bytes", "Request bodies.", labels=_EXCHANGE_LABELS)
        sent = CounterMetricFamily("hive_sent_bytes", "Answer bodies.", labels=_EXCHANGE_LABELS)
        seconds = HistogramMetricFamily("hive_exchange_seconds", "From request to end.", labels=_EXCHANGE_LABELS)
        for (operation, node, outcome), tally in self._hub.register.records.tallies.exchanges.items():
            labels = [operation, node, outcome.value]
            count.add_metric(labels, tally.count)
            attempts.add_metric(labels, tally.attempts)
            received.add_metric(labels, tally.bytes_in)
            sent.add_metric(labels, tally.bytes_out)
            seconds.add_metric(labels, _buckets(tally.duration), tally.duration.total)
        yield from (count, attempts, received, sent, seconds)

    def _times(self) -> Iterator[Metric]:
        queued = HistogramMetricFamily("hive_queued_seconds", "Waited for a slot.")
        waited = self._hub.register.records.tallies.queued
        queued.add_metric([], _buckets(waited), waited.total)
        first = HistogramMetricFamily(
            "hive_first_byte_seconds", "From request to the answer's first byte.", labels=["node"]
        )
        for node, histogram in self._hub.register.records.tallies.first_byte.items():
            first.add_metric([node], _buckets(histogram), histogram.total)
        yield from (queued, first)

    def _nodes(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("hive_node_ready", "1 for a node that may get work.", labels=["node"])
        running = GaugeMetricFamily("hive_node_running", "Slots taken.", labels=["node"])
        slots = GaugeMetricFamily("hive_node_slots", "Slots there are.", labels=["node"])
        models = GaugeMetricFamily("hive_node_models", "Models there are.", labels=["node"])
        loaded = GaugeMetricFamily("hive_node_loaded_models", "Models in memory.", labels=["node"])
        by_node: dict[str, list[Engine]] = {}
        for engine in self._hub.fleet.engines:
            by_node.setdefault(engine.node, []).append(engine)
        for node, engines in by_node.items():
            up.add_metric([node], float(any(engine.takes_work for engine in engines)))
            running.add_metric([node], sum(engine.running.count for engine in engines))
            slots.add_metric([node], sum(engine.slots for engine in engines))
            models.add_metric([node], sum(len(engine.known.models) for engine in engines))
            loaded.add_metric([node], sum(len(engine.known.loaded) for engine in engines))
        yield from (up, running, slots, models, loaded)

    def _links(self) -> Iterator[Metric]:
        links = GaugeMetricFamily("hive_node_links", "Data sockets that a joined node has dialed.", labels=["node"])
        spares = GaugeMetricFamily("hive_node_spare_links", "Those that wait for an exchange.", labels=["node"])
        age = GaugeMetricFamily(
            "hive_node_heartbeat_age_seconds", "Since a joined node's last heartbeat.", labels=["node"]
        )
        joining = self._hub.joining
        for node in joining.nodes.values():
            links.add_metric([node.name], len(node.pool))
            spares.add_metric([node.name], node.pool.spares)
            if node.control is not None:
                age.add_metric([node.name], self._hub.now() - node.heartbeat_at)
        yield from (links, spares, age)
        arriving = sum(joining.sockets.arriving.values())
        yield GaugeMetricFamily("hive_links_arriving", "Sockets that have not said what they are.", value=arriving)


class Metrics:
    """Renders the hub's metrics."""

    def __init__(self, hub: Hub, server: HttpServer) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_HubCollector(hub, server))

    def render(self) -> bytes:
        """Return all metrics as text."""
        return bytes(generate_latest(self._registry))
