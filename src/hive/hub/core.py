"""The hub itself: its fleet, queue and links, the exchanges that run, and the tick that keeps their deadlines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from hive import errors
from hive.auth.key_ring import KeyRing
from hive.config import NodeSettings, Settings
from hive.dialects.routes import Route
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.health import STALL, Transition
from hive.fleet.listings import Catalog
from hive.hub.attempt import Attempt
from hive.hub.default_frontend import default_frontend
from hive.hub.exchange import Exchange
from hive.hub.health_watch import BY_OPERATOR, HealthWatch
from hive.hub.joining import Joining
from hive.hub.loader import Loader
from hive.hub.probes import Prober
from hive.hub.queue import Queue
from hive.hub.records import Outcome, Record, Records, outcome_of
from hive.hub.relay import RelayLimits
from hive.hub.watcher import Watcher
from hive.net.dialed import DialedLink
from hive.net.link import Connection, Link
from hive.net.outbox import Outbox
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.tickets import Lease

_log = logging.getLogger(__name__)

TICK = 0.5
HISTORY = 1_000
"""So many exchanges that are over are kept to be shown."""
FIRST_LOOK = 3.0
DRAIN_STEP = 0.05
REMOVAL = 5.0
NO_CONNECTION_REST = 1.0


Past = tuple[Record, list[Lease]]
"""An exchange that is over, and the leases of its attempts."""


class Hub:
    """Everything that lives as long as the hub does. Make it inside a running loop."""

    def __init__(self, settings: Settings, write_records: Callable[[Sequence[Record]], None], ring: KeyRing) -> None:
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self.now = time.monotonic  # as the loop's own clock, which uvloop rounds to milliseconds
        self.outbox = Outbox()
        self.relay_limits = RelayLimits(settings.held_answer_bytes, settings.held_line_bytes)
        self.fleet = Fleet()
        self.links: dict[Engine, Link] = {}
        self.health = HealthWatch(self.fleet, self.now, self._on_transition)
        self.frontend = default_frontend(settings)
        """Where requests arrive."""
        dispatcher = Dispatcher(self.fleet, settings.queue_limit)
        self.loader = Loader(self)
        self.queue = Queue(dispatcher, self.loader.start)
        self.catalog = Catalog(self.fleet)
        self.records = Records(write_records)
        self.exchanges: set[Exchange] = set()
        self.history: deque[Past] = deque(maxlen=HISTORY)
        """The exchanges that ended last."""
        self.drained: set[str] = set()
        """Names of nodes that an operator wants empty."""
        self._watchers: dict[Engine, Watcher] = {}
        self.joining = Joining(self, ring)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._last_tick = self.now()
        for node in settings.nodes:
            self._add_node(node)

    def _add_node(self, node: NodeSettings) -> None:
        settings = self.settings
        slots = node.slots or settings.slots
        engine = Engine(node.name, node.url, configured_slots=slots)
        link = DialedLink(
            node.url,
            self.outbox,
            connect_timeout=settings.connect_timeout,
            max_head_bytes=settings.max_head_bytes,
            api_key=node.api_key.value if node.api_key else "",
        )
        self.add_engine(engine, link, Prober(engine, link, self.fleet, self.health, settings, self.on_listing))

    def add_engine(self, engine: Engine, link: Link, watcher: Watcher) -> None:
        """There is one more engine, with a way to it and somebody who knows it."""
        self.links[engine] = link
        self._watchers[engine] = watcher
        self.fleet.add(engine)
        self.health.watch(engine)

    def remove_engine(self, engine: Engine) -> None:
        """An engine is gone for good."""
        self.loader.give_up(engine)
        self.fleet.remove(engine)
        self.health.forget(engine)
        del self._watchers[engine]
        # A lease that was granted in this turn still finds the way, and at its end that nobody is there.
        self._loop.call_later(REMOVAL, lambda: self.links.pop(engine).close())

    # --- its life ---

    def start(self) -> None:
        """Begin to look at the nodes; waits for none of them."""
        for watcher in self._watchers.values():
            if isinstance(watcher, Prober):
                self.spawn(watcher.run())
        self._tick()

    async def finish(self, timeout: float) -> None:
        """Wait for the exchanges that run; after `timeout` seconds give those up that still do."""
        deadline = self.now() + timeout
        while self.exchanges and self.now() < deadline:  # noqa: ASYNC110 - so no exchange pays for an event
            await asyncio.sleep(DRAIN_STEP)
        self.give_up_all()
        await asyncio.sleep(0)

    def give_up_all(self) -> None:
        """End every exchange now, each with an honest error."""
        for exchange in list(self.exchanges):
            exchange.give_up(Fault(errors.DRAINING, "the hub is shutting down"))

    def cancel(self, exchange: Exchange) -> bool:
        """End an exchange for an administrator, with an honest error; False when its answer was whole already."""
        exchange.give_up(Fault(errors.CANCELLED, "an administrator cancelled this request"))
        is_cancelled = exchange.record.outcome is Outcome.CANCELLED
        if is_cancelled:
            _log.info("exchange %s: an administrator cancelled it", exchange.record.request_id)
        return is_cancelled

    async def close(self) -> None:
        """End every task and close every link."""
        if self._ticker is not None:
            self._ticker.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.joining.close()
        for link in self.links.values():
            link.close()
        self.records.settle()

    async def first_look(self) -> None:
        """Wait, a little, until every node has been asked once: before that the hub does not know its models."""
        watchers = self._watchers.values()
        waiting = [watcher.has_looked.wait() for watcher in watchers if not watcher.has_looked.is_set()]
        if not waiting:
            return
        try:
            async with asyncio.timeout(FIRST_LOOK):
                await asyncio.gather(*waiting)
        except TimeoutError:
            pass

    @property
    def has_looked(self) -> bool:
        """Has every node been asked once, or given the time for it?"""
        return all(watcher.has_looked.is_set() for watcher in self._watchers.values())

    # --- for exchanges ---

    def dial(self, link: Link) -> asyncio.Task[Connection]:
        """Open a connection to an engine, in a task of its own. Raises `Fault` (node_unreachable)."""
        return self._loop.create_task(link.dial())

    def end_exchange(self, exchange: Exchange) -> None:
        """Account for an exchange that is over."""
        self.exchanges.discard(exchange)
        self.records.add(exchange.record)
        self.history.append((exchange.record, exchange.leases))

    def note_refusal(self, route: Route | None, request_id: str, fault: Fault, size: int) -> None:
        """A request was refused before it became an exchange: it has its line and its count all the same."""
        name = route.name if route is not None else "none"
        record = Record(request_id=request_id, operation=name, key=fault.key)
        record.status, record.error, record.outcome = fault.kind.status, fault.kind.code, outcome_of(fault.kind)
        record.bytes_out = size
        self.records.add(record)

    def note_unreachable(self, engine: Engine, fault: Fault) -> None:
        """An exchange found no way to an engine: nobody else is to try until somebody has looked."""
        if fault.kind is errors.NODE_BUSY:  # all connections of its node are taken: nothing is wrong with it
            self.queue.rest(engine, NO_CONNECTION_REST)
            return
        self.health.note_failure(engine, fault.message)
        self.kick(engine)

    def note_exchange(self, engine: Engine, model: str, *, unloads: bool, changes: bool) -> None:
        """An exchange ended on an engine: what it has loaded may have changed."""
        if unloads:
            # The engine lists the model for some moments more; whoever asks the hub now knows better.
            self.fleet.forget_loaded(engine, model)
            self.loader.unload_elsewhere(engine, model)
            self.kick(engine, later=True)
        elif changes or model not in engine.known.warm:
            self.kick(engine)
        else:
            engine.known.is_stale = True

    def kick(self, engine: Engine, *, later: bool = False) -> None:
        """Have somebody look at an engine, at once or as soon as it has done what it said."""
        watcher = self._watchers.get(engine)
        if watcher is None:
            return  # it was removed meanwhile
        if later:
            watcher.kick_later()
        else:
            watcher.kick()

    def drain(self, node: str, is_draining: bool) -> bool:
        """Give a node no new work, or give it work again; False when there is no such node."""
        engines = [engine for engine in self.fleet.engines if engine.node == node]
        joined = self.joining.nodes.get(node)
        if not engines and joined is None:
            return False
        (self.drained.add if is_draining else self.drained.discard)(node)
        for engine in engines:
            self.health.drain(engine, BY_OPERATOR if is_draining else "")
        if joined is not None:
            joined.apply_drain()
        _log.info("node %s: %s", node, "drains" if is_draining else "takes work again")
        self.queue.serve()
        return True

    # --- time ---

    def _tick(self) -> None:
        now = self.now()
        self._ticker = self._loop.call_later(TICK, self._tick)
        stall = now - self._last_tick
        self._last_tick = now
        if stall > STALL:
            _log.warning("the hub stood still for %.0f s: nobody is judged by them", stall)
            for attempt in self._attempts():
                attempt.forgive(stall)
        ticks = [
            self.joining.tick,
            lambda now: self.health.sweep([*self._attempts(), *self.loader.running.values()], now),
            self.loader.tick,
            lambda _: self.queue.tick(),
            lambda _: self._follow_slots(),
            *(each.check_deadlines for each in self.exchanges),
        ]
        for tick in ticks:
            try:
                tick(now)
            except Exception:
                _log.exception("tick")

    def _attempts(self) -> list[Attempt]:
        attempts = (exchange.attempt for exchange in self.exchanges)
        return [attempt for attempt in attempts if attempt is not None and attempt.is_running]

    def _on_transition(self, change: Transition) -> None:
        """An engine's health has changed: who waits may be served, or has somewhere else to go."""
        engine = change.engine
        if change.after is Health.DOWN:
            self.loader.give_up(engine)
        self.links[engine].expect(engine.most_exchanges)
        self.queue.serve()

    def _follow_slots(self) -> None:
        """Have as many connections ready as slots were learned meanwhile."""
        for engine in self.fleet.engines:
            if engine.takes_work:
                self.links[engine].expect(engine.most_exchanges)

    def on_listing(self, engine: Engine) -> None:
        """An engine was asked what it has: its slots, its models, what is loaded."""
        self.links[engine].expect(engine.most_exchanges)
        self.queue.note_listing(engine)
        self.queue.serve()

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a coroutine that ends with the hub at the latest."""
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
