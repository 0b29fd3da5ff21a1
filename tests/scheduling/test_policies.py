"""Which engine serves a ticket that several could serve."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hive.dialects.operations import CHAT
from hive.fleet.engines import Engine, LoadedModel
from hive.scheduling.policies import loaded_then_idle
from hive.scheduling.tickets import Ticket

TICKET = Ticket("m:latest", CHAT, 1.0)


def engine(node: str, running: int = 0, *, loaded: bool = False) -> Engine:
    models = {"m:latest": LoadedModel("m:latest", "", b"{}")} if loaded else {}
    return Engine(node, f"http://{node}", running=running, loaded=models)


def choose(*engines: Engine, seed: int = 0) -> Engine:
    chosen, reason = loaded_then_idle(TICKET, engines, random.Random(seed))
    assert reason
    assert len(reason) < 60
    return chosen


def test_the_only_engine_is_chosen() -> None:
    only = engine("a", 3)
    assert choose(only) is only


def test_an_engine_that_has_the_model_in_memory_comes_first_even_if_it_runs_more() -> None:
    warm, cold = engine("warm", 3, loaded=True), engine("cold", 0)
    assert choose(cold, warm) is warm
    assert choose(warm, cold) is warm


def test_among_those_the_one_that_runs_least() -> None:
    busy, idle = engine("busy", 2, loaded=True), engine("idle", 1, loaded=True)
    assert choose(busy, idle, engine("cold", 0)) is idle
    assert choose(engine("b", 2), engine("c", 1)).node == "c"


def test_another_model_in_memory_does_not_count() -> None:
    other = Engine("other", "http://other", running=2, loaded={"n:latest": LoadedModel("n:latest", "", b"{}")})
    assert choose(other, engine("cold", 1)).node == "cold"


def test_ties_are_broken_at_random_and_all_get_their_share() -> None:
    engines = [engine(name, 1, loaded=True) for name in "abc"]
    chosen = [choose(*engines, seed=seed).node for seed in range(300)]
    assert {name: chosen.count(name) > 60 for name in "abc"} == {"a": True, "b": True, "c": True}


def test_the_same_seed_chooses_the_same() -> None:
    engines = [engine(name) for name in "abcdef"]
    assert [choose(*engines, seed=7) for _ in range(5)] == [choose(*engines, seed=7)] * 5


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=6), st.integers())
@settings(deadline=None, max_examples=100)
def test_no_better_engine_is_passed_over(engines: list[tuple[int, bool]], seed: int) -> None:
    made = [engine(str(place), running, loaded=loaded) for place, (running, loaded) in enumerate(engines)]
    chosen = choose(*made, seed=seed)
    assert chosen in made
    best = min((not each.loaded, each.running) for each in made)
    assert (not chosen.loaded, chosen.running) == best
