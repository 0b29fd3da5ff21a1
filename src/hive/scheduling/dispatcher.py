"""The fleet's queue and its slots: pure, driven by `now`, the only writer of what runs on which engine.

`offer` serves a ticket at once when it can; `serve` serves the tickets that wait after something changed, and `step`
lets time pass as well. They decide leases, load orders and refusals. Every lease must come back by `release`, and the
end of every load order by `load_finished`, whatever happens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hive.dialects.measures import Measured
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet
from hive.scheduling import slots
from hive.scheduling.agenda import Agenda
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.lanes import Action, Choice, Lane, wish_of
from hive.scheduling.loads import Loads
from hive.scheduling.order import Order, order_of
from hive.scheduling.policies import Situation, could_load, could_serve
from hive.scheduling.refusals import queue_full, retry_after, too_late
from hive.scheduling.survey import LaneSurvey
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Claim, Lease, LoadEnd, LoadOrder, OrderKey, Ticket

LOAD_LOOKS = 2
"""At most this many lanes are considered for a load when engines fall idle; the others wait for `step`."""

_WAIT = Choice(Action.WAIT)
_Head = tuple[OrderKey, int, Lane]
"""The key of a lane's first ticket, the lane's number in this round, and the lane."""


@dataclass(frozen=True, slots=True)
class Step:
    """The decisions of one call."""

    leases: list[Lease]
    loads: list[LoadOrder]
    refused: list[tuple[Ticket, Fault]]


class Dispatcher:
    """All tickets, leases and loads of a hub. Each ticket is served by the policy of its frontend."""

    def __init__(
        self, fleet: Fleet, queue_limit: int, *, order: Order = order_of, rng: random.Random | None = None
    ) -> None:
        self._fleet = fleet
        self.queue = TicketQueue(queue_limit, order)
        """Others may `rekey` its tickets, and change nothing else."""
        self.estimates = Estimates(fleet)
        self.loads = Loads(self.queue)
        self.demand = Demand()
        rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        situation = Situation(fleet, self.queue, self.loads, self.estimates, self.demand, rng)
        self._survey = LaneSurvey(fleet, self.queue, situation)
        self._agenda = Agenda(fleet, self.queue, self._survey)
        self._dirty = self._agenda.dirty
        self._last_number = 0
        self._load_orders: list[LoadOrder] = []

    @property
    def waiting_count(self) -> int:
        """How many tickets wait."""
        return self.queue.count

    @property
    def has_news(self) -> bool:
        """Might `serve` decide something now?"""
        return bool(self._load_orders) or not self._agenda.is_empty

    def waiting(self) -> Iterator[Ticket]:
        """Yield the tickets that wait, model by model."""
        return iter(self.queue)

    def offer(self, ticket: Ticket, now: float) -> Lease | None:
        """Serve a new ticket or one that comes back, or let it wait (None). Raises `Fault` (queue_full)."""
        queue = self.queue
        is_new = not ticket.number
        if is_new:
            self._last_number += 1
            ticket.number, ticket.since = self._last_number, now
            arrived = self.demand.arrived
            arrived[ticket.model] = arrived.get(ticket.model, 0) + 1
        lane = queue.lane(ticket)
        if lane.shape != self._fleet.shape:
            self._survey.survey(lane, ticket)
        if not lane.engines and ticket.excluded:
            lane = self._survey.forgive(ticket)
        is_first = ticket.model not in queue.waiting_of if lane.takes_slot else not lane.count
        choice: Choice | None = None
        if is_first:
            choice = lane.policy.choose(lane, ticket, now) if lane.engines else _WAIT
            if choice.action is Action.SERVE:
                return self._grant(lane, ticket, choice, now)
        if is_new and queue.count >= queue.limit:
            raise queue_full(queue.limit, self.retry_after())
        queue.push(ticket, lane)
        self._agenda.put_on_rota(lane)
        if choice is not None:
            self._note_wait(lane, ticket, choice, now)
        elif lane.is_declining or lane.count == 1:
            self._agenda.fresh[lane] = None
        return None

    def cancel(self, ticket: Ticket) -> None:
        """Forget a ticket that waits; nothing happens to one that does not."""
        self.queue.remove(ticket)

    def release(self, lease: Lease) -> None:
        """Give a slot back; a second call does no harm."""
        if lease.is_held:
            lease.is_held = False
            self.demand.ended += 1
            engine, ticket = lease.engine, lease.ticket
            if ticket.claim is Claim.SLOT:
                running = engine.running
                running.count -= 1
                running.ended += 1
                of_model = running.of_model
                left = of_model[ticket.model] - 1
                if left:
                    of_model[ticket.model] = left
                else:
                    del of_model[ticket.model]
                self._dirty.add(engine)
            elif ticket.claim is Claim.RELAY:
                engine.running.relaying -= 1
                self._dirty.add(engine)

    def retry_after(self) -> int:
        """Return the seconds after which a refused client may come again."""
        return retry_after(self.queue.count, self.demand.serves_per_second)

    def note_served(self, lease: Lease, measured: Measured, now: float) -> None:
        """Learn from an exchange that was answered to its end; call it while the lease is held."""
        if lease.ticket.takes_slot:
            slots.note_served(lease, measured, now)
            engine, ticket = lease.engine, lease.ticket
            if engine.loads_models and ticket.model in engine.known.loaded:
                engine.running.loaded_as.setdefault(ticket.model, ticket.load_options)
            self.estimates.note_served(lease, measured, now)

    def note_busy(self, engine: Engine, now: float) -> None:
        """Learn that an engine says that it is busy: it rests, and is believed to have fewer slots."""
        self.rest(engine, slots.note_busy(engine, now))

    def note_inside(self, lease: Lease, now: float) -> None:
        """Learn that an exchange was found to wait inside its engine; call it while the lease is held."""
        slots.note_inside(lease, now)

    def rest(self, engine: Engine, until: float) -> None:
        """Leave an engine alone for a while; nothing is learned of its slots."""
        running = engine.running
        running.rests_until = max(running.rests_until, until)
        self._agenda.rest(engine)

    def load_finished(self, order: LoadOrder, end: LoadEnd, now: float) -> None:
        """Take note of a load's end."""
        if not self.loads.finish(order, end, now):
            return
        engine, model = order.engine, order.model
        self._dirty.add(engine)
        if end is LoadEnd.DONE:
            self.estimates.note_load(engine, model, max(now - order.ordered_at, 0.0))
        elif end is LoadEnd.FAILED:  # an Ollama lists the model from the beginning of the load, so it is taken off here
            self._fleet.forget_loaded(engine, model)
        else:
            self.note_busy(engine, now)

    def note_listing(self, engine: Engine, now: float) -> None:
        """Learn that an engine was asked which models it has in memory. The fleet knows them already."""
        if self.loads.note_listing(engine, now):
            self._dirty.add(engine)

    def serve(self, now: float) -> Step:
        """Serve the tickets that can be served after what changed, in the order of their keys."""
        leases = self._consider(self._agenda.take(now), now)
        orders, self._load_orders = self._load_orders, []
        return Step(leases, orders, [])

    def step(self, now: float) -> Step:
        """Let time pass: serve the tickets that can be served, then refuse those that have waited too long."""
        self.demand.fold(now)
        self._agenda.review()
        step = self.serve(now)
        seconds = self.retry_after()
        late = self.queue.take_expired(now)
        late += self._survey.take_gone(now)
        for ticket in late:
            step.refused.append((ticket, too_late(ticket, self._fleet.having(ticket.model), now, seconds)))
        return step

    def _consider(self, lanes: dict[Lane, list[Engine] | None], now: float) -> list[Lease]:
        """Serve the first tickets of these lanes, the smallest key first, until no engine can serve any of them.

        `lanes`: each lane with the engines that changed; None: look at all its engines.
        """
        leases: list[Lease] = []
        heads: list[_Head] = [(lane.head().order, place, lane) for place, lane in enumerate(lanes)]
        heads.sort(reverse=True)
        load_looks = LOAD_LOOKS
        while heads:
            _, place, lane = heads.pop()
            ticket = lane.head()
            changed = lanes[lane]
            if lane.shape != self._fleet.shape:
                self._survey.survey(lane, ticket)
            elif changed is not None and not any(could_serve(engine, ticket, now) for engine in changed):
                if not load_looks or not any(could_load(engine, now) for engine in changed):
                    continue
                load_looks -= 1
            freed = _serving(changed, ticket) if changed else ()
            choice = lane.policy.choose(lane, ticket, now, freed) if lane.engines else _WAIT
            if choice.action is Action.SERVE:
                self.queue.served_at[wish_of(lane.key)] = now
                self.queue.remove(ticket)
                leases.append(self._grant(lane, ticket, choice, now))
            else:
                self._note_wait(lane, ticket, choice, now)
            if lane.count and choice.action is not Action.WAIT:
                _insert(heads, (lane.head().order, place, lane))
        return leases

    def _grant(self, lane: Lane, ticket: Ticket, choice: Choice, now: float) -> Lease:
        engine, model = choice.engine, ticket.model
        assert engine is not None
        ticket.declined_since = None
        running = engine.running
        of_model = 1
        if lane.takes_slot:
            running.count += 1
            by_model = running.of_model
            of_model = by_model[model] = by_model.get(model, 0) + 1
            granted, pair = self.demand.granted, (engine, model)
            granted[pair] = granted.get(pair, 0) + 1
        elif ticket.claim is Claim.RELAY:
            running.relaying += 1
        name = lane.policy.name
        return Lease(engine, ticket, choice.reason, now, running.count, of_model, name, choice.compared, running.ended)

    def _note_wait(self, lane: Lane, ticket: Ticket, choice: Choice, now: float) -> None:
        lane.is_declining = choice.declines
        if not choice.declines:
            ticket.declined_since = None
        elif ticket.declined_since is None:
            ticket.declined_since = now
        if choice.action is Action.LOAD:
            engine = choice.engine
            assert engine is not None
            self._load_orders.append(self.loads.begin(engine, ticket, choice.reason, now, choice.unload))
            for model in choice.unload:  # these models are going: no ticket is sent to them any more
                self._fleet.forget_loaded(engine, model)


def _serving(engines: list[Engine], ticket: Ticket) -> list[Engine]:
    return [each for each in engines if each.takes_work and ticket.model in each.known.models and ticket.accepts(each)]


def _insert(heads: list[_Head], head: _Head) -> None:
    """Put a head where it belongs in a list that is sorted from the largest key to the smallest."""
    place = len(heads)
    while place and heads[place - 1] < head:
        place -= 1
    heads.insert(place, head)
