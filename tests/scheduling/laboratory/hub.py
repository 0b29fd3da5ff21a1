"""A simulated hub: the shell around the real dispatcher, health monitor and failure table, in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.failures import Verdict, judge
from hive.fleet.health import HealthMonitor, Patience, Transition, silence_limit
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport, LoadedModel, Model
from hive.fleet.signs import Signs
from hive.scheduling.dispatcher import Dispatcher, Step
from hive.scheduling.frontends import Frontend
from hive.scheduling.tickets import Lease, LoadEnd, LoadOrder

from .audit import Audit
from .clock import Act, Clock
from .exchange import Exchange, Request
from .machine import Caller, Job, Machine

TICK = 0.5
PROBE_INTERVAL = 2.0
PROBE_TIMEOUT = 2.0
LOAD_TIMEOUT = 300.0


@dataclass(slots=True)
class Rules:
    """What a simulated hub runs with."""

    policy: str = "best"
    queue_limit: int = 1000
    queue_timeout: float = 600.0
    slots: int | None = None
    patience: Patience = field(default_factory=Patience)


class SimulatedHub:
    """Many machines behind one dispatcher. `now` is the hub's clock: the world's, and what it was stepped by."""

    def __init__(self, clock: Clock, rules: Rules, audit: Audit, rng: random.Random) -> None:
        self.clock, self.rules, self.audit = clock, rules, audit
        self.frontend = Frontend(patience=rules.patience)
        """Where all requests arrive: tickets of one frontend share their lanes."""
        self.fleet = Fleet()
        self.monitor = HealthMonitor()
        self.dispatcher = Dispatcher(self.fleet, rules.queue_limit, rng=rng)
        self.frontend = Frontend(policy=rules.policy, patience=rules.patience)
        self.machines: dict[Engine, Machine] = {}
        self.exchanges: dict[int, Exchange] = {}
        self.ended: list[Exchange] = []
        self.waiting: dict[int, Exchange] = {}
        """By the number of the ticket that waits."""
        self.loads: dict[LoadOrder, _Load] = {}
        self.transitions: list[Transition] = []
        self.stalled_until = 0.0
        self.clock_step = 0.0
        clock.after(TICK, self._tick)

    def now(self) -> float:
        """Return the time by the hub's own clock."""
        return self.clock.now + self.clock_step

    def add(self, machine: Machine) -> None:
        """Take a machine into the fleet."""
        engine = Engine(machine.kit.name, f"http://{machine.kit.name}", configured_slots=self.rules.slots)
        self.machines[engine] = machine
        self.fleet.engines.append(engine)
        self.monitor.watch(engine, self.now())
        self._probe(engine)
        if machine.kit.has_agent:
            self._heartbeat(engine)

    def receive(self, act: Act) -> None:
        """Have the hub do something as soon as it does not stand still."""
        if self.stalled_until > self.clock.now:
            self.clock.at(self.stalled_until, act)
        else:
            act()

    def signs(self, engine: Engine) -> Signs:
        """Return where an engine's signs of life are written."""
        return engine.signs

    def ask(self, request: Request) -> None:
        """A client sends a request."""
        exchange = Exchange(self, request)
        self.exchanges[request.number] = exchange
        exchange.begin()

    def act(self, step: Step) -> None:
        """Carry out what the dispatcher decided."""
        for lease in step.leases:
            self.waiting.pop(lease.ticket.number).take(lease)
        for order in step.loads:
            self._start_load(order)
        for ticket, fault in step.refused:
            self.waiting.pop(ticket.number).refuse(fault)

    def serve(self) -> None:
        """Serve what can be served."""
        self.act(self.dispatcher.serve(self.now()))

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        self.audit.released(lease)
        self.dispatcher.release(lease)
        if self.dispatcher.waiting_count:
            self.serve()

    def note_unreachable(self, engine: Engine, reason: str) -> None:
        """There is no way to an engine."""
        self.signs(engine).failure = reason
        self._judge(engine)

    def _start_load(self, order: LoadOrder) -> None:
        instead = f" instead of {', '.join(order.unload)}" if order.unload else ""
        self.audit.tell(f"load {order.model} on {order.engine.node}{instead}: {order.reason}")
        machine = self.machines[order.engine]
        load = self.loads[order] = _Load(self, order)
        load.job = Job(order.model, 0, 0, load)
        self.signs(order.engine).computing += 1
        for model in order.unload:
            machine.network.send("up", partial(machine.unload, model))
        machine.network.send("up", lambda: machine.submit(load.job))

    def finish_load(self, order: LoadOrder, end: LoadEnd) -> None:
        """A load is over."""
        if self.loads.pop(order, None) is not None:
            self.audit.tell(f"load of {order.model} on {order.engine.node} {end}")
            self.signs(order.engine).computing -= 1
            self.dispatcher.load_finished(order, end, self.now())
            self.serve()

    def _tick(self) -> None:
        self.clock.after(TICK, self._tick)
        if self.stalled_until > self.clock.now:
            return
        now = self.now()
        for change in self.monitor.sweep(now):
            self._apply(change)
        self.act(self.dispatcher.step(now))
        for exchange in list(self.exchanges.values()):
            exchange.check_deadlines(now)
        for order, load in list(self.loads.items()):
            limit = silence_limit(self.signs(order.engine), now, self.rules.patience, has_begun=False, has_tools=False)
            if limit == 0.0 or now - order.ordered_at > LOAD_TIMEOUT:
                self.machines[order.engine].leave(load.job)
                self.finish_load(order, LoadEnd.FAILED)
        self.audit.check(self.dispatcher, self.fleet.engines, now)

    def _judge(self, engine: Engine) -> None:
        change = self.monitor.judge(engine, self.now())
        if change is not None:
            self._apply(change)

    def _apply(self, change: Transition) -> None:
        self.transitions.append(change)
        self.audit.tell(f"{change.engine.node}: {change.before} -> {change.after} ({change.cause})")
        self.fleet.set_health(change.engine, change.after, change.cause)
        if change.after is Health.DOWN:
            for order in [each for each in self.loads if each.engine is change.engine]:
                self.finish_load(order, LoadEnd.FAILED)
        self.serve()

    def _probe(self, engine: Engine) -> None:
        machine = self.machines[engine]
        self.clock.after(PROBE_INTERVAL, lambda: self._probe(engine))
        if self.stalled_until > self.clock.now or machine.network.is_cut:
            return
        sent_at = self.now()

        def answer() -> None:
            if machine.is_down:
                machine.network.send("down", lambda: self.receive(lambda: self.note_unreachable(engine, "refused")))
            elif not machine.is_frozen:
                loaded = tuple(LoadedModel(model, "", b"{}") for model in machine.loaded)
                machine.network.send("down", lambda: self.receive(lambda: self._hear(engine, loaded, sent_at)))

        machine.network.send("up", answer)

    def _hear(self, engine: Engine, loaded: tuple[LoadedModel, ...], sent_at: float) -> None:
        now, signs = self.now(), self.signs(engine)
        if now - sent_at > PROBE_TIMEOUT:
            return
        engine.known.round_trip = now - sent_at
        signs.last_sign = signs.answered_at = now
        signs.failure = ""
        if not engine.known.models:
            sizes = self.machines[engine].sizes
            models = tuple(Model(key, key, "", int(size), "", b"{}", b"{}") for key, size in sizes.items())
            self.fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.33.0", models, loaded))
        else:
            self.fleet.learn_loaded(engine, loaded)
        self.dispatcher.note_listing(engine, now)
        self._judge(engine)
        self.serve()

    def _heartbeat(self, engine: Engine) -> None:
        machine = self.machines[engine]
        self.clock.after(PROBE_INTERVAL, lambda: self._heartbeat(engine))
        has_stopped = machine.frozen_until - self.clock.now > 0 and bool(machine.jobs)
        machine.network.send("down", lambda: self.receive(lambda: self.hear_heartbeat(engine, has_stopped)))

    def hear_heartbeat(self, engine: Engine, has_stopped: bool) -> None:
        """A node's agent lives, and says whether its engine stands still."""
        signs = self.signs(engine)
        signs.last_sign = self.now()
        signs.has_stopped = has_stopped


class _Load(Caller):
    """The exchange that loads a model; no client's departure ends it."""

    def __init__(self, hub: SimulatedHub, order: LoadOrder) -> None:
        self._hub, self._order = hub, order
        self.job = Job(order.model, 0, 0, self)

    def on_end(self, pieces: int, measured: Measured) -> None:
        self._hub.receive(lambda: self._hub.finish_load(self._order, LoadEnd.DONE))

    def on_refusal(self, status: int, body: bytes) -> None:
        engine = self._order.engine
        is_busy = judge(engine.known.kind, status, body, engine.known.version).verdict is Verdict.BUSY
        self._hub.receive(lambda: self._hub.finish_load(self._order, LoadEnd.BUSY if is_busy else LoadEnd.FAILED))

    def on_broken(self) -> None:
        self._hub.receive(lambda: self._hub.finish_load(self._order, LoadEnd.FAILED))
