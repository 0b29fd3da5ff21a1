"""Whatever happens in whatever order: slots are conserved, no ticket is lost or answered twice, none overtakes."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hive.dialects.operations import CHAT, SHOW, methods_of
from hive.fleet.engines import Engine, EngineKind, EngineReport, Fleet, Health, Model
from hive.scheduling.dispatcher import Dispatcher, QueueFull
from hive.scheduling.tickets import Lease, Ticket

OPERATIONS = [CHAT, SHOW, methods_of("/v1/messages")["POST"]]
LIMIT = 5
PATIENCE = 10.0


def report(models: set[str], kind: EngineKind, version: str) -> EngineReport:
    listed = tuple(Model(key, key, "d", 1, "", b"{}", b"{}") for key in sorted(models))
    return EngineReport(kind, version, listed, ())


class DispatcherMachine(RuleBasedStateMachine):
    """The dispatcher against a plain account of who should be where."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held: list[Lease] = []
        self.waiting: list[Ticket] = []
        """In the order in which they came."""
        self.arrivals: list[Ticket] = []

    @initialize(
        engines=st.lists(
            st.tuples(
                st.integers(1, 3),
                st.sets(st.sampled_from("mn"), min_size=1),
                st.sampled_from([(EngineKind.OLLAMA, "0.33.0"), (EngineKind.OLLAMA, "0.9.3"), (EngineKind.VLLM, "")]),
            ),
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
            self.fleet.learn(engine, report(models, kind, version))
        self.dispatcher = Dispatcher(self.fleet, LIMIT, patience=PATIENCE, rng=random.Random(0))

    def could_serve(self, ticket: Ticket) -> list[Engine]:
        """Engines that could serve a ticket now, by the rules of the design."""
        return [
            engine
            for engine in self.engines
            if ticket.model in engine.models
            and engine.health is Health.READY
            and engine.rests_until <= self.now
            and ticket.accepts(engine)
            and (engine.running < engine.slots or not ticket.operation.takes_slot)
        ]

    def in_lane(self, ticket: Ticket) -> list[Ticket]:
        return [other for other in self.waiting if other.lane == ticket.lane]

    def take(self, lease: Lease) -> None:
        """Note a lease that was granted."""
        assert lease.is_held
        assert lease.ticket not in self.waiting
        assert all(lease.ticket is not other.ticket for other in self.held)
        assert lease.engine.health is Health.READY
        assert lease.engine.rests_until <= self.now
        assert lease.ticket.model in lease.engine.models
        assert lease.ticket.accepts(lease.engine)
        self.held.append(lease)

    def offer(self, ticket: Ticket) -> None:
        was_possible, has_company = bool(self.could_serve(ticket)), bool(self.in_lane(ticket))
        is_full = len(self.waiting) >= LIMIT
        try:
            lease = self.dispatcher.offer(ticket, self.now)
        except QueueFull:
            assert is_full
            assert has_company or not was_possible
            return
        if lease is not None:
            assert not has_company
            self.take(lease)
            return
        assert not is_full
        assert has_company or not was_possible
        if ticket not in self.arrivals:
            self.arrivals.append(ticket)
        self.waiting.append(ticket)
        self.waiting.sort(key=lambda each: each.number)

    def serve_all(self, leases: list[Lease]) -> None:
        """Check a batch of leases: oldest first, and nobody who could have been served before is passed over."""
        numbers: dict[tuple[str, bool], int] = {}
        for lease in leases:
            lane = lease.ticket.lane
            assert lease.ticket in self.waiting
            accept_alike = {
                tuple(each.accepts(engine) for engine in self.engines) for each in self.in_lane(lease.ticket)
            }
            if len(accept_alike) == 1:
                assert lease.ticket is self.in_lane(lease.ticket)[0]
            assert numbers.get(lane, 0) <= lease.ticket.number or len(accept_alike) > 1
            numbers[lane] = lease.ticket.number
            self.waiting.remove(lease.ticket)
            self.take(lease)
        for ticket in self.waiting:
            assert self.could_serve(ticket) == []

    @rule(model=st.sampled_from("mno"), operation=st.sampled_from(OPERATIONS), patience=st.floats(0, 40))
    def someone_asks(self, model: str, operation: object, patience: float) -> None:
        self.offer(Ticket(model, operation, self.now + patience))  # type: ignore[arg-type]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans())
    def someone_is_done(self, data: st.DataObject, twice: bool) -> None:
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.dispatcher.release(lease)
        if twice:
            self.dispatcher.release(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_busy=st.booleans())
    def an_engine_refuses(self, data: st.DataObject, is_busy: bool) -> None:
        """It says busy and rests, or failed and is excluded: the ticket goes back."""
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.dispatcher.release(lease)
        if is_busy:
            lease.engine.rests_until = self.now + 1.0
        else:
            lease.ticket.excluded.add(lease.engine)
        self.offer(lease.ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), twice=st.booleans())
    def someone_leaves(self, data: st.DataObject, twice: bool) -> None:
        ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.dispatcher.cancel(ticket)
        if twice:
            self.dispatcher.cancel(ticket)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def someone_leaves_who_does_not_wait(self, data: st.DataObject) -> None:
        self.dispatcher.cancel(data.draw(st.sampled_from(self.held)).ticket)

    @rule(data=st.data(), health=st.sampled_from(list(Health)))
    def health_changes(self, data: st.DataObject, health: Health) -> None:
        self.fleet.set_health(data.draw(st.sampled_from(self.engines)), health)

    @rule(data=st.data(), models=st.sets(st.sampled_from("mn")))
    def an_engine_lists_other_models(self, data: st.DataObject, models: set[str]) -> None:
        engine = data.draw(st.sampled_from(self.engines))
        self.fleet.learn(engine, report(models, engine.kind, engine.version))

    @rule()
    def serve(self) -> None:
        self.serve_all(self.dispatcher.serve(self.now))

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        step = self.dispatcher.step(self.now)
        left = [*step.expired, *step.hopeless]
        assert len(left) == len(set(left))
        for lease in step.leases:
            assert lease.ticket not in left
        for ticket in left:
            assert ticket in self.waiting
        self.waiting = [ticket for ticket in self.waiting if ticket not in left]
        self.serve_all(step.leases)
        assert all(ticket.deadline <= self.now for ticket in step.expired)
        assert all(ticket.deadline > self.now for ticket in self.waiting)
        for ticket in step.hopeless:
            assert not any(
                engine.health is Health.READY and ticket.accepts(engine) and ticket.model in engine.models
                for engine in self.engines
            )

    @invariant()
    def slots_are_conserved(self) -> None:
        for engine in getattr(self, "engines", ()):
            running = [lease for lease in self.held if lease.engine is engine and lease.ticket.operation.takes_slot]
            assert engine.running == len(running)
            assert 0 <= engine.running <= engine.slots

    @invariant()
    def nobody_is_lost(self) -> None:
        if hasattr(self, "dispatcher"):
            assert self.dispatcher.waiting_count == len(self.waiting) <= LIMIT
            assert sorted(self.dispatcher.waiting(), key=lambda each: each.number) == self.waiting

    @invariant()
    def lanes_keep_their_order(self) -> None:
        if hasattr(self, "dispatcher"):
            for ticket in self.waiting:
                lane = [other for other in self.dispatcher.waiting() if other.lane == ticket.lane]
                assert lane == self.in_lane(ticket)

    def teardown(self) -> None:
        """In the end all are done: nothing runs, and who still waits leaves by time alone."""
        if not hasattr(self, "dispatcher"):
            return
        for lease in self.held:
            self.dispatcher.release(lease)
        assert [engine.running for engine in self.engines] == [0] * len(self.engines)
        for engine in self.engines:
            self.fleet.set_health(engine, Health.DOWN)
        step = self.dispatcher.step(self.now + 1e6)
        assert (step.leases, self.dispatcher.waiting_count) == ([], 0)
        assert set(step.expired) == set(self.waiting)


DispatcherMachine.TestCase.settings = settings(
    deadline=None, max_examples=120, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)
TestDispatcher = DispatcherMachine.TestCase
