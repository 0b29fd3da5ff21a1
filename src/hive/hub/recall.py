"""What the hub remembers of its joined nodes over a restart. It is read at the start and written after changes.

So a hub that has just started knows the models of nodes that have not dialed in again, and requests for them wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from hive.auth.keys import Key, Right
from hive.hub.joining import JoinedNode, Joining
from hive.store.known_nodes import KnownNode, Profile, fitting
from hive.store.store_error import StoreError

WRITE_INTERVAL = 5.0
"""The least seconds between two writes. Changes in between are written together."""
DAY = 86_400.0
"""Seconds after which the nodes that are here are written again. So a hub knows after a crash when it saw them."""
FORGOTTEN_AFTER = 30 * DAY
"""A node that was not seen for more than this many seconds is forgotten at the next start."""

_log = logging.getLogger(__name__)


class NodeRecords(Protocol):
    """The part of the store that `Recall` needs."""

    async def nodes(self) -> list[KnownNode]:
        """Return every stored node."""

    async def save_node(self, node: KnownNode) -> None:
        """Add a node, or replace the stored node of this name."""

    async def delete_node(self, name: str) -> None:
        """Delete everything that is stored of a node."""


class Recall:
    """The only writer of the stored nodes. Call `load` before the first request, then `run`, and `write` at the end."""

    def __init__(
        self,
        records: NodeRecords,
        joining: Joining,
        now: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare. `now` is the hub's monotonic clock, `clock` gives Unix time."""
        self._records = records
        self._joining = joining
        self._now = now
        self._clock = clock
        self._noted_at = now()
        self._trouble = ""

    async def load(self, keys: Iterable[Key]) -> None:
        """Add to the hub the stored nodes that may still join with one of these keys. Delete the others."""
        by_digest = {key.digest: key for key in keys if Right.WORK in key.rights}
        try:
            kept = await self._records.nodes()
        except StoreError as error:
            _log.warning("the nodes that joined before are not known: %s", error)
            return
        for known in kept:
            key = by_digest.get(known.key_digest)
            reason = self._why_forgotten(known, key)
            if key is None or reason:
                _log.info("node %s is forgotten: %s", known.name, reason)
                self._joining.changed.add(known.name)
            else:
                self._joining.recall(key, known.profile)

    def _why_forgotten(self, known: KnownNode, key: Key | None) -> str:
        if key is None or key.name != known.name:
            return "its key was revoked"
        if self._joining.is_dialed(known.name):
            return "the settings have a node of this name"
        days = (self._clock() - known.seen_at) / DAY
        return f"not seen for {days:.0f} days" if days > FORGOTTEN_AFTER / DAY else ""

    async def run(self) -> None:
        """Write changes now and then, for ever."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL)
            self.note_present(self._now())
            await self.write()

    def note_present(self, now: float) -> None:
        """Once a day, mark the present nodes as changed: the time at which they were seen has changed."""
        if now - self._noted_at >= DAY:
            self._noted_at = now
            self._joining.changed.update(node.name for node in self._joining.nodes.values() if node.control is not None)

    async def write(self) -> None:
        """Write all changes, node by node. A node that the database refuses is tried again at the next write."""
        changed = self._joining.changed
        for name in list(changed):
            changed.discard(name)
            try:
                await self._write(name)
            except asyncio.CancelledError:
                changed.add(name)
                raise
            except StoreError as error:
                changed.add(name)
                self._complain(str(error))
                return
            except Exception:
                _log.exception("node %s: it is not remembered", name)
        self._trouble = ""

    async def _write(self, name: str) -> None:
        node = self._joining.nodes.get(name)
        if node is None:
            await self._records.delete_node(name)
        else:
            await self._records.save_node(self._known(node))

    def _known(self, node: JoinedNode) -> KnownNode:
        """Return what must be remembered of a node that has joined once, whether it is here or not."""
        age = 0.0 if node.control is not None else self._now() - node.heartbeat_at
        engines = [known for joined in node.engines.values() if (known := joined.known()) is not None]
        kept = fitting(engines)
        if len(kept) < len(engines):
            _log.warning("node %s: %d of its %d engines are remembered: long lists", node.name, len(kept), len(engines))
        profile = Profile(node.agent, node.platform, node.labels, kept)
        return KnownNode(node.name, node.key.digest, self._clock() - age, profile)

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.warning("what changes about nodes is not remembered: %s", trouble)
        self._trouble = trouble
