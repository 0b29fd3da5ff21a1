"""Asks one engine, over and over, whether it lives, what it is, which models it has and which are loaded.

Liveness is the cheapest route of its kind, every `probe_interval`; listings are asked for every
`models_interval`, and at once after something that the hub did may have changed them. Asking waits for nobody
and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from hive import errors
from hive.config import Settings
from hive.errors import Fault
from hive.fleet.engines import SUSPECT_AFTER, Engine, EngineKind, EngineReport, Fleet, Health
from hive.fleet.identity import Identity, Reply, Steps, check, identify, slots_in_props
from hive.fleet.listings import UnreadableListing, read_ps, read_tags, read_v1_models
from hive.hub.ask import ask
from hive.net.link import Link

_log = logging.getLogger(__name__)

LISTING_TIMEOUT = 10.0
"""/api/ps can block for seconds while an Ollama is busy, so its silence says nothing of health."""
SHORTEST_WAIT = 0.1
RECHECK = 5.0
UNLOAD_TIME = 0.5


class Prober:
    """The one writer of what is known of an engine. `on_change` is called after anything changed."""

    def __init__(
        self, engine: Engine, link: Link, fleet: Fleet, settings: Settings, on_change: Callable[[Engine], None]
    ) -> None:
        self._engine = engine
        self._link = link
        self._fleet = fleet
        self._settings = settings
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._kick = asyncio.Event()
        self._listed_at = self._recheck_until = float("-inf")
        self.has_looked = asyncio.Event()
        """Set after the first look, whatever it brought."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self._look()
            except Exception:
                _log.exception("probe of the node %s", self._engine.node)
            self.has_looked.set()
            await asyncio.sleep(SHORTEST_WAIT)
            try:
                async with asyncio.timeout(self._settings.probe_interval - SHORTEST_WAIT):
                    await self._kick.wait()
            except TimeoutError:
                pass
            self._kick.clear()

    def kick(self) -> None:
        """Look again at once, and for some seconds at every probe: something may have changed."""
        self._recheck_until = self._loop.time() + RECHECK
        self._kick.set()

    def kick_later(self) -> None:
        """Look again as soon as an engine has done what it said."""
        self._loop.call_later(UNLOAD_TIME, self.kick)

    async def _look(self) -> None:
        engine = self._engine
        try:
            is_known = engine.kind is not EngineKind.UNKNOWN
            found = await self._follow(check(Identity(engine.kind, engine.version)) if is_known else identify())
            engine.last_sign = self._loop.time()
            await self._list(found.kind, found.version)
        except Fault as fault:
            self._note_failure(fault)
        except UnreadableListing as unreadable:
            self._set_health(Health.DOWN, str(unreadable))

    async def _follow(self, steps: Steps) -> Identity:
        """Ask what recognising an engine takes."""
        settings = self._settings
        try:
            wanted = next(steps)
            while True:
                timeout = LISTING_TIMEOUT if wanted.is_listing else settings.probe_timeout
                head, body = await ask(self._link, wanted.path, timeout)
                wanted = steps.send(Reply(head.status, body))
        except StopIteration as done:
            identity: Identity = done.value
            return identity

    async def _list(self, kind: EngineKind, version: str) -> None:
        engine = self._engine
        now = self._loop.time()
        is_new = engine.health is not Health.READY or kind is not engine.kind or version != engine.version
        is_due = is_new or now - self._listed_at >= self._settings.models_interval
        if is_due:
            changed = self._fleet.learn(engine, await self._report(kind, version))
            self._listed_at = now
            engine.is_stale = False
        elif (engine.is_stale or now < self._recheck_until) and kind is EngineKind.OLLAMA:
            engine.is_stale = False
            body = await self._get("/api/ps", LISTING_TIMEOUT)
            changed = body is not None and self._fleet.learn_loaded(engine, read_ps(body))
        else:
            changed = False
        if not self._set_health(Health.READY, "") and changed:
            self._on_change(engine)

    async def _report(self, kind: EngineKind, version: str) -> EngineReport:
        report = EngineReport(kind, version, (), ())
        if kind is EngineKind.OLLAMA:
            tags = await self._get("/api/tags", LISTING_TIMEOUT)
            ps = await self._get("/api/ps", LISTING_TIMEOUT)
            if tags is None:
                raise UnreadableListing("/api/tags has no answer")
            return replace(report, models=read_tags(tags), loaded=read_ps(ps) if ps is not None else ())
        listed = await self._get("/v1/models", LISTING_TIMEOUT)
        if listed is None:
            raise UnreadableListing("/v1/models has no answer")
        models, loaded = read_v1_models(listed, kind)
        slots = None
        if kind is EngineKind.LLAMA_CPP:
            slots = slots_in_props(await self._get("/props", LISTING_TIMEOUT))
        return replace(report, models=models, loaded=loaded, slots=slots)

    async def _get(self, path: str, timeout: float) -> bytes | None:
        """Return the body of an answer of status 200; None for any other status."""
        head, body = await ask(self._link, path, timeout)
        return body if head.status == 200 else None

    def _note_failure(self, fault: Fault) -> None:
        engine = self._engine
        if fault.kind is errors.NODE_SILENT:
            # Silence alone is no death: exchanges on it may still bring bytes.
            if self._loop.time() - engine.last_sign >= SUSPECT_AFTER or engine.health is Health.JOINING:
                self._set_health(Health.SUSPECT, fault.message)
        else:
            self._set_health(Health.DOWN, fault.message)

    def _set_health(self, health: Health, error: str) -> bool:
        engine = self._engine
        before = engine.health
        if not self._fleet.set_health(engine, health, error):
            return False
        level = logging.INFO if health is Health.READY else logging.WARNING
        _log.log(level, "node %s: %s -> %s%s", engine.node, before, health, f" ({error})" if error else "")
        self._on_change(engine)
        return True
