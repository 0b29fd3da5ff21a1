"""Means and curves that follow measurements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.pace import BANDS, Curve, Mean, band, crowd_factor


def test_a_mean_is_of_all_measurements_while_few_and_of_the_newest_later() -> None:
    mean = Mean()
    for value in (1.0, 2.0, 3.0):
        mean.add(value)
    assert mean.value == pytest.approx(2.0)
    for _ in range(40):
        mean.add(9.0)
    assert mean.value == pytest.approx(9.0, abs=0.01)


@pytest.mark.parametrize(("running", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (500, 4)])
def test_bands_double(running: int, expected: int) -> None:
    assert band(running) == expected


def test_bands_without_a_measurement_follow_their_neighbour() -> None:
    curve = Curve()
    curve.add(1, 0.1)
    assert curve.seconds[3] == pytest.approx(0.1 * crowd_factor(3))
    curve.add(4, 2.0)
    assert curve.seconds[1] == pytest.approx(0.1)
    assert curve.seconds[3] == pytest.approx(2.0 * crowd_factor(3) / crowd_factor(4))


@given(st.lists(st.tuples(st.integers(1, BANDS - 1), st.floats(0.001, 10)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=100)
def test_a_curve_stays_within_the_measurements_and_their_growth(steps: list[tuple[int, float]]) -> None:
    curve = Curve()
    for of_band, seconds in steps:
        curve.add(of_band, seconds)
    least, most = min(seconds for _, seconds in steps), max(seconds for _, seconds in steps)
    growth = crowd_factor(BANDS - 1)
    assert all(least / growth * 0.999 <= each <= most * growth * 1.001 for each in curve.seconds)
