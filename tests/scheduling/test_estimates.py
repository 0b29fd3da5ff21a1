"""What is expected of engines, from measurements: their own, else the fleet's."""

from __future__ import annotations

import pytest

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine
from hive.fleet.pace import FIXED_TOKENS
from hive.scheduling.estimates import LOAD_OVERHEAD, USUAL_PROMPT
from hive.scheduling.tickets import Lease

from .fleets import GB, Floor


def test_the_first_byte_is_expected_as_it_was_measured() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    floor.teach(engine, seconds=0.5)
    engine.known.round_trip = 0.1
    estimates = floor.dispatcher.estimates
    assert estimates.first_byte(engine, "m", 200 + FIXED_TOKENS, 1) == pytest.approx(0.6)
    assert estimates.first_byte(engine, "m", 400 + 2 * FIXED_TOKENS, 1) == pytest.approx(1.1)
    assert estimates.first_byte(engine, "m", 200 + FIXED_TOKENS, 4) > 1.0


def test_an_engine_without_figures_is_measured_by_the_hub_but_not_during_a_load() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    estimates = floor.dispatcher.estimates
    lease = Lease(engine, floor.ticket(prompt_tokens=200), "")
    estimates.note_served(lease, Measured(first_byte=9.0, load_seconds=8.0), 10.0)
    assert not engine.learned.paces["m"].prompt.count
    estimates.note_served(lease, Measured(first_byte=0.5), 10.0)
    assert estimates.first_byte(engine, "m", 250, 1) == pytest.approx(0.5)


def test_an_unknown_engine_counts_as_the_middle_of_the_fleet() -> None:
    floor = Floor()
    for node, seconds in (("a", 0.1), ("b", 0.4), ("c", 1.6)):
        floor.teach(floor.add(node, loaded="m"), seconds=seconds)
    fresh = floor.add("d", loaded="m")
    assert floor.dispatcher.estimates.first_byte(fresh, "m", 250, 1) == pytest.approx(0.4)


def test_an_engine_that_is_slow_elsewhere_is_expected_to_be_slow_here() -> None:
    floor = Floor()
    fast, slow = floor.add("a", "mn", loaded="mn"), floor.add("b", "mn", loaded="mn")
    third = floor.add("c", "mn", loaded="mn")
    for _ in range(6):
        for engine, seconds in ((fast, 0.1), (slow, 0.8), (third, 0.1)):
            floor.teach(engine, "m", seconds=seconds)
    floor.teach(fast, "n", seconds=0.2)
    estimates = floor.dispatcher.estimates
    expected = estimates.first_byte(slow, "n", 250, 1) / estimates.first_byte(fast, "n", 250, 1)
    assert 4.0 < expected < 9.0


def test_without_any_measurement_the_estimate_follows_the_size() -> None:
    floor = Floor()
    small, large = floor.add("a", size=GB), floor.add("b", "n", size=50 * GB)
    estimates = floor.dispatcher.estimates
    assert estimates.first_byte(small, "m", 250, 1) == pytest.approx(USUAL_PROMPT * 250 / 5)
    assert estimates.first_byte(large, "n", 250, 1) > 10 * estimates.first_byte(small, "m", 250, 1)
    assert estimates.load(large, "n") > estimates.load(small, "m") > LOAD_OVERHEAD


def test_a_load_is_expected_to_last_as_long_as_before_or_as_its_size_says() -> None:
    floor = Floor()
    engine, other = floor.add("a", "mn", size=10 * GB), floor.add("b", "mn", size=10 * GB)
    estimates = floor.dispatcher.estimates
    estimates.note_load(engine, "m", 21.0)
    assert estimates.load(engine, "m") == pytest.approx(21.0)
    assert estimates.load(engine, "n") == pytest.approx(21.0)
    assert estimates.load(other, "n") == pytest.approx(21.0)
    estimates.note_load(other, "m", 6.0)
    assert estimates.load(other, "n") == pytest.approx(6.0)


def test_service_is_measured_else_worked_out_from_the_pace_of_decoding() -> None:
    floor = Floor()
    known, fresh = floor.add("a", loaded="m"), floor.add("b", loaded="m")
    estimates = floor.dispatcher.estimates
    assert estimates.service_of(fresh, "m") == pytest.approx(250 * 0.03)
    floor.teach(known, service=3.0)
    assert estimates.service_of(known, "m") == pytest.approx(3.0)
    assert estimates.service_of(fresh, "m") == pytest.approx(1.0), "100 tokens at 10 ms"


def whole(floor: Floor, engine: Engine, seconds: float, *, prompt: int | None = 200, output: int = 100) -> None:
    """Have an engine answer in one piece, telling no more than the counts of tokens."""
    lease = Lease(engine, floor.ticket("m"), "", granted_at=0.0)
    measured = Measured(prompt_tokens=prompt, output_tokens=output, whole_seconds=seconds)
    floor.dispatcher.estimates.note_served(lease, measured, seconds)


def test_answers_in_one_piece_tell_which_engine_is_faster() -> None:
    floor = Floor()
    fast, slow = floor.add("fast"), floor.add("slow")
    for _ in range(5):
        whole(floor, fast, 1.0)
        whole(floor, slow, 4.0)
    first_byte = floor.dispatcher.estimates.first_byte
    assert first_byte(slow, "m", 250, 1) == pytest.approx(4 * first_byte(fast, "m", 250, 1))
    assert first_byte(fast, "m", 250, 1) == pytest.approx(0.5 / (0.5 + 3.0)), "as prompts and answers usually share"
    assert slow.learned.paces["m"].is_rough


def test_an_answer_without_counts_tells_only_its_time() -> None:
    floor = Floor()
    engine = floor.add("a")
    whole(floor, engine, 1.0, prompt=None)
    assert (engine.learned.paces["m"].prompt.count, engine.learned.service.value) == (0, 1.0)


def test_rough_figures_are_forgotten_when_a_measurement_comes() -> None:
    floor = Floor()
    engine = floor.add("a")
    whole(floor, engine, 100.0)
    floor.teach(engine, seconds=0.1)
    measured = engine.learned.paces["m"].prompt.seconds[1]
    assert measured == pytest.approx(0.1 / 250)
    whole(floor, engine, 100.0)
    assert engine.learned.paces["m"].prompt.seconds[1] == measured
