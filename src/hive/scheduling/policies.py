"""Choosing an engine for a ticket: what all policies share, and the simple policies (`Turns`, `AnyEngine`)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from hive.fleet.engines import MOST_RELAYED, Engine, Fleet
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.lanes import Action, Choice, Lane
from hive.scheduling.loads import Loads
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Claim, Ticket

MANY_ENGINES = 32
"""If there are more engines than this, only a sample is weighed, so that a decision takes no longer."""
ENOUGH_WARM = 8
"""A sample holds at least this many engines that have the model in memory, if there are as many."""
_ANY = 1 << 30
ONLY_CHOICE = "only choice"
"""The reason for an engine when no other engine lists the model."""
ONLY_ONE_IN_SERVICE = "the only one in service"
ONLY_ONE_FREE = "the only one free now"
_REASONS = {"round_robin": "its turn", "random": "drawn at random", "least_busy": "the least busy"}


@dataclass(slots=True)
class Situation:
    """All that policies may look at."""

    fleet: Fleet
    queue: TicketQueue
    loads: Loads
    estimates: Estimates
    demand: Demand
    rng: random.Random


def why_only(having: Sequence[Engine]) -> str:
    """Return why only one engine of a lane is in service; `having` are the engines that list its model."""
    return ONLY_CHOICE if len(having) == 1 else ONLY_ONE_IN_SERVICE


def only_one(lane: Lane) -> str:
    """Return why only one engine of a lane could be chosen."""
    return lane.only if len(lane.engines) == 1 else ONLY_ONE_FREE


def is_open(engine: Engine, model: str, now: float) -> bool:
    """Could the engine begin one more exchange with a model that it has in memory?"""
    running = engine.running
    return (
        running.count < engine.limit
        and running.rests_until <= now
        and running.of_model.get(model, 0) < engine.model_slots
    )


def may_begin(engine: Engine, ticket: Ticket, now: float) -> bool:
    """Could this engine begin with a ticket that takes no slot?"""
    return engine.running.rests_until <= now and not (
        ticket.claim is Claim.RELAY and engine.running.relaying >= MOST_RELAYED
    )


def could_serve(engine: Engine, ticket: Ticket, now: float) -> bool:
    """Could this engine begin with the ticket now, without a load?"""
    if not ticket.takes_slot:
        return may_begin(engine, ticket, now)
    return engine.is_warm(ticket.model, ticket.load_options) and is_open(engine, ticket.model, now)


def could_load(engine: Engine, now: float) -> bool:
    """Is this engine idle, so that it may load a model?"""
    running = engine.running
    return engine.loads_models and not running.count and not running.loading and running.rests_until <= now


def sample(engines: list[Engine], model: str, now: float, rng: random.Random, freed: Sequence[Engine]) -> list[Engine]:
    """Return some engines out of many: some drawn at random, those in `freed`, some that have the model in memory."""
    count = len(engines)
    start, stride = rng.randrange(count), rng.randrange(1, count)
    taken = dict.fromkeys([engines[(start + place * stride) % count] for place in range(MANY_ENGINES)])
    taken.update(dict.fromkeys(freed))
    has_open, warm = False, 0
    for engine in taken:
        if model in engine.known.warm:
            warm += 1
            if is_open(engine, model, now):
                has_open = True
    if not has_open or warm < ENOUGH_WARM:
        for engine in engines[start:] + engines[:start]:
            if model in engine.known.warm and engine.running.count < (engine.limit if warm >= ENOUGH_WARM else _ANY):
                taken[engine] = None
                warm += 1
                has_open = has_open or is_open(engine, model, now)
                if has_open and warm >= ENOUGH_WARM:
                    break
    return list(taken)


class AnyEngine:
    """Chooses for tickets that take no slot: any engine that does not rest. `name` is the policy of their frontend."""

    def __init__(self, name: str, situation: Situation) -> None:
        self.name = name
        self._situation = situation

    def choose(self, lane: Lane, ticket: Ticket, now: float, freed: Sequence[Engine] = ()) -> Choice:
        """Return an engine drawn at random; for an unload, one that has the model in memory where there is one."""
        rested = [engine for engine in lane.engines if may_begin(engine, ticket, now)]
        if ticket.claim is Claim.UNLOAD:
            rested = [engine for engine in rested if ticket.model in engine.known.warm] or rested
        if not rested:
            return Choice(Action.WAIT)
        return Choice(Action.SERVE, self._situation.rng.choice(rested), "needs no slot")


class Turns:
    """Compares the engines that could serve now by one number each; the smallest is chosen, ties at random.

    It does not ask whether an engine has the model in memory: an engine that has not, loads it.
    """

    def __init__(self, name: str, situation: Situation) -> None:
        self.name = name
        self._situation = situation
        self._turns: dict[Engine, int] = {}
        self._last = 0
        self._weigh = {"random": _nothing, "least_busy": _busyness, "round_robin": self._last_turn}[name]

    def choose(self, lane: Lane, ticket: Ticket, now: float, freed: Sequence[Engine] = ()) -> Choice:
        """Return the engine whose turn it is."""
        situation, model = self._situation, ticket.model
        engines = lane.engines
        if len(engines) > MANY_ENGINES:
            engines = sample(engines, model, now, situation.rng, freed)
        others_waiting = situation.queue.waiting_of.get(model, 0) - bool(ticket.mark)
        loads = situation.loads
        may_load = loads.count_of.get(model, 0) <= others_waiting or loads.is_starved(ticket, now)
        compared: list[tuple[Engine, float]] = []
        for engine in engines:
            if engine.is_warm(model, ticket.load_options):
                if is_open(engine, model, now):
                    compared.append((engine, self._weigh(engine)))
            elif may_load and loads.may_load_blindly(engine, ticket, now):
                compared.append((engine, self._weigh(engine)))
        if not compared:
            return last_resort(situation, lane, ticket, now)
        least = min(weight for _, weight in compared)
        chosen = situation.rng.choice([engine for engine, weight in compared if weight == least])
        self._last += 1
        self._turns[chosen] = self._last
        action = Action.SERVE if chosen.is_warm(model, ticket.load_options) else Action.LOAD
        reason = _REASONS[self.name] if len(compared) > 1 else only_one(lane)
        return Choice(action, chosen, reason, compared)

    def _last_turn(self, engine: Engine) -> float:
        return self._turns.get(engine, 0)


def _nothing(engine: Engine) -> float:
    return 0.0


def _busyness(engine: Engine) -> float:
    return engine.running.count / max(engine.slots, 1)


def last_resort(situation: Situation, lane: Lane, ticket: Ticket, now: float) -> Choice:
    """Return a choice for a ticket that no engine can serve: one that just failed to load the model may say why."""
    loads, model = situation.loads, ticket.model
    if model in loads.count_of:
        return Choice(Action.WAIT)
    if not all(loads.has_failed(engine, ticket, now) for engine in lane.engines if engine.loads_models):
        return Choice(Action.WAIT)
    for engine in lane.engines:
        if engine.loads_models and not engine.is_warm(model, ticket.load_options) and is_open(engine, model, now):
            return Choice(Action.SERVE, engine, "its load failed: the engine says why")
    return Choice(Action.WAIT)
