"""Loads models by exchanges of the hub's own, so that a client's departure cannot end a load that others wait for.

On an Ollama, `/api/embed` without input loads a model of any kind, and `/api/generate` with `keep_alive: 0` unloads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet
from hive.fleet.failures import Verdict, judge
from hive.fleet.health import Patience, silence_limit
from hive.hub.background import Background
from hive.hub.event_log import EventLog
from hive.hub.events import EventKind, LoadEnded, LoadOrdered
from hive.hub.roster import Roster
from hive.net.ask import ask
from hive.scheduling.loads import EVICTED_AFTER
from hive.scheduling.tickets import LoadEnd, LoadOrder
from hive.wire.link_messages import one_line

_log = logging.getLogger(__name__)

LOAD_PATH = "/api/embed"
UNLOAD_PATH = "/api/generate"
UNLOAD_TIMEOUT = 30.0


class Load:
    """One running load. It explains why its engine is silent."""

    def __init__(self, order: LoadOrder, now: float) -> None:
        self.order = order
        self.engine = order.engine
        self.last_byte_at = now
        self.has_answered = False
        self.was_listed = False
        """Was the engine asked which models the load has evicted?"""
        self.task: asyncio.Task[None] | None = None

    def is_excused(self, now: float) -> bool:
        """Return True: a load may be silent, because it takes minutes."""
        return True


class Loader:
    """Carries out the dispatcher's orders to load, and reports the end of each load."""

    def __init__(
        self,
        fleet: Fleet,
        roster: Roster,
        background: Background,
        patience: Patience,
        now: Callable[[], float],
        events: EventLog,
        report: Callable[[LoadOrder, LoadEnd], None],
    ) -> None:
        """`report` hears of the end of each load."""
        self._fleet = fleet
        self._roster = roster
        self._background = background
        self._patience = patience
        self._now = now
        self._events = events
        self._report = report
        self.running: dict[LoadOrder, Load] = {}

    def start(self, order: LoadOrder) -> None:
        """Begin a load."""
        load = self.running[order] = Load(order, self._now())
        details = LoadOrdered(order.engine.node, order.engine.id, order.reason, order.unload)
        self._events.append(EventKind.LOAD_ORDERED, order.model, details)
        load.task = self._background.spawn(self._run(load))

    def give_up(self, engine: Engine) -> None:
        """End the loads of an engine that is gone."""
        for load in list(self.running.values()):
            if load.engine is engine:
                self._finish(load, LoadEnd.FAILED)
                if load.task is not None:
                    load.task.cancel()

    def unload_elsewhere(self, engine: Engine, model: str) -> None:
        """Unload a model from all other engines: a client, which sees only one server, unloaded it from this one."""
        for other in self._fleet.having(model):
            if other is not engine and model in other.known.loaded and other.loads_models:
                self._fleet.forget_loaded(other, model)
                self._background.spawn(self._unload(other, model))

    async def _unload(self, engine: Engine, model: str) -> None:
        body = msgspec.json.encode({"model": _spelling(engine, model), "keep_alive": 0})
        try:
            await ask(self._roster.links[engine], UNLOAD_PATH, UNLOAD_TIMEOUT, body)
        except Fault as fault:
            _log.info("node %s: %s is not unloaded: %s", engine.node, model, fault.message)
        self._roster.kick(engine, later=True)

    def tick(self, now: float) -> None:
        """End the loads on engines without a sign of life; ask the other engines what their loads have evicted."""
        for load in list(self.running.values()):
            if silence_limit(load.engine.signs, now, self._patience, has_begun=False, has_tools=False) == 0.0:
                self.give_up(load.engine)
            elif not load.was_listed and now - load.last_byte_at >= EVICTED_AFTER:
                load.was_listed = True
                self._roster.kick(load.engine)

    async def _run(self, load: Load) -> None:
        order = load.order
        instead = f" instead of {', '.join(order.unload)}" if order.unload else ""
        _log.info("node %s: loads %s%s (%s)", order.engine.node, order.model, instead, order.reason)
        end = LoadEnd.FAILED
        try:
            end = await self._load(order)
        except Fault as fault:
            _log.warning("node %s: %s is not loaded: %s", order.engine.node, order.model, fault.message)
        except Exception:
            _log.exception("node %s: the load of %s", order.engine.node, order.model)
        finally:
            self._finish(load, end)

    async def _load(self, order: LoadOrder) -> LoadEnd:
        link = self._roster.links[order.engine]
        for model in order.unload:
            body = msgspec.json.encode({"model": _spelling(order.engine, model), "keep_alive": 0})
            await ask(link, UNLOAD_PATH, UNLOAD_TIMEOUT, body)
        wanted: dict[str, object] = {"model": _spelling(order.engine, order.model)}
        if order.load_options:
            wanted["options"] = msgspec.Raw(order.load_options.encode())
        engine = order.engine
        head, answer = await ask(link, LOAD_PATH, self._patience.first_byte, msgspec.json.encode(wanted))
        if head.status == 200:
            return LoadEnd.DONE
        said = one_line(answer[:200].decode(errors="replace"))
        _log.warning("node %s: does not load %s: %d %s", engine.node, order.model, head.status, said)
        is_busy = judge(engine.known.kind, head.status, answer, engine.known.version).verdict is Verdict.BUSY
        return LoadEnd.BUSY if is_busy else LoadEnd.FAILED

    def _finish(self, load: Load, end: LoadEnd) -> None:
        if self.running.pop(load.order, None) is None:
            return
        order, engine = load.order, load.engine
        seconds = round(max(self._now() - order.ordered_at, 0.0), 3)
        self._events.append(EventKind.LOAD_ENDED, order.model, LoadEnded(engine.node, engine.id, end, seconds))
        self._roster.kick(engine)
        self._report(order, end)


def _spelling(engine: Engine, key: str) -> str:
    model = engine.known.models.get(key)
    return model.id if model is not None else key
