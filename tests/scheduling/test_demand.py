"""Rates that are counted, averaged, and fade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.fleet.engines import Engine
from hive.scheduling.demand import LEAST_SPAN, SERVE_SPAN, SPAN, Demand, Rates

from .fleets import Floor

A, B = Engine("a", "http://a"), Engine("b", "http://b")


def folded(*, arrived: int = 0, granted: dict[Engine, int] | None = None, ended: int = 0, after: float = 9.0) -> Demand:
    """Return a demand in which so much was counted in the time after its first fold."""
    demand = Demand()
    demand.fold(100.0)
    demand.arrived["m"] = arrived
    demand.granted.update({(engine, "m"): count for engine, count in (granted or {}).items()})
    demand.ended = ended
    demand.fold(100.0 + after)
    return demand


def test_what_was_never_counted_is_nothing() -> None:
    demand = Demand()
    demand.fold(1.0)
    assert (demand.of_model("m"), demand.of_engine(A), demand.share_of(A), demand.of_pair(A, "m")) == (0, 0, 0, 0)


def test_a_steady_rate_becomes_the_average() -> None:
    demand = Demand()
    now = 0.0
    demand.fold(now)
    while now < 6 * SPAN:
        now += 10.0
        demand.arrived["m"] = 20
        demand.fold(now)
    assert demand.of_model("m") == pytest.approx(2.0, rel=0.01)


def test_a_count_is_taken_once() -> None:
    demand = folded(arrived=90)
    before = demand.of_model("m")
    assert before == pytest.approx(90 / SPAN)
    demand.fold(200.0)
    assert demand.of_model("m") < before


def test_leases_count_for_engine_pair_and_share() -> None:
    demand = folded(granted={A: 3, B: 1})
    assert demand.share_of(A) == pytest.approx(0.75)
    assert demand.of_pair(A, "m") == pytest.approx(demand.of_engine(A)) == pytest.approx(3 / SPAN)


def test_a_rate_over_next_to_no_time_is_not_made() -> None:
    demand = folded(arrived=5, after=LEAST_SPAN / 2)
    assert demand.of_model("m") == 0
    assert demand.arrived == {"m": 5}, "it is kept for the next fold"


def test_what_is_served_is_averaged_over_seconds() -> None:
    assert folded(ended=int(SERVE_SPAN) * 3, after=SERVE_SPAN).serves_per_second == pytest.approx(3.0)
    demand = folded(ended=30, after=SERVE_SPAN / 2)
    assert demand.serves_per_second == pytest.approx(30 / (SERVE_SPAN / 2) / 2)
    demand.fold(1_000.0)
    assert demand.serves_per_second == 0.0, "an end is counted once"


def test_a_pause_longer_than_the_span_forgets_everything_before() -> None:
    demand = folded(arrived=1_000)
    demand.fold(100.0 + 2 * SPAN)
    assert demand.of_model("m") == 0


def test_averages_fall_by_the_share_however_often_it_is() -> None:
    rates = Rates[str]()
    rates.add("a", 8.0)
    for _ in range(3):
        rates.fade(0.5)
    assert rates.of("a") == pytest.approx(1.0)
    rates.add("a", 1.0)
    assert rates.of("a") == pytest.approx(2.0)


def test_what_is_next_to_nothing_is_forgotten() -> None:
    rates = Rates[str]()
    rates.add("small", 1e-4)
    rates.add("large", 1.0)
    for _ in range(5):
        rates.fade(0.3)
    assert (len(rates), rates.of("small")) == (1, 0.0)


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
