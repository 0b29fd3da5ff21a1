"""Demand is counted, averaged and forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.scheduling.demand import LEAST_SPAN, SPAN, Demand

from .fleets import Floor


def test_demand_is_counted_and_averaged_and_forgotten() -> None:
    floor = Floor()
    engine = floor.add("a")
    demand = Demand()
    demand.fold(0.0)
    for second in range(1, 2_000):
        demand.arrived["m"] = 2
        demand.granted[engine, "m"] = 1
        demand.ended += 3
        demand.fold(float(second))
    assert demand.of_model("m") == pytest.approx(2.0, rel=0.2)
    assert demand.of_pair(engine, "m") == demand.of_engine(engine) == pytest.approx(1.0, rel=0.2)
    assert (demand.share_of(engine), demand.serves_per_second) == (pytest.approx(1.0), pytest.approx(3.0))
    for second in range(2_000, 20_000):
        demand.fold(float(second))
    assert (demand.of_model("m"), demand.share_of(engine)) == (0.0, 0.0)
    assert (len(demand._models), len(demand._engines), len(demand._pairs)) == (0, 0, 0)
    demand.arrived["m"] = 900
    demand.fold(20_000.0)
    assert demand.of_model("m") == pytest.approx(1.0, rel=0.01), "it is counted as ever after that"


@given(st.lists(st.tuples(st.floats(0.05, 2_000.0), st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_demand_is_an_average_that_follows_the_counts(steps: list[tuple[float, int, int]]) -> None:
    demand, now, expected = Demand(), 0.0, {"m": 0.0, "n": 0.0}
    demand.fold(now)
    for elapsed, of_m, of_n in steps:
        before, now = now, now + elapsed
        demand.arrived.update(m=of_m, n=of_n)
        demand.fold(now)
        if now - before < LEAST_SPAN:
            return
        for model, count in (("m", of_m), ("n", of_n)):
            rate = expected[model]
            expected[model] = rate + (count / (now - before) - rate) * min(1.0, (now - before) / SPAN)
    for model, rate in expected.items():
        assert demand.of_model(model) == pytest.approx(rate, rel=1e-6, abs=2e-4)


def test_a_clock_that_stands_or_runs_back_changes_no_demand() -> None:
    demand = Demand()
    for now in (5.0, 5.0, 4.0):
        demand.arrived["m"] = 1
        demand.fold(now)
    assert demand.of_model("m") == 0.0


def test_there_is_no_rate_over_no_time() -> None:
    demand = Demand()
    for now in (0.0, 2.2e-313, 1e-9):
        demand.ended += 1
        demand.arrived["m"] = 1
        demand.fold(now)
    assert (demand.serves_per_second, demand.of_model("m"), demand.ended) == (0.0, 0.0, 3)
