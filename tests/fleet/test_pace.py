"""Means that follow what changes: of few measurements, of many, and of bands that were never measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.pace import BANDS, Curve, Mean, Pace, band, crowd_factor


@pytest.mark.parametrize(
    ("running", "expected"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 4), (1000, 4)]
)
def test_a_band_is_twice_as_wide_as_the_one_below_and_the_last_has_no_end(running: int, expected: int) -> None:
    assert band(running) == expected < BANDS


def test_a_mean_of_few_measurements_is_the_mean_of_all() -> None:
    mean = Mean()
    for value in (1.0, 2.0, 6.0):
        mean.add(value)
    assert (mean.value, mean.count) == (pytest.approx(3.0), 3)


def test_a_mean_of_many_follows_the_newest() -> None:
    mean = Mean()
    for _ in range(1000):
        mean.add(1.0)
    mean.add(6.0)
    assert mean.value == pytest.approx(2.0)


def test_one_more_beside_it_makes_each_exchange_slower() -> None:
    factors = [crowd_factor(each) for each in range(1, BANDS)]
    assert factors[0] == 1.0
    assert factors == sorted(set(factors))


def test_a_curve_without_a_measurement_is_zero_everywhere() -> None:
    assert Curve().seconds == [0.0] * BANDS


def test_bands_without_a_measurement_follow_the_one_that_has_some() -> None:
    curve = Curve()
    curve.add(1, 2.0)
    assert curve.seconds == pytest.approx([2.0 * crowd_factor(each) for each in range(BANDS)])


def test_a_measured_band_keeps_its_own_mean_and_the_nearest_one_is_followed() -> None:
    curve = Curve()
    curve.add(0, 1.0)
    curve.add(4, 100.0)
    assert (curve.seconds[0], curve.seconds[4]) == (pytest.approx(1.0), pytest.approx(100.0))
    assert curve.seconds[3] == pytest.approx(100.0 * crowd_factor(3) / crowd_factor(4))


def test_neighbours_of_a_band_with_many_measurements_follow_now_and_then() -> None:
    curve = Curve()
    for _ in range(8):
        curve.add(1, 1.0)
    curve.add(1, 6.0)
    assert curve.seconds[1] == pytest.approx(2.0)
    assert curve.seconds[2] == pytest.approx(crowd_factor(2))
    for _ in range(7):
        curve.add(1, 2.0)
    assert curve.seconds[2] == pytest.approx(2.0 * crowd_factor(2))


def test_the_slowest_measurement_fades() -> None:
    pace = Pace()
    pace.note_slowest(10.0)
    pace.note_slowest(1.0)
    assert 9.0 < pace.slowest < 10.0
    for _ in range(1000):
        pace.note_slowest(1.0)
    assert pace.slowest == pytest.approx(1.0)


def test_a_slower_measurement_counts_at_once() -> None:
    pace = Pace()
    pace.note_slowest(1.0)
    pace.note_slowest(10.0)
    assert pace.slowest == 10.0


def test_a_rough_measurement_may_follow_rough_ones_only() -> None:
    pace = Pace()
    assert pace.may_be_rough
    pace.is_rough = True
    pace.prompt.add(1, 5.0)
    assert pace.may_be_rough
    pace.forget_rough()
    assert pace.prompt.count == 0
    pace.prompt.add(1, 1.0)
    assert not pace.may_be_rough


@given(st.lists(st.tuples(st.integers(1, BANDS - 1), st.floats(0.001, 10)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=100)
def test_a_curve_stays_within_the_measurements_and_their_growth(steps: list[tuple[int, float]]) -> None:
    curve = Curve()
    for of_band, seconds in steps:
        curve.add(of_band, seconds)
    least, most = min(seconds for _, seconds in steps), max(seconds for _, seconds in steps)
    growth = crowd_factor(BANDS - 1)
    assert all(least / growth * 0.999 <= each <= most * growth * 1.001 for each in curve.seconds)
