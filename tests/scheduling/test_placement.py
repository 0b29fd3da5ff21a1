"""Where `best` has a model loaded: what a load costs the ticket, and what it costs all others."""

from __future__ import annotations

import random

from hive.fleet.engines import Engine
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.loads import Loads
from hive.scheduling.placement import MOST_WEIGHED, Place, Placement
from hive.scheduling.policies import Situation
from hive.scheduling.ticket_queue import TicketQueue

from .fleets import GB, Floor


class Yard:
    """Engines without the model, and what weighs them."""

    def __init__(self) -> None:
        self.floor = Floor()
        queue = TicketQueue(10)
        estimates, loads = Estimates(self.floor.fleet), Loads(queue)
        self.placement = Placement(Situation(self.floor.fleet, queue, loads, estimates, Demand(), random.Random(1)))

    def cheapest(self, *cold: tuple[Engine, float], now: float = 100.0) -> Place:
        ticket = self.floor.ticket("m")
        ticket.since = now
        return self.placement.cheapest(ticket, now, list(cold))


def test_the_engine_with_the_soonest_first_byte_is_chosen() -> None:
    yard = Yard()
    slow, fast = yard.floor.add("a", "m"), yard.floor.add("b", "m")
    assert yard.cheapest((slow, 60.0), (fast, 1.0)).engine is fast


def test_a_load_on_an_engine_that_holds_a_model_counts_more_than_on_an_empty_one() -> None:
    yard = Yard()
    full, empty = yard.floor.add("a", "mn", loaded="n"), yard.floor.add("b", "mn")
    full_place, empty_place = yard.cheapest((full, 1.0)), yard.cheapest((empty, 1.0))
    assert empty_place.engine is empty
    assert full_place.counts >= empty_place.counts


def test_a_larger_model_counts_more() -> None:
    yard = Yard()
    small, large = yard.floor.add("a", "m", size=GB), yard.floor.add("b", "m", size=40 * GB)
    assert yard.cheapest((small, 1.0)).counts < yard.cheapest((large, 1.0)).counts


def test_an_engine_that_loads_or_rests_is_no_place() -> None:
    yard = Yard()
    loads, rests = yard.floor.add("a", "m"), yard.floor.add("b", "m")
    loads.running.loading = "n"
    rests.running.rests_until = 200.0
    assert yard.cheapest((loads, 1.0), (rests, 1.0)).engine is None
    assert yard.cheapest((loads, 1.0), (rests, 1.0), now=300.0).engine is rests


def test_without_any_engine_there_is_no_place() -> None:
    assert Yard().cheapest() == Place()


def test_of_many_engines_the_most_promising_are_weighed() -> None:
    yard = Yard()
    engines = [yard.floor.add(f"n{number}", "m") for number in range(MOST_WEIGHED * 4)]
    best = engines[17]
    place = yard.cheapest(*((engine, 1.0 if engine is best else 500.0) for engine in engines))
    assert place.engine is best
