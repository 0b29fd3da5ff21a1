"""The engines of this node: named by options, or found on this machine. Each has an id and a watcher."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterable

import psutil
from msgspec.structs import replace

from hive import errors
from hive.config import is_loopback
from hive.errors import Fault
from hive.net.outbox import Outbox
from hive.node.agent_options import EngineAddress, NodeOptions
from hive.node.discovery import candidates, probe
from hive.node.engine_server import EngineServer
from hive.node.engine_watcher import EngineWatcher
from hive.node.machine_watch import MachineWatch
from hive.wire.link_messages import NOTHING, EngineBeat, ReportedEngine
from hive.wire.link_rules import MAX_CONTROL_BYTES

SEARCH_SECONDS = 2.0
STRANGER_SECONDS = 60.0
"""Seconds after which a server that answers but is no engine is probed again."""
FIRST_LOOK_SECONDS = 3.0
_MAX_ID = 32

_log = logging.getLogger(__name__)


def engine_id(address: EngineAddress) -> str:
    """Return the id of an engine. It is the same after each start, and different for each address."""
    name = f"{address.host}-{address.port}"
    if address.host in ("127.0.0.1", "localhost"):
        name = f"port-{address.port}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    is_plain = slug == name.lower().replace(".", "-") and not address.is_tls
    if is_plain and len(slug) <= _MAX_ID:
        return slug
    return f"{slug[: _MAX_ID - 9]}-{hashlib.sha256(address.url.encode()).hexdigest()[:8]}"


def fitting(engines: Iterable[ReportedEngine], max_bytes: int = MAX_CONTROL_BYTES // 2) -> tuple[ReportedEngine, ...]:
    """Return the engines, with lists that fit into one message. An engine whose lists do not fit says so instead."""
    fit: list[ReportedEngine] = []
    total = 0
    for engine in engines:
        size = sum(len(bytes(listing)) for listing in (engine.tags, engine.ps, engine.v1_models))
        if total + size <= max_bytes:
            total += size
            fit.append(engine)
        else:
            error = "its lists of models are too long for the hub"
            fit.append(replace(engine, tags=NOTHING, ps=NOTHING, v1_models=NOTHING, error=error))
    return tuple(fit)


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine."""
    found = psutil.net_if_addrs().values()
    return frozenset(each.address.partition("%")[0] for addresses in found for each in addresses)


class Engines:
    """All engines of the node. `on_change` is called when a new report is needed."""

    def __init__(self, options: NodeOptions, outbox: Outbox, tls: ssl.SSLContext | None, machine: MachineWatch) -> None:
        self._options = options
        self._outbox = outbox
        self._tls = tls
        self._machine = machine
        self._servers: dict[str, EngineServer] = {}
        self._watchers: dict[str, EngineWatcher] = {}
        self._group: asyncio.TaskGroup | None = None
        self._own_addresses = own_addresses()
        self._has_searched = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None

    def get(self, name: str) -> EngineServer | None:
        """Return the engine of this id, if there is one."""
        return self._servers.get(name)

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return all engines for a report. Lists that do not fit into one message are left out."""
        return fitting([watcher.report() for watcher in self._watchers.values()])

    def beats(self) -> dict[str, EngineBeat]:
        """Return the signs of life of all engines."""
        beats: dict[str, EngineBeat] = {}
        for name, watcher in self._watchers.items():
            activity = self._machine.activity.get(name)
            idle_s, is_stopped = (activity.idle_s, activity.is_stopped) if activity else (None, False)
            beats[name] = EngineBeat(watcher.is_alive and not watcher.is_silent, idle_s, is_stopped)
        return beats

    def refresh(self, name: str) -> None:
        """Ask an engine for its models now."""
        if name in self._watchers:
            self._watchers[name].refresh()

    async def run(self) -> None:
        """Watch for ever. If no engines were named, also look for engines."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for address in self._options.engines:
                    self._add(address)
                if not self._options.engines:
                    await self._search()
        finally:
            for server in self._servers.values():
                server.close()

    async def first_look(self) -> None:
        """Wait until each engine was asked once, but at most three seconds."""
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                if not self._options.engines:
                    await self._has_searched.wait()
                for watcher in list(self._watchers.values()):
                    await watcher.has_looked.wait()
        except TimeoutError:
            pass

    def _add(self, address: EngineAddress) -> None:
        assert self._group is not None
        name = engine_id(address)
        if name in self._servers:
            return
        server = EngineServer(address, name, self._outbox, self._tls)
        watcher = EngineWatcher(server, self._options.slots, lambda: self.on_change())
        self._servers[name], self._watchers[name] = server, watcher
        if is_loopback(address.host) or address.host in self._own_addresses:
            self._machine.watch(name, address.port)
        self._group.create_task(watcher.run())

    async def _search(self) -> None:
        places = candidates(os.environ, self._own_addresses, self._options.engine_credential)
        rests: dict[EngineAddress, float] = {}
        loop = asyncio.get_running_loop()
        while places:
            due = [place for place in places if rests.get(place, 0.0) <= loop.time()]
            for place, answer in zip(due, await asyncio.gather(*map(self._try, due)), strict=True):
                if answer is None:
                    places.remove(place)
                    self._add(place)
                elif answer.kind is not errors.NODE_UNREACHABLE:
                    rests[place] = loop.time() + STRANGER_SECONDS
                    _log.info("%s is no engine: %s", place.url, answer.message)
            if not self._has_searched.is_set() and not self._watchers:
                looked = ", ".join(place.url for place in places)
                _log.warning("no engine found yet on this machine; looking on (%s)", looked)
            self._has_searched.set()
            await asyncio.sleep(SEARCH_SECONDS)

    async def _try(self, address: EngineAddress) -> Fault | None:
        """Return None if an engine answers at the address, otherwise the fault."""
        try:
            kind = await probe(address, self._outbox, self._tls)
        except Fault as fault:
            return fault
        _log.info("found %s at %s", kind, address.url)
        return None
