"""Applies the reports and heartbeats of a joined node to its engines in the fleet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from hive.fleet.engines import Engine
from hive.hub.joined_engines import JoinedEngine
from hive.hub.joining_port import JoiningPort
from hive.net.joined_link import JoinedLink, JoinedPool
from hive.wire.link_messages import EngineBeat, ReportedEngine

_log = logging.getLogger(__name__)

LEARN_SHARE = 20
"""If a report took one second to read, the next report of the same node waits this many seconds."""
LONGEST_LEARN_WAIT = 60.0


class NodeReports:
    """The engines of one node, as its reports and heartbeats tell of them."""

    def __init__(
        self,
        port: JoiningPort,
        pool: JoinedPool,
        *,
        refresh: Callable[[str], None],
        drained_by: Callable[[], str],
        note_change: Callable[[str], None],
    ) -> None:
        """`refresh` asks the node for the models of an engine. `drained_by` returns why the node is drained, or ""."""
        self.node = pool.node
        self.engines: dict[str, JoinedEngine] = {}
        self._port = port
        self._pool = pool
        self._refresh = refresh
        self._drained_by = drained_by
        self._note_change = note_change
        self._pending: tuple[ReportedEngine, ...] | None = None
        """The newest report, while it waits."""
        self._may_learn_at = 0.0

    def begin(self, engines: tuple[ReportedEngine, ...]) -> None:
        """Learn from the first report of a session, at once."""
        self._may_learn_at = 0.0
        self.take(engines)

    def end(self, reason: str, *, has_left: bool) -> None:
        """Mark the engines as down: the session is over. `has_left`: the node itself asked for it."""
        self._pending = None
        for joined in self.engines.values():
            joined.engine.signs.has_left = has_left
            joined.fail(reason)

    def take(self, engines: tuple[ReportedEngine, ...]) -> None:
        """Learn from a report, now or later.

        Reading reports must not keep the hub busy. Of the reports that wait, only the newest is kept.
        """
        self._pending = engines
        began = self._port.now()
        if began < self._may_learn_at:
            return
        self._pending = None
        self._learn(engines)
        now = self._port.now()
        self._may_learn_at = now + min(LEARN_SHARE * (now - began), LONGEST_LEARN_WAIT)

    def take_beats(self, beats: Mapping[str, EngineBeat]) -> None:
        """Take what a heartbeat says of each engine."""
        for engine_id, joined in list(self.engines.items()):
            joined.take_beat(beats.get(engine_id))

    def recall(self, engines: tuple[ReportedEngine, ...]) -> None:
        """Begin with the engines that the hub remembers of a node that has not joined yet."""
        for each in engines:
            joined = self._add(each)
            try:
                joined.recall(each)
            except Exception:
                _log.exception("node %s: what is remembered of its engine %s", self.node, each.id)
                self._remove(each.id)

    def remove_all(self) -> None:
        """Remove the node's engines from the fleet."""
        self._learn(())

    def apply_drain(self) -> None:
        """Drain the engines if the operator or the agent wants that; otherwise let them serve."""
        by = self._drained_by()
        for joined in self.engines.values():
            self._port.health.drain(joined.engine, by)

    def tick(self, now: float, memory_bytes: int | None) -> None:
        """Do the work that is due. `memory_bytes`: the node's memory for models; None when that is not known."""
        if self._pending is not None:
            self.take(self._pending)
        memory = memory_bytes if len(self.engines) == 1 else None
        for joined in list(self.engines.values()):
            joined.tick(now)
            joined.engine.known.round_trip = self._pool.round_trip
            joined.engine.known.memory_bytes = memory

    def _learn(self, engines: tuple[ReportedEngine, ...]) -> None:
        """Learn from a report. The queue is served and the fleet indexed once, after the whole report."""
        before = self._lasting()
        with self._port.queue.held():
            for reported in engines:
                joined = self.engines.get(reported.id) or self._add(reported)
                try:
                    joined.learn(reported)
                except Exception:
                    _log.exception("node %s: the report of its engine %s", self.node, reported.id)
                    joined.fail("its node reports what cannot be read")
            for engine_id in self.engines.keys() - {reported.id for reported in engines}:
                self._remove(engine_id)
        if self._lasting() != before:
            self._note_change(self.node)

    def _lasting(self) -> dict[str, tuple[object, ...]]:
        return {engine_id: joined.lasting for engine_id, joined in self.engines.items()}

    def _add(self, reported: ReportedEngine) -> JoinedEngine:
        port = self._port
        engine = Engine(self.node, reported.address, id=reported.id)
        joined = JoinedEngine(engine, port.fleet, port.health, self._refresh, port.on_listing, port.now)
        self.engines[reported.id] = joined
        port.add_engine(engine, JoinedLink(self._pool, reported.id), joined)
        self.apply_drain()
        return joined

    def _remove(self, engine_id: str) -> None:
        joined = self.engines.pop(engine_id)
        joined.fail("its node has it no more")
        self._port.remove_engine(joined.engine)
