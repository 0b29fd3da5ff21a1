"""Whatever happens in whatever order: slots are conserved, no ticket is lost or answered twice, none overtakes.

The dispatcher runs against a naive model: a plain list of the tickets that wait, searched from the front.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hive.config import PolicyName
from hive.dialects.measures import Measured
from hive.dialects.tasks import CHAT, SHOW, Dialect, Task
from hive.errors import Fault
from hive.fleet.engines import IN_SERVICE, Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.scheduling.dispatcher import Dispatcher, Step
from hive.scheduling.frontends import Frontend
from hive.scheduling.survey import GONE_AFTER
from hive.scheduling.tickets import Lease, LoadEnd, LoadOrder, Ticket, claim_of

from .fleets import report

ASKED = [(CHAT, Dialect.OLLAMA), (SHOW, Dialect.OLLAMA), (CHAT, Dialect.ANTHROPIC)]
LIMIT = 5
KINDS = [(EngineKind.OLLAMA, "0.33.0"), (EngineKind.OLLAMA, "0.9.3"), (EngineKind.VLLM, "")]


class DispatcherMachine(RuleBasedStateMachine):
    """The dispatcher against a plain account of all tickets and leases."""

    policy = "least_busy"

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held: list[Lease] = []
        self.waiting: list[Ticket] = []
        """In the order in which they came."""
        self.gone_since: dict[str, float] = {}

    @property
    def serves_whenever_it_can(self) -> bool:
        """`best` may leave a slot free for a while."""
        return self.policy != "best"

    @initialize(
        engines=st.lists(
            st.tuples(st.integers(1, 3), st.sets(st.sampled_from("mn"), min_size=1), st.sampled_from(KINDS)),
            min_size=1,
            max_size=3,
        )
    )
    def build(self, engines: list[tuple[int, set[str], tuple[EngineKind, str]]]) -> None:
        self.engines = [
            Engine(str(place), f"http://{place}", configured_slots=slots, health=Health.READY)
            for place, (slots, _, _) in enumerate(engines)
        ]
        self.fleet = Fleet(self.engines)
        for engine, (_, models, (kind, version)) in zip(self.engines, engines, strict=True):
            self.learn(engine, models, kind, version)
        self.dispatcher = Dispatcher(self.fleet, LIMIT, rng=random.Random(0))
        self.frontend = Frontend(policy=self.policy)

    def learn(self, engine: Engine, models: set[str], kind: EngineKind, version: str) -> None:
        names = tuple(sorted(models))
        self.fleet.learn(engine, report(*names, loaded=names, kind=kind, version=version))

    def could_serve(self, ticket: Ticket) -> list[Engine]:
        """Return the engines that could serve a ticket now, by the rules of the design."""
        having = [
            each
            for each in self.engines
            if ticket.model in each.known.models and each.route_for(ticket.task, ticket.dialect)
        ]
        serving = self.in_service([each for each in having if each not in ticket.excluded])
        serving = serving or self.in_service(having)  # engines that failed it may have it again when no others are left
        return [each for each in serving if each.running.rests_until <= self.now and self.has_room(each, ticket)]

    @staticmethod
    def in_service(engines: list[Engine]) -> list[Engine]:
        serving = [each for each in engines if each.health in IN_SERVICE]
        return serving or [each for each in engines if each.health is Health.DOUBTFUL]

    @staticmethod
    def has_room(engine: Engine, ticket: Ticket) -> bool:
        most = 1 if engine.health is Health.PROBATION else engine.slots
        return not ticket.takes_slot or engine.running.count < most

    def before(self, ticket: Ticket) -> list[Ticket]:
        """Return the tickets that wait for the same slots of the same model."""
        slot = ticket.takes_slot
        if not slot:
            return [each for each in self.waiting if each.lane == ticket.lane]
        return [each for each in self.waiting if each.model == ticket.model and each.takes_slot]

    def take(self, lease: Lease) -> None:
        """Note a lease that was granted."""
        engine, ticket = lease.engine, lease.ticket
        assert lease.is_held
        assert all(ticket is not other.ticket for other in self.held)
        if ticket.takes_slot:
            engine.running.count -= 1
            possible = self.could_serve(ticket)
            engine.running.count += 1
        else:
            possible = self.could_serve(ticket)
        assert engine in possible
        if self.policy == "least_busy" and ticket.takes_slot:
            share = (engine.running.count - 1) / engine.slots
            others = [each for each in possible if each is not engine]
            assert all(share <= each.running.count / each.slots for each in others)
        self.held.append(lease)

    def offer(self, ticket: Ticket) -> None:
        possible, company = bool(self.could_serve(ticket)), bool(self.before(ticket))
        is_full = not ticket.number and len(self.waiting) >= LIMIT  # a ticket that comes back has its place
        try:
            lease = self.dispatcher.offer(ticket, self.now)
        except Fault:
            assert is_full
            return
        if lease is not None:
            assert possible
            assert not company
            self.take(lease)
            return
        assert not is_full
        assert company or not possible or not self.serves_whenever_it_can
        self.waiting.append(ticket)
        self.waiting.sort(key=lambda each: each.number)
        if self.dispatcher.has_news:
            self.serve_all(self.dispatcher.serve(self.now))

    def serve_all(self, step: Step) -> None:
        """Check a batch of leases: in order within a lane, and no ticket that could be served is left."""
        for lease in step.leases:
            assert lease.ticket in self.waiting
            lane = [each for each in self.waiting if each.lane == lease.ticket.lane]
            assert lease.ticket is lane[0]
            self.waiting.remove(lease.ticket)
        for lease in reversed(step.leases):  # as if each had been granted last
            lease.engine.running.count -= lease.ticket.takes_slot
        for lease in step.leases:
            lease.engine.running.count += lease.ticket.takes_slot
            self.take(lease)
        assert step.loads == []
        if self.serves_whenever_it_can:
            for ticket in self.waiting:
                assert self.could_serve(ticket) == []

    @rule(model=st.sampled_from("mno"), asked=st.sampled_from(ASKED), patience=st.floats(0, 40))
    def a_ticket_is_offered(self, model: str, asked: tuple[Task, Dialect], patience: float) -> None:
        if self.fleet.having(model):
            self.offer(Ticket(model, *asked, self.now + patience, claim=claim_of(asked[0]), frontend=self.frontend))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans(), seconds=st.floats(0, 5))
    def an_exchange_ends(self, data: st.DataObject, twice: bool, seconds: float) -> None:
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        measured = Measured(first_byte=seconds, output_tokens=10, decode_seconds=seconds)
        self.dispatcher.note_served(lease, measured, self.now)
        self.dispatcher.release(lease)
        if twice:
            self.dispatcher.release(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_busy=st.booleans())
    def an_engine_refuses(self, data: st.DataObject, is_busy: bool) -> None:
        """It says busy and rests, or failed and is excluded: the ticket goes back."""
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if is_busy:
            self.dispatcher.note_busy(lease.engine, self.now)
        else:
            lease.ticket.excluded.add(lease.engine)
        self.dispatcher.release(lease)
        self.offer(lease.ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), twice=st.booleans())
    def a_ticket_leaves(self, data: st.DataObject, twice: bool) -> None:
        ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.dispatcher.cancel(ticket)
        if twice:
            self.dispatcher.cancel(ticket)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_ticket_leaves_that_does_not_wait(self, data: st.DataObject) -> None:
        self.dispatcher.cancel(data.draw(st.sampled_from(self.held)).ticket)

    @rule(data=st.data(), health=st.sampled_from(list(Health)))
    def health_changes(self, data: st.DataObject, health: Health) -> None:
        self.fleet.set_health(data.draw(st.sampled_from(self.engines)), health)

    @rule(data=st.data(), models=st.sets(st.sampled_from("mn")))
    def an_engine_lists_other_models(self, data: st.DataObject, models: set[str]) -> None:
        engine = data.draw(st.sampled_from(self.engines))
        self.learn(engine, models, engine.known.kind, engine.known.version)

    @rule()
    def serve(self) -> None:
        self.serve_all(self.dispatcher.serve(self.now))

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        step = self.dispatcher.step(self.now)
        left = [ticket for ticket, _ in step.refused]
        assert len(left) == len(set(left))
        for ticket, fault in step.refused:
            assert ticket in self.waiting
            having = self.fleet.having(ticket.model)
            is_served = any(each.route_for(ticket.task, ticket.dialect) for each in having)
            assert fault.kind.status == (503 if is_served or not having else 501)
            assert fault.kind.status == 501 or dict(fault.headers)["Retry-After"].isdigit()
            assert ticket.deadline <= self.now or not is_served
        self.waiting = [ticket for ticket in self.waiting if ticket not in left]
        self.serve_all(step)
        assert all(ticket.deadline > self.now for ticket in self.waiting)

    @invariant()
    def slots_are_conserved(self) -> None:
        for engine in getattr(self, "engines", ()):
            running = [lease for lease in self.held if lease.engine is engine and lease.ticket.takes_slot]
            assert engine.running.count == len(running)
            models = [lease.ticket.model for lease in running]
            assert engine.running.of_model == {model: models.count(model) for model in set(models)}

    @invariant()
    def no_ticket_is_lost(self) -> None:
        if hasattr(self, "dispatcher"):
            assert self.dispatcher.waiting_count == len(self.waiting)
            assert sorted(self.dispatcher.waiting(), key=lambda each: each.number) == self.waiting

    def teardown(self) -> None:
        """In the end no exchange runs, and the tickets that still wait leave by time alone."""
        if not hasattr(self, "dispatcher"):
            return
        for lease in self.held:
            self.dispatcher.release(lease)
        assert [engine.running.count for engine in self.engines] == [0] * len(self.engines)
        for engine in self.engines:
            self.fleet.set_health(engine, Health.DOWN)
        step = self.dispatcher.step(self.now + 1e6)
        assert (step.leases, self.dispatcher.waiting_count) == ([], 0)
        assert {ticket for ticket, _ in step.refused} == set(self.waiting)


def machine(policy: str) -> type[DispatcherMachine]:
    """Return the machine for a policy."""
    made: type[DispatcherMachine] = type(f"With_{policy}", (DispatcherMachine,), {"policy": policy})
    made.TestCase.settings = settings(
        deadline=None, max_examples=60, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
    )
    return made


TestBest = machine("best").TestCase
TestRoundRobin = machine("round_robin").TestCase
TestRandom = machine("random").TestCase
TestLeastBusy = machine("least_busy").TestCase


def test_every_policy_has_its_machine() -> None:
    assert {name.lower() for name in globals() if name.startswith("Test")} >= {
        f"test{policy.replace('_', '')}" for policy in PolicyName
    }
    assert GONE_AFTER > 0


class LoadsMachine(RuleBasedStateMachine):
    """Loads: one at a time on an engine, none that evicts a model in use, and every ticket is served in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held: list[Lease] = []
        self.orders: list[LoadOrder] = []
        self.waiting: set[Ticket] = set()

    @initialize(
        policy=st.sampled_from(PolicyName),
        engines=st.lists(
            st.tuples(st.sampled_from([None, 1, 2]), st.sets(st.sampled_from("mnop"), min_size=1), st.booleans()),
            min_size=1,
            max_size=3,
        ),
    )
    def build(self, policy: str, engines: list[tuple[int | None, set[str], bool]]) -> None:
        self.engines = [
            Engine(str(place), f"http://{place}", configured_slots=slots, health=Health.READY)
            for place, (slots, _, _) in enumerate(engines)
        ]
        self.fleet = Fleet(self.engines)
        for engine, (_, models, is_told) in zip(self.engines, engines, strict=True):
            self.fleet.learn(engine, report(*sorted(models)))
            engine.known.memory_bytes = 13_000_000_000 if is_told else None
        self.dispatcher = Dispatcher(self.fleet, 50, rng=random.Random(0))
        self.frontend = Frontend(policy=policy)

    def act(self, step: Step) -> None:
        for order in step.loads:
            engine = order.engine
            assert engine.running.loading == order.model
            assert sum(each.engine is engine for each in self.orders) == 0
            assert not set(order.unload) & {order.model, *engine.running.of_model}
            assert not set(order.unload) & set(engine.known.loaded)
            self.orders.append(order)
        for lease in step.leases:
            self.waiting.remove(lease.ticket)
            self.held.append(lease)
            assert lease.running <= max(lease.engine.slots, 1)
            assert lease.engine.running.of_model[lease.ticket.model] <= max(lease.engine.model_slots, 1)
        assert step.refused == []

    @rule(model=st.sampled_from("mnop"), options=st.sampled_from(["", "num_ctx=8192"]))
    def a_ticket_is_offered(self, model: str, options: str) -> None:
        if len(self.waiting) >= 40 or not self.fleet.having(model):
            return
        ticket = Ticket(model, CHAT, Dialect.OLLAMA, 1e9, load_options=options, frontend=self.frontend)
        lease = self.dispatcher.offer(ticket, self.now)
        if lease is None:
            self.waiting.add(ticket)
        else:
            self.held.append(lease)
        if self.dispatcher.has_news:
            self.act(self.dispatcher.serve(self.now))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def an_exchange_ends(self, data: st.DataObject) -> None:
        self.dispatcher.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))
        self.act(self.dispatcher.serve(self.now))

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), end=st.sampled_from(LoadEnd))
    def a_load_ends(self, data: st.DataObject, end: LoadEnd) -> None:
        order = self.orders.pop(data.draw(st.integers(0, len(self.orders) - 1)))
        self.dispatcher.load_finished(order, end, self.now)
        self.act(self.dispatcher.serve(self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_ticket_leaves(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting, key=lambda each: each.number)))
        self.dispatcher.cancel(ticket)
        self.waiting.remove(ticket)

    @rule(data=st.data())
    def an_engine_is_asked_for_its_memory(self, data: st.DataObject) -> None:
        """It may have evicted anything that does not run."""
        engine = data.draw(st.sampled_from(self.engines))
        known = sorted({*engine.known.loaded, *engine.running.loaded_as})
        kept = {each for each in known if each in engine.running.of_model or data.draw(st.booleans())}
        self.fleet.learn(engine, report(*sorted(engine.known.models), loaded=tuple(sorted(kept))))
        self.dispatcher.note_listing(engine, self.now)
        self.act(self.dispatcher.serve(self.now))

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.act(self.dispatcher.step(self.now))

    @invariant()
    def sums_are_right(self) -> None:
        if hasattr(self, "dispatcher"):
            assert self.dispatcher.waiting_count == len(self.waiting)
            assert sum(engine.running.count for engine in self.engines) == len(self.held)
            assert {each.engine for each in self.orders} == set(self.dispatcher.loads.orders)
            assert [bool(each.running.loading) for each in self.engines] == [
                each in self.dispatcher.loads.orders for each in self.engines
            ]
            assert all(each.running.loading for each in self.engines if each.running.loads_alone)

    def teardown(self) -> None:
        """When all loads end well and each exchange takes a second, every ticket is served within the bound."""
        if not hasattr(self, "dispatcher"):
            return
        for _ in range(40 * (1 + len(self.waiting))):
            for lease in self.held:
                self.dispatcher.release(lease)
            self.held.clear()
            for order in self.orders:
                self.dispatcher.load_finished(order, LoadEnd.DONE, self.now)
            self.orders.clear()
            for engine in self.engines:
                self.dispatcher.note_listing(engine, self.now)
            self.now += 3.0
            self.act(self.dispatcher.step(self.now))
            if not self.waiting:
                return
        pytest.fail(f"never served: {[(each.model, each.since) for each in self.waiting]}")


LoadsMachine.TestCase.settings = settings(
    deadline=None, max_examples=80, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)
TestLoads = LoadsMachine.TestCase
