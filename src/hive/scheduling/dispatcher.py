"""The fleet's queue and its slots: pure, driven by `now`, the only writer of what runs where.

`offer` serves a ticket at once when it can; `serve` serves those that wait after something changed, and `step` lets
time pass as well. All they decide is leases, load orders and refusals. Whoever gets a lease must `release` it, whoever
gets a load order must report its end (`load_finished`), whatever happens.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from hive.dialects.measures import Measured
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet
from hive.scheduling import slots
from hive.scheduling.best import Best
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.loads import Loads
from hive.scheduling.policies import Action, Choice, Policy, Situation, Turns, is_open, may_begin, why_only
from hive.scheduling.refusals import queue_full, retry_after, too_late
from hive.scheduling.ticket_queue import Lane, TicketQueue, wish_of
from hive.scheduling.tickets import Claim, Lease, LoadEnd, LoadOrder, Ticket

GONE_AFTER = 10.0
"""Seconds for which no engine lists a model or has the route, until those that wait for it are refused."""
REVIEWS = 32
"""Lanes that are looked at again in one step, because time alone may have changed what is best for them."""
LOAD_LOOKS = 2
"""So many lanes are considered for a load on an engine that fell idle; the others have their turn in a step."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was decided."""

    leases: list[Lease]
    loads: list[LoadOrder]
    refused: list[tuple[Ticket, Fault]]


class Dispatcher:
    """All tickets, leases and loads of a hub. `policy` is one of `hive.config.Policy`."""

    def __init__(
        self, fleet: Fleet, queue_limit: int, *, policy: str = "best", rng: random.Random | None = None
    ) -> None:
        self._fleet = fleet
        self._queue = TicketQueue(queue_limit)
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self.estimates = Estimates(fleet)
        self.loads = Loads(self._queue)
        self.demand = Demand()
        situation = Situation(fleet, self._queue, self.loads, self.estimates, self.demand, self._rng)
        self._policy: Policy = Best(situation) if policy == "best" else Turns(policy, situation)
        self._situation = situation
        self._last_number = 0
        self._seen_shape = -1
        self._dirty: set[Engine] = set()
        """Engines that may be able to do more than when waiting tickets were last considered."""
        self._fresh: dict[Lane, None] = {}
        """Lanes to consider because of what came into them."""
        self._resting: list[tuple[float, int, Engine]] = []
        self._rota: deque[Lane] = deque()
        """Lanes in which tickets wait, in the order in which time makes them worth a look."""
        self._orders: list[LoadOrder] = []
        self._gone_since: dict[Lane, float] = {}

    @property
    def waiting_count(self) -> int:
        """How many tickets wait."""
        return self._queue.count

    @property
    def has_news(self) -> bool:
        """Might `serve` decide something now?"""
        return bool(self._orders or self._fresh or (self._queue.count and (self._dirty or self._fleet.changed)))

    def waiting(self) -> Iterator[Ticket]:
        """Yield the tickets that wait, model by model."""
        return iter(self._queue)

    # --- tickets and leases ---

    def offer(self, ticket: Ticket, now: float) -> Lease | None:
        """Serve a new ticket or one that comes back, or let it wait (None). Raises `Fault` (queue_full)."""
        queue = self._queue
        is_new = not ticket.number
        if is_new:
            self._last_number += 1
            ticket.number, ticket.since = self._last_number, now
            arrived = self.demand.arrived
            arrived[ticket.model] = arrived.get(ticket.model, 0) + 1
        lane = queue.lane(ticket)
        if lane.shape != self._fleet.shape:
            self._survey(lane, ticket)
        if not lane.engines and ticket.excluded:
            lane = self._forgive(ticket)
        is_first = ticket.model not in queue.waiting_of if lane.takes_slot else not lane.count
        choice: Choice | None = None
        if is_first:
            choice = self._choose(lane, ticket, now)
            if choice.action is Action.SERVE:
                return self._grant(ticket, choice, now)
        if is_new and queue.count >= queue.limit:
            raise queue_full(queue.limit, self.retry_after())
        self._let_wait(lane, ticket)
        if choice is None:
            if lane.is_declining or lane.count == 1:
                self._fresh[lane] = None
        else:
            self._note_wait(lane, ticket, choice, now)
        return None

    def cancel(self, ticket: Ticket) -> None:
        """Forget a ticket that waits; nothing for one that does not."""
        self._queue.remove(ticket)

    def release(self, lease: Lease) -> None:
        """Give a slot back; once is enough, twice does no harm."""
        if lease.is_held:
            lease.is_held = False
            self.demand.ended += 1
            if lease.ticket.takes_slot:
                engine, model = lease.engine, lease.ticket.model
                engine.running.count -= 1
                engine.running.ended += 1
                left = engine.running.of_model[model] - 1
                if left:
                    engine.running.of_model[model] = left
                else:
                    del engine.running.of_model[model]
                self._dirty.add(engine)
            elif lease.ticket.claim is Claim.RELAY:
                lease.engine.running.relaying -= 1
                self._dirty.add(lease.engine)

    def retry_after(self) -> int:
        """Return the seconds after which a refused client may come again."""
        return retry_after(self._queue.count, self.demand.serves_per_second)

    # --- what was learned ---

    def note_served(self, lease: Lease, measured: Measured, now: float) -> None:
        """Learn from an exchange that was answered to its end; call it while the lease is held."""
        if lease.ticket.takes_slot:
            slots.note_served(lease, measured, now)
            engine, ticket = lease.engine, lease.ticket
            if engine.loads_models and ticket.model in engine.known.loaded:
                engine.running.loaded_as.setdefault(ticket.model, ticket.load_options)
            self.estimates.note_served(lease, measured, now)

    def note_busy(self, engine: Engine, now: float) -> None:
        """An engine said that it can do no more: it rests, and gets less from then on."""
        slots.note_busy(engine, now)
        self.rest(engine, engine.running.rests_until)

    def note_inside(self, lease: Lease, now: float) -> None:
        """An exchange was found to wait inside its engine; call it while the lease is held."""
        slots.note_inside(lease, now)

    def rest(self, engine: Engine, until: float) -> None:
        """Leave an engine alone for a while; nothing is said of its slots."""
        engine.running.rests_until = max(engine.running.rests_until, until)
        heappush(self._resting, (engine.running.rests_until, id(engine), engine))

    def load_finished(self, order: LoadOrder, end: LoadEnd, now: float) -> None:
        """A load is over."""
        if not self.loads.finish(order, end, now):
            return
        engine, model = order.engine, order.model
        self._dirty.add(engine)
        if end is LoadEnd.DONE:
            self.estimates.note_load(engine, model, max(now - order.ordered_at, 0.0))
        elif end is LoadEnd.FAILED:  # an Ollama has listed it from the moment in which the load began
            self._fleet.forget_loaded(engine, model)
        else:
            self.note_busy(engine, now)

    def note_listing(self, engine: Engine, now: float) -> None:
        """An engine was asked what it has in memory, and the fleet has learned it."""
        if self.loads.note_listing(engine, now):
            self._dirty.add(engine)

    # --- deciding ---

    def serve(self, now: float) -> Step:
        """Serve all that can be served after what changed, oldest first."""
        leases: list[Lease] = []
        if self._queue.count:
            self._consider(self._lanes_to_consider(now), leases, now)
        else:
            self._dirty.clear()
            self._fleet.changed.clear()
        self._fresh.clear()
        orders, self._orders = self._orders, []
        return Step(leases, orders, [])

    def step(self, now: float) -> Step:
        """Let time pass: serve what can be served, then refuse what waited too long."""
        self.demand.fold(now)
        for _ in range(min(REVIEWS, len(self._rota))):
            lane = self._rota.popleft()
            if lane.count:
                self._fresh[lane] = None
                self._rota.append(lane)
            else:
                lane.is_on_rota = False
        step = self.serve(now)
        seconds = self.retry_after()
        late = self._queue.take_expired(now)
        late += self._take_gone(now)
        for ticket in late:
            step.refused.append((ticket, too_late(ticket, self._fleet.having(ticket.model), now, seconds)))
        return step

    def _lanes_to_consider(self, now: float) -> dict[Lane, list[Engine] | None]:
        """Return the lanes for which something changed, each with the engines that changed; None: any may do."""
        fleet, queue = self._fleet, self._queue
        while self._resting and self._resting[0][0] <= now:
            self._dirty.add(heappop(self._resting)[2])
        found: dict[Lane, list[Engine] | None] = {}
        if fleet.shape != self._seen_shape:
            self._seen_shape = fleet.shape
            self._forgive_all()
            found.update((lane, None) for lanes in queue.by_model.values() for lane in lanes)
        else:
            for engine in self._dirty | fleet.changed:
                for model in self._models_of_use(engine, now):
                    for lane in queue.by_model.get(model, ()):
                        found.setdefault(lane, []).append(engine)  # type: ignore[union-attr]
        found.update((lane, None) for lane in self._fresh if lane.count)
        self._dirty.clear()
        fleet.changed.clear()
        return found

    def _models_of_use(self, engine: Engine, now: float) -> Iterable[str]:
        """Return the models for which a change on this engine may mean something: those it has, unless it is idle."""
        if not engine.loads_models or self._could_load(engine, now):
            by_model = self._queue.by_model
            if len(by_model) < len(engine.known.models):
                return [model for model in by_model if model in engine.known.models]
            return engine.known.models
        return engine.known.warm | engine.running.loaded_as.keys() if engine.running.loaded_as else engine.known.warm

    def _consider(self, lanes: dict[Lane, list[Engine] | None], leases: list[Lease], now: float) -> None:
        """Serve the lanes' heads, the oldest first, until nobody can be served any more."""
        heads = [(lane.head().number, place, lane) for place, lane in enumerate(lanes)]
        heads.sort(reverse=True)
        load_looks = LOAD_LOOKS
        while heads:
            _, place, lane = heads.pop()
            ticket = lane.head()
            changed = lanes[lane]
            if lane.shape != self._fleet.shape:
                self._survey(lane, ticket)
            elif changed is not None and not any(self._could_serve(engine, ticket, now) for engine in changed):
                if not load_looks or not any(self._could_load(engine, now) for engine in changed):
                    continue
                load_looks -= 1
            choice = self._choose(lane, ticket, now, _serving(changed, ticket) if changed else ())
            if choice.action is Action.SERVE:
                self._queue.served_at[wish_of(lane.key)] = now
                self._queue.remove(ticket)
                leases.append(self._grant(ticket, choice, now))
            else:
                self._note_wait(lane, ticket, choice, now)
            if lane.count and choice.action is not Action.WAIT:
                _insert(heads, (lane.head().number, place, lane))

    def _could_serve(self, engine: Engine, ticket: Ticket, now: float) -> bool:
        """Could this engine begin with the ticket now?"""
        if not ticket.takes_slot:
            return may_begin(engine, ticket, now)
        return engine.is_warm(ticket.model, ticket.load_options) and is_open(engine, ticket.model, now)

    def _could_load(self, engine: Engine, now: float) -> bool:
        """Has this engine nothing to do, so that it may load something?"""
        return (
            engine.loads_models
            and not engine.running.count
            and not engine.running.loading
            and engine.running.rests_until <= now
        )

    def _choose(self, lane: Lane, ticket: Ticket, now: float, freed: Sequence[Engine] = ()) -> Choice:
        if not lane.engines:
            return Choice(Action.WAIT)
        if lane.takes_slot:
            return self._policy.choose(lane, ticket, now, freed)
        rested = [engine for engine in lane.engines if may_begin(engine, ticket, now)]
        if ticket.claim is Claim.UNLOAD:
            rested = [engine for engine in rested if ticket.model in engine.known.warm] or rested
        return Choice(Action.SERVE, self._rng.choice(rested), "needs no slot") if rested else Choice(Action.WAIT)

    def _grant(self, ticket: Ticket, choice: Choice, now: float) -> Lease:
        engine = choice.engine
        assert engine is not None
        ticket.declined_since = None
        of_model = 1
        if ticket.takes_slot:
            engine.running.count += 1
            running_of = engine.running.of_model
            of_model = running_of[ticket.model] = running_of.get(ticket.model, 0) + 1
            granted, pair = self.demand.granted, (engine, ticket.model)
            granted[pair] = granted.get(pair, 0) + 1
        elif ticket.claim is Claim.RELAY:
            engine.running.relaying += 1
        name = self._policy.name
        return Lease(
            engine,
            ticket,
            choice.reason,
            now,
            engine.running.count,
            of_model,
            name,
            choice.compared,
            engine.running.ended,
        )

    def _let_wait(self, lane: Lane, ticket: Ticket) -> None:
        self._queue.push(ticket, lane)
        self._note_waiting(lane)

    def _note_waiting(self, lane: Lane) -> None:
        if not lane.is_on_rota:
            lane.is_on_rota = True
            self._rota.append(lane)

    def _note_wait(self, lane: Lane, ticket: Ticket, choice: Choice, now: float) -> None:
        lane.is_declining = choice.declines
        if not choice.declines:
            ticket.declined_since = None
        elif ticket.declined_since is None:
            ticket.declined_since = now
        if choice.action is Action.LOAD:
            assert choice.engine is not None
            self._orders.append(self._begin_load(choice.engine, ticket, choice, now))

    def _begin_load(self, engine: Engine, ticket: Ticket, choice: Choice, now: float) -> LoadOrder:
        order = self.loads.begin(engine, ticket, choice.reason, now, choice.unload)
        if choice.unload:  # they are going: nobody is sent to them any more
            for model in choice.unload:
                self._fleet.forget_loaded(engine, model)
        return order

    def _survey(self, lane: Lane, ticket: Ticket) -> None:
        """Find the engines that may serve a lane: those in service; doubtful ones only where there is nobody else."""
        having = self._fleet.having(lane.model)
        accepting = [engine for engine in having if ticket.accepts(engine)]
        lane.engines = [engine for engine in accepting if engine.takes_work] or [
            engine for engine in accepting if engine.is_last_resort
        ]
        lane.only = why_only(having)
        lane.shape = self._fleet.shape

    def _forgive(self, ticket: Ticket) -> Lane:
        """Return the lane of a ticket that nobody else is left for: whoever failed it may have it again."""
        ticket.excluded.clear()
        lane = self._queue.lane(ticket)
        if lane.shape != self._fleet.shape:
            self._survey(lane, ticket)
        return lane

    def _forgive_all(self) -> None:
        """Find the waiting tickets for which the last engine that had not failed them is gone."""
        queue = self._queue
        for lane in [lane for lanes in queue.by_model.values() for lane in lanes if lane.excludes]:
            self._survey(lane, lane.head())
            if not lane.engines:
                for ticket in lane.tickets():
                    forgiven = self._forgive(ticket)
                    queue.move(ticket, forgiven)
                    self._note_waiting(forgiven)

    def _take_gone(self, now: float) -> list[Ticket]:
        """Forget the tickets whose model, or whose route for it, no engine has had for a while; return them."""
        lanes = [lane for lanes in self._queue.by_model.values() for lane in lanes if not self._is_served(lane)]
        self._gone_since = {lane: self._gone_since.get(lane, now) for lane in lanes}
        over = [lane for lane, since in self._gone_since.items() if now - since >= GONE_AFTER]
        tickets = [ticket for lane in over for ticket in lane.tickets()]
        for ticket in tickets:
            self._queue.remove(ticket)
        return tickets

    def _is_served(self, lane: Lane) -> bool:
        """Does any engine list the model and have the route, whatever its state?"""
        ticket = lane.head()
        return any(engine.route_for(ticket.task, ticket.dialect) for engine in self._fleet.having(lane.model))


def _serving(engines: list[Engine], ticket: Ticket) -> list[Engine]:
    return [each for each in engines if each.takes_work and ticket.model in each.known.models and ticket.accepts(each)]


def _insert(heads: list[tuple[int, int, Lane]], head: tuple[int, int, Lane]) -> None:
    """Put a head back where it belongs in a list that is sorted from the youngest to the oldest."""
    place = len(heads)
    while place and heads[place - 1] < head:
        place -= 1
    heads.insert(place, head)
