"""Chooses the engine that loads a model for `best`: weighs the load's seconds, and what all other requests lose.

Where enough is known of an engine's memory, the models that are missed least are unloaded first, and the exchanges on
the engine run on. Where too little is known, the engine gets no exchange while it evicts the models that it chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest

from hive.fleet.engines import Engine
from hive.scheduling.loads import AGEING
from hive.scheduling.policies import Situation
from hive.scheduling.tickets import Ticket

TIE = 1.05
"""Estimates so close are equal."""
MOST_WEIGHED = 8
"""At most this many engines are weighed for a load."""
STRANGERS = 2
"""This many of the weighed engines are drawn at random."""
BUSY_COUNTS = 10.0
"""At a glance, an engine with an exchange or a load counts as this many seconds slower."""
_NEVER = float("inf")


@dataclass(slots=True)
class Place:
    """Where to load a model. It has no engine if it is better to wait, or if no engine may load the model now."""

    counts: float = _NEVER
    """Expected seconds to the first byte, and each waiting ticket's share of what the load costs others."""
    engine: Engine | None = None
    unload: tuple[str, ...] = ()


class Placement:
    """Weighs loads."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation

    def cheapest(self, ticket: Ticket, now: float, cold: list[tuple[Engine, float]]) -> Place:
        """Return the best place among engines without the model; each comes with its seconds to the first byte."""
        situation, model = self._situation, ticket.model
        waiting = situation.queue.waiting_of.get(model, 0) + (0 if ticket.mark else 1)
        left = max(AGEING - (now - ticket.since), 0.0)
        if len(cold) > MOST_WEIGHED:
            cold = self._worth_weighing(cold, model)
        places: list[Place] = []
        later = _NEVER
        for engine, seconds in cold:
            if not engine.running.loading and engine.running.rests_until <= now:
                place = self._weigh(engine, ticket, waiting, now)
                place.counts += seconds
                if place.engine is None:
                    later = min(later, left + place.counts)
                else:
                    places.append(place)
        least = min((place.counts for place in places), default=_NEVER)
        if later < least:
            return Place(later)
        ties = [place for place in places if place.counts <= least * TIE]
        return situation.rng.choice(ties) if ties else Place()

    def _worth_weighing(self, cold: list[tuple[Engine, float]], model: str) -> list[tuple[Engine, float]]:
        """Return the most promising engines at a glance, and a few others: the rest would cost more than it brings."""
        situation = self._situation
        load = situation.estimates.load

        def at_a_glance(pair: tuple[Engine, float]) -> float:
            engine, seconds = pair
            return (
                seconds + load(engine, model) + (BUSY_COUNTS if engine.running.count or engine.running.loading else 0.0)
            )

        chosen = nsmallest(MOST_WEIGHED - STRANGERS, cold, key=at_a_glance)
        return chosen + situation.rng.sample(cold, STRANGERS)

    def _weigh(self, engine: Engine, ticket: Ticket, waiting: int, now: float) -> Place:
        """Return what a load on this engine counts; the place has no engine if the load may not begin yet."""
        situation, model = self._situation, ticket.model
        loads, demand = situation.loads, situation.demand
        if loads.has_failed(engine, ticket, now):
            return Place()
        seconds = situation.estimates.load(engine, model)
        unload = loads.room_for(engine, model, lambda each: self._loss(engine, each))
        if unload is not None and model not in engine.running.of_model:
            return Place(seconds + sum(self._loss(engine, each) for each in unload) / waiting, engine, unload)
        if engine.running.count:
            seconds += situation.estimates.service_of(engine, model)
        lost = situation.queue.count * demand.share_of(engine) * seconds  # every waiting ticket waits longer
        lost += demand.of_engine(engine) * seconds * seconds / 2  # and so do the tickets that come meanwhile
        evicted = [self._loss(engine, each) for each in engine.known.loaded if each != model]
        if evicted:
            lost += sum(evicted) / len(evicted)
        return Place(seconds + lost / waiting, engine if loads.may_load(engine, ticket, now) else None)

    def _loss(self, engine: Engine, model: str) -> float:
        """Return by how many seconds in all the coming tickets for a model wait longer when an engine loses it."""
        situation = self._situation
        missed = situation.loads.waited.value + situation.estimates.load(engine, model)
        is_last = situation.fleet.copies.get(model, 0) <= 1
        asked = situation.demand.of_model(model) if is_last else situation.demand.of_pair(engine, model)
        return asked * missed * missed / 2
