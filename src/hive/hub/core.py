"""The hub: its parts, and how they are put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hive import __version__
from hive.auth.key_ring import KeyRing
from hive.config import NodeSettings, Settings, changed_options
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.health import Transition
from hive.fleet.listings import Catalog
from hive.hub.background import Background
from hive.hub.default_frontend import default_frontend
from hive.hub.event_log import EventLog
from hive.hub.events import EventKind, HubStarted
from hive.hub.exchange_register import ExchangeRegister
from hive.hub.exchange_services import ExchangeServices
from hive.hub.health_watch import HealthWatch
from hive.hub.joining import Joining
from hive.hub.joining_port import JoiningPort
from hive.hub.loader import Loader
from hive.hub.node_cases import NodeCases
from hive.hub.probes import Prober
from hive.hub.queue import Queue
from hive.hub.records import Record, Records
from hive.hub.relay import RelayLimits
from hive.hub.request_cases import RequestCases
from hive.hub.roster import Roster
from hive.hub.ticker import Ticker
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox
from hive.scheduling.dispatcher import Dispatcher


class Hub:
    """Everything that lives as long as the hub does. Make it inside a running loop."""

    def __init__(
        self,
        settings: Settings,
        write_records: Callable[[Sequence[Record]], None],
        ring: KeyRing,
        events: EventLog,
    ) -> None:
        self.settings = settings
        self.events = events
        events.append(EventKind.HUB_STARTED, "hub", HubStarted(__version__, changed_options(settings)))
        self.now = time.monotonic  # as the loop's own clock, which uvloop rounds to milliseconds
        self.outbox = Outbox()
        self.background = Background()
        self.frontend = default_frontend(settings)
        """The frontend at which requests arrive."""
        self.fleet = Fleet()
        self.catalog = Catalog(self.fleet)
        self.health = HealthWatch(self.fleet, self.now, events, self._on_transition)
        self.roster = Roster(self.fleet, self.health, events)
        self.loader = Loader(
            self.fleet,
            self.roster,
            self.background,
            self.frontend.patience,
            self.now,
            events,
            lambda order, end: self.queue.load_finished(order, end),
        )
        dispatcher = Dispatcher(self.fleet, settings.queue_limit)
        self.queue = Queue(dispatcher, self.loader.start)
        self.register = ExchangeRegister(Records(write_records, events.append_requests), self.now)
        self.joining = self._make_joining(ring)
        self.node_cases = NodeCases(self.fleet, self.health, events, self.joining.nodes.get, self.queue.serve)
        self.request_cases = RequestCases(self.register)
        self.services = self._make_services()
        self.ticker = self._make_ticker()
        for node in settings.nodes:
            self._add_dialed(node)

    def _make_joining(self, ring: KeyRing) -> Joining:
        port = JoiningPort(
            self.settings,
            self.now,
            self.outbox,
            self.fleet,
            self.health,
            self.events,
            self.queue,
            self.roster.add,
            self._remove_engine,
            self._on_listing,
            lambda node: self.node_cases.is_drained(node),
        )
        return Joining(port, ring)

    def _make_services(self) -> ExchangeServices:
        limits = RelayLimits(self.settings.held_answer_bytes, self.settings.held_line_bytes)
        return ExchangeServices(
            self.now,
            self.fleet,
            self.queue,
            self.roster,
            self.health,
            self.loader,
            self.register,
            self.background,
            limits,
        )

    def _make_ticker(self) -> Ticker:
        ticks = (
            self.joining.tick,
            self._sweep_health,
            self.loader.tick,
            lambda _: self.queue.tick(),
            lambda _: self.roster.follow_slots(),
            self.register.check_deadlines,
        )
        return Ticker(self.now, ticks, self._on_stall)

    def _add_dialed(self, node: NodeSettings) -> None:
        settings = self.settings
        engine = Engine(node.name, node.url, configured_slots=node.slots or settings.slots)
        link = DialedLink(
            node.url,
            self.outbox,
            connect_timeout=settings.connect_timeout,
            max_head_bytes=settings.max_head_bytes,
            credential=f"Authorization: Bearer {node.api_key.value}\r\n".encode() if node.api_key else b"",
        )
        watcher = Prober(engine, link, self.fleet, self.health, settings, self._on_listing)
        self.roster.add(engine, link, watcher)

    # --- its life ---

    def start(self) -> None:
        """Begin to look at the nodes; waits for none of them."""
        for watcher in self.roster.watchers():
            if isinstance(watcher, Prober):
                self.background.spawn(watcher.run())
        self.ticker.start()

    async def close(self) -> None:
        """End every task and close every link."""
        self.ticker.stop()
        await self.background.end()
        self.joining.close()
        self.roster.close()
        self.register.records.settle()

    # --- what one part tells the others ---

    def _remove_engine(self, engine: Engine) -> None:
        self.loader.give_up(engine)
        self.roster.remove(engine)

    def _on_transition(self, change: Transition) -> None:
        """Serve what waits after a change of an engine's health: there is one engine more, or one less to wait for."""
        if change.after is Health.DOWN:
            self.loader.give_up(change.engine)
        self.roster.expect(change.engine)
        self.queue.serve()

    def _on_listing(self, engine: Engine) -> None:
        """Serve what waits after an engine was asked for its slots, its models, and what it has in memory."""
        self.roster.note_listing(engine)
        self.queue.note_listing(engine)
        self.queue.serve()

    def _sweep_health(self, now: float) -> None:
        self.health.sweep([*self.register.attempts(), *self.loader.running.values()], now)

    def _on_stall(self, seconds: float) -> None:
        for attempt in self.register.attempts():
            attempt.forgive(seconds)
