"""An operator drains a node and lets it serve again."""

from __future__ import annotations

import pytest

from hive.errors import NOT_FOUND, Fault
from hive.fleet.engines import Engine, Fleet, Health
from hive.hub.event_log import EventLog
from hive.hub.health_watch import HealthWatch
from hive.hub.node_cases import NodeCases


class House:
    """Two ready nodes, of which one has two engines."""

    def __init__(self) -> None:
        self.served = 0
        self.engines = [Engine("a", "http://a", id="1"), Engine("a", "http://a", id="2"), Engine("b", "http://b")]
        self.events = EventLog()
        self.fleet = Fleet()
        self.health = HealthWatch(self.fleet, lambda: 1.0, self.events, lambda _: None)
        for engine in self.engines:
            self.fleet.add(engine)
            self.health.watch(engine)
            self.health.note_answer(engine)
        self.cases = NodeCases(self.fleet, self.health, self.events, lambda _: None, self.serve)

    def serve(self) -> None:
        self.served += 1

    def states(self) -> list[Health]:
        return [engine.health for engine in self.engines]


def test_a_drained_node_gets_no_work_on_any_engine_until_it_resumes() -> None:
    house = House()
    house.cases.drain("a", True)
    assert house.states() == [Health.DRAINING, Health.DRAINING, Health.READY]
    assert (house.cases.is_drained("a"), house.cases.is_drained("b")) == (True, False)
    house.cases.drain("a", False)
    assert house.states() == [Health.READY] * 3
    assert not house.cases.is_drained("a")


def test_tickets_that_wait_are_served_after_each_change() -> None:
    house = House()
    house.cases.drain("a", True)
    house.cases.drain("a", False)
    assert house.served == 2


def test_a_node_that_is_not_there_is_named_and_not_remembered() -> None:
    house = House()
    with pytest.raises(Fault, match="'nope'") as caught:
        house.cases.drain("nope", True)
    assert caught.value.kind is NOT_FOUND
    assert not house.cases.is_drained("nope")
