"""Which engine serves a ticket that several could serve."""

from __future__ import annotations

from collections import Counter

import pytest

from hive.config import PolicyName
from hive.fleet.engines import Engine

from .fleets import Floor


def chosen(floor: Floor, times: int, model: str = "m", now: float = 0.0) -> Counter[str]:
    """Return the nodes that serve so many tickets, each time from the same state."""
    nodes: Counter[str] = Counter()
    for _ in range(times):
        _, lease = floor.ask(model, now=now)
        assert lease is not None
        assert lease.reason
        assert len(lease.reason) < 60
        nodes[lease.engine.node] += 1
        floor.dispatcher.release(lease)
    return nodes


def busy(floor: Floor, engine: Engine, running: int = 1) -> None:
    engine.running.count, engine.running.of_model = running, {"m": running}


@pytest.mark.parametrize("policy", PolicyName)
def test_the_only_engine_is_chosen(policy: str) -> None:
    floor = Floor(policy=policy)
    floor.add("a", loaded="m", slots=4)
    assert chosen(floor, 3) == {"a": 3}


@pytest.mark.parametrize("policy", PolicyName)
def test_equal_engines_all_get_their_share(policy: str) -> None:
    floor = Floor(policy=policy)
    for node in "abc":
        floor.add(node, loaded="m", slots=4)
    assert all(count > 60 for count in chosen(floor, 300).values())


@pytest.mark.parametrize("policy", PolicyName)
def test_the_same_seed_makes_the_same_choices(policy: str) -> None:
    def run() -> list[str]:
        floor = Floor(policy=policy, seed=7)
        for node in "abcdef":
            floor.add(node, loaded="m", slots=4)
        return list(chosen(floor, 20).elements())

    assert run() == run()


@pytest.mark.parametrize("policy", PolicyName)
def test_of_many_engines_the_only_free_one_is_found(policy: str) -> None:
    floor = Floor(policy=policy)
    engines = [floor.add(str(number), loaded="m") for number in range(500)]
    for engine in engines[:321] + engines[322:]:
        busy(floor, engine)
    assert chosen(floor, 3) == {"321": 3}


@pytest.mark.parametrize("policy", PolicyName)
def test_of_many_engines_the_only_one_with_the_model_in_memory_is_found(policy: str) -> None:
    floor = Floor(policy=policy)
    engines = [floor.add(str(number), slots=2) for number in range(500)]
    floor.load(engines[321], "m")
    if policy == "best":
        assert chosen(floor, 3) == {"321": 3}


def test_round_robin_chooses_each_engine_in_turn() -> None:
    floor = Floor(policy="round_robin")
    for node in "abc":
        floor.add(node, loaded="m", slots=4)
    nodes = [next(iter(chosen(floor, 1))) for _ in range(9)]
    assert nodes[:3] == nodes[3:6] == nodes[6:]
    assert set(nodes[:3]) == set("abc")


def test_least_busy_chooses_the_engine_with_the_smallest_share_of_slots_taken() -> None:
    floor = Floor(policy="least_busy")
    small, large = floor.add("a", loaded="m", slots=2), floor.add("b", loaded="m", slots=10)
    busy(floor, small)
    busy(floor, large, 4)
    assert chosen(floor, 5) == {"b": 5}
    busy(floor, large, 6)
    assert chosen(floor, 5) == {"a": 5}


@pytest.mark.parametrize("policy", ["round_robin", "random", "least_busy"])
def test_simple_policies_ignore_memory_and_order_no_more_loads_than_tickets(policy: str) -> None:
    floor = Floor(policy=policy)
    for node in "abc":
        floor.add(node)
    floor.ask()
    assert len(floor.dispatcher.serve(0.0).loads) == 1
    for now in range(1, 9):
        assert floor.dispatcher.step(float(now)).loads == []
