"""The use cases of nodes: an operator drains a node, and lets it serve again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hive.errors import NOT_FOUND, Fault
from hive.fleet.engines import Fleet
from hive.hub.event_log import EventLog
from hive.hub.events import EventKind, NodeDrain
from hive.hub.health_watch import BY_OPERATOR, HealthWatch
from hive.hub.joining import JoinedNode

_log = logging.getLogger(__name__)


class NodeCases:
    """The changes to nodes that every surface may make."""

    def __init__(
        self,
        fleet: Fleet,
        health: HealthWatch,
        events: EventLog,
        find_joined: Callable[[str], JoinedNode | None],
        serve: Callable[[], None],
    ) -> None:
        """`find_joined` finds a joined node by name; `serve` serves the tickets that wait."""
        self._fleet = fleet
        self._health = health
        self._events = events
        self._find_joined = find_joined
        self._serve = serve
        self._drained: set[str] = set()

    def is_drained(self, node: str) -> bool:
        """Return whether an operator drains a node."""
        return node in self._drained

    def drain(self, node: str, is_draining: bool, by: str = "") -> None:
        """Give a node no new work, or give it work again, as the key named `by` wants. Raises `Fault` (not_found)."""
        engines = [engine for engine in self._fleet.engines if engine.node == node]
        joined = self._find_joined(node)
        if not engines and joined is None:
            raise Fault(NOT_FOUND, f"there is no node '{node}'")
        if is_draining != (node in self._drained):
            kind = EventKind.NODE_DRAINED if is_draining else EventKind.NODE_RESUMED
            self._events.append(kind, node, NodeDrain(by))
        (self._drained.add if is_draining else self._drained.discard)(node)
        for engine in engines:
            self._health.drain(engine, BY_OPERATOR if is_draining else "")
        if joined is not None:
            joined.reports.apply_drain()
        _log.info("node %s: %s", node, "drains" if is_draining else "takes work again")
        self._serve()
