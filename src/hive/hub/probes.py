"""Probes one engine regularly: whether it lives, its kind and version, its models, and the models in its memory.

A probe asks the cheapest route of the engine's kind, every `probe_interval`. In addition listings are asked for, every
`models_interval`, and at once after an act of the hub that may have changed them. A listing that fails or blocks says
nothing of health: the last one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace

from hive import errors
from hive.config import Settings
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.identity import Identity, Reply, Steps, check, identify, slots_in_props
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport
from hive.fleet.listings import UnreadableListing, read_ps, read_tags, read_v1_models
from hive.hub.health_watch import HealthWatch
from hive.net.ask import ask
from hive.net.link import Link

_log = logging.getLogger(__name__)

LISTING_TIMEOUT = 10.0
"""Seconds. /api/ps can block for seconds while an Ollama is busy, so its silence says nothing of health."""
SHORTEST_WAIT = 0.1
RECHECK = 5.0
LOADED_INTERVAL = 5.0
"""Seconds. A model's expiry in an engine's memory is announced nowhere."""
UNLOAD_TIME = 0.5
_UNLISTED = frozenset({Health.JOINING, Health.DOWN})
"""States that an engine leaves only when its models are known."""


class Prober:
    """The only writer of what is known of a dialed engine. `on_listing` is called after each list of loaded models."""

    def __init__(
        self,
        engine: Engine,
        link: Link,
        fleet: Fleet,
        health: HealthWatch,
        settings: Settings,
        on_listing: Callable[[Engine], None],
    ) -> None:
        self._engine = engine
        self._link = link
        self._fleet = fleet
        self._health = health
        self._settings = settings
        self._on_listing = on_listing
        self._loop = asyncio.get_running_loop()
        self._kick = asyncio.Event()
        self._listed_at = self._recheck_until = float("-inf")
        self._loaded_due = float("-inf")
        self._listing: asyncio.Task[None] | None = None
        self.has_looked = asyncio.Event()
        """Set after the first look, whatever its result."""

    async def run(self) -> None:
        """Probe for ever."""
        try:
            await self._run()
        finally:
            if self._listing is not None:
                self._listing.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                _log.exception("probe of the node %s", self._engine.node)
            if self._listing is None or self._engine.health is not Health.JOINING:
                self.has_looked.set()  # otherwise the first listing will set it
            await asyncio.sleep(SHORTEST_WAIT)
            try:
                async with asyncio.timeout(self._settings.probe_interval - SHORTEST_WAIT):
                    await self._kick.wait()
            except TimeoutError:
                pass
            self._kick.clear()

    def kick(self) -> None:
        """Look again at once, and for some seconds list at every probe: something may have changed."""
        self._recheck_until = self._loop.time() + RECHECK
        self._kick.set()

    def kick_later(self) -> None:
        """Look again as soon as the engine has done what it confirmed (for example an unload)."""
        self._loop.call_later(UNLOAD_TIME, self.kick)

    async def _look(self) -> None:
        engine = self._engine
        began = self._loop.time()
        try:
            is_known = engine.known.kind is not EngineKind.UNKNOWN
            found = await self._follow(
                check(Identity(engine.known.kind, engine.known.version)) if is_known else identify()
            )
            now = self._loop.time()
            if is_known:
                engine.known.round_trip = now - began
            if engine.health in _UNLISTED:
                engine.signs.last_sign = now
            else:
                self._health.note_answer(engine)
            if self._listing is None or self._listing.done():
                self._list_beside(found.kind, found.version)
        except Fault as fault:
            self._note_failure(fault)

    def _list_beside(self, kind: EngineKind, version: str) -> None:
        """Ask for the lists that are due, without delaying the next probe."""
        engine, now = self._engine, self._loop.time()
        is_new = engine.health in _UNLISTED or kind is not engine.known.kind or version != engine.known.version
        if is_new or now - self._listed_at >= self._settings.models_interval:
            self._listing = self._loop.create_task(self._guard(self._list_all(kind, version)))
        elif kind is EngineKind.OLLAMA and (
            engine.known.is_stale or now < self._recheck_until or now >= self._loaded_due
        ):
            self._listing = self._loop.create_task(self._guard(self._list_loaded()))

    async def _guard(self, listing: Coroutine[None, None, None]) -> None:
        """Run a listing. If the first one fails, its error says why the engine gets no work."""
        engine = self._engine
        try:
            await listing
        except (Fault, UnreadableListing) as error:
            reason = error.message if isinstance(error, Fault) else str(error)
            if self._listed_at == float("-inf"):
                self._health.note_failure(engine, reason)
            else:
                _log.warning("node %s: its models could not be listed (%s)", engine.node, reason)
        except Exception:
            _log.exception("listing of the node %s", engine.node)
        finally:
            self.has_looked.set()

    async def _follow(self, steps: Steps) -> Identity:
        """Carry out the steps that recognise an engine; return what was found."""
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

    async def _list_all(self, kind: EngineKind, version: str) -> None:
        """List all models, after which the engine may get work. Then list the loaded ones, which may take long."""
        engine = self._engine
        engine.known.is_stale = False
        began = self._loop.time()
        changed = self._fleet.learn(engine, await self._report(kind, version))
        self._listed_at = self._loop.time()
        if engine.health in _UNLISTED and engine.signs.last_sign >= began - self._settings.probe_interval:
            self._health.note_answer(engine)
        if changed:
            self._on_listing(engine)
        self.has_looked.set()
        if kind is EngineKind.OLLAMA:
            await self._list_loaded()

    async def _list_loaded(self) -> None:
        """List the loaded models."""
        self._engine.known.is_stale = False
        self._loaded_due = self._loop.time() + LOADED_INTERVAL
        body = await self._get("/api/ps", LISTING_TIMEOUT)
        if body is not None:
            self._fleet.learn_loaded(self._engine, read_ps(body))
            self._on_listing(self._engine)

    async def _report(self, kind: EngineKind, version: str) -> EngineReport:
        report = EngineReport(kind, version, (), ())
        if kind is EngineKind.OLLAMA:
            tags = await self._get("/api/tags", LISTING_TIMEOUT)
            if tags is None:
                raise UnreadableListing("/api/tags has no answer")
            return replace(report, models=read_tags(tags), loaded=None)
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
        if fault.kind is errors.OVERLOADED:
            return  # an error of the hub itself says nothing of a node
        if fault.kind is not errors.NODE_SILENT:  # a silent engine is not yet down: its exchanges may bring bytes
            self._health.note_failure(self._engine, fault.message)
