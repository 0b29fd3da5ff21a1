"""What is believed of an engine's slots, and how it is learned."""

from __future__ import annotations

import pytest

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.scheduling.slots import BUSY_REST, INSIDE_PAUSE, RAISE_PAUSE, note_busy, note_inside, note_served
from hive.scheduling.tickets import Lease

from .fleets import Floor, report

SMOOTH = Measured(prompt_seconds=0.1, decode_seconds=1.0, load_seconds=0.0, total_seconds=1.1)
WAITED = Measured(prompt_seconds=0.1, decode_seconds=1.0, load_seconds=0.0, total_seconds=4.0)
UNTOLD = Measured(first_byte=0.1)


def engine(slots: int | None = None, kind: EngineKind = EngineKind.OLLAMA, version: str = "0.33.0") -> Engine:
    made = Engine("a", "http://a", configured_slots=slots, health=Health.READY)
    Fleet([made]).learn(made, report("m", "n", loaded=("m",), kind=kind, version=version))
    return made


def serve(on: Engine, measured: Measured, now: float, running: int | None = None) -> None:
    """An exchange ends well that was one of so many."""
    on.running.count = running or on.slots
    on.running.of_model = {"m": on.running.count}
    lease = Lease(on, Floor().ticket("m"), "", running=on.running.count, of_model=on.running.count)
    note_served(lease, measured, now)
    on.running.count, on.running.of_model = 0, {}


@pytest.mark.parametrize(
    ("version", "slots", "most"),
    [("0.33.0", 1, 4), ("0.10.0", 1, 4), ("0.9.3", 4, 4), ("0.5.4-ipexllm", 4, 4), ("unreadable", 1, 4)],
)
def test_an_ollama_begins_with_the_slots_that_its_release_chooses(version: str, slots: int, most: int) -> None:
    made = engine(version=version)
    assert (made.model_slots, made.learned.most_slots) == (slots, most)


def test_an_ollamas_slots_are_for_each_loaded_model_unless_an_operator_said() -> None:
    floor = Floor()
    untold, told = floor.add("a", "mn", loaded="mn", slots=None), floor.add("b", "mn", loaded="mn", slots=1)
    assert (untold.slots, untold.model_slots, told.slots) == (2, 1, 1)
    floor.load(untold, "m")
    assert untold.slots == 1
    floor.load(untold, "m", "n")
    floor.fleet.set_health(told, Health.DOWN)
    assert [floor.ask(model)[1] is not None for model in "mmn"] == [True, False, True]


def hear_busy(made: Engine, now: float) -> None:
    """Let an engine say that it is busy, and rest as long as it is to."""
    made.running.rests_until = note_busy(made, now)


def test_busy_halves_the_guess_once_in_a_while_and_never_below_one() -> None:
    made = engine(8, EngineKind.VLLM)
    made.running.count = 8
    for now, slots in ((0.0, 4), (0.5, 4), (0.9, 4), (2.0, 2), (4.0, 1), (8.0, 1)):
        made.running.count = min(made.running.count, made.slots)
        hear_busy(made, now)
        assert made.slots == slots
        assert made.running.rests_until >= now + BUSY_REST


def test_an_engine_that_is_busy_again_and_again_rests_longer_until_it_serves() -> None:
    made, now, rests = engine(1, EngineKind.VLLM), 0.0, []
    for _ in range(6):
        hear_busy(made, now)
        rests.append(made.running.rests_until - now)
        now = made.running.rests_until
    assert rests == [1, 2, 4, 8, 8, 8]


def test_the_guess_is_half_of_the_running_exchanges_if_these_were_fewer() -> None:
    made = engine(32, EngineKind.VLLM)
    made.running.count = 6
    hear_busy(made, 0.0)
    assert made.slots == 3


def test_steady_success_at_full_use_raises_the_guess_again() -> None:
    made = engine(8, EngineKind.VLLM)
    made.running.count = 8
    hear_busy(made, 0.0)
    serve(made, UNTOLD, RAISE_PAUSE - 0.1)
    assert made.learned.guess == 4.0
    serve(made, UNTOLD, RAISE_PAUSE, running=3)
    assert made.learned.guess == 4.0
    seen = []
    for _ in range(60):
        serve(made, UNTOLD, RAISE_PAUSE)
        seen.append(made.slots)
    assert seen[:5] == [4, 4, 4, 4, 5]
    assert max(seen) == seen[-1] == 8


def test_a_report_does_not_reset_the_guess() -> None:
    made = engine(8)
    made.running.count = 8
    hear_busy(made, 0.0)
    Fleet([made]).learn(made, report("m", loaded=("m",)))
    assert made.slots == 4


def test_an_ollama_gets_more_slots_only_on_proof() -> None:
    made = engine()
    serve(made, UNTOLD, 1.0)
    assert made.model_slots == 1
    serve(made, SMOOTH, 1.0)
    assert made.model_slots == 2


def test_a_wait_inside_the_engine_lowers_the_guess() -> None:
    made = engine(version="0.9.3")
    serve(made, WAITED, 1.0)
    assert (made.model_slots, made.running.rests_until) == (2, 0.0)
    serve(made, WAITED, 2.0, running=4)  # granted before
    assert made.model_slots == 2
    serve(made, SMOOTH, 1.0 + INSIDE_PAUSE - 0.1)
    assert made.model_slots == 2
    for _ in range(3):
        serve(made, SMOOTH, 1.0 + INSIDE_PAUSE)
    assert made.model_slots == 3


def test_each_wait_inside_is_remembered_for_longer() -> None:
    made, now, pauses = engine(), 0.0, []
    for _ in range(3):
        serve(made, SMOOTH, now)
        assert made.model_slots == 2, "the pause is over"
        note_inside(Lease(made, Floor().ticket("m"), "", running=2, of_model=2), now)
        assert made.model_slots == 1
        pauses.append(made.learned.may_raise_at - now)
        now = made.learned.may_raise_at
    assert pauses == [INSIDE_PAUSE, 2 * INSIDE_PAUSE, 4 * INSIDE_PAUSE]


def test_exchanges_that_ran_at_once_without_a_wait_are_proof() -> None:
    made = engine()
    assert made.learned.proven == 1
    serve(made, SMOOTH, 1.0, running=2)
    assert made.learned.proven == 2
    assert engine(4).learned.proven == float("inf")
    assert engine(kind=EngineKind.VLLM).learned.proven == float("inf")


def test_an_exchange_that_overtakes_no_other_proves_nothing() -> None:
    """A short wait for one that was about to end looks like none."""
    made = engine()
    made.running.count, made.running.of_model = 2, {"m": 2}
    lease = Lease(made, Floor().ticket("m"), "", running=2, of_model=2, ended_before=made.running.ended)
    made.running.ended += 1
    note_served(lease, SMOOTH, 1.0)
    assert made.learned.proven == 1


def test_a_wait_inside_the_engine_disproves_earlier_proof() -> None:
    made = engine()
    serve(made, SMOOTH, 1.0, running=3)
    assert made.learned.proven == 3
    serve(made, WAITED, 2.0, running=3)
    assert made.learned.proven == 2
    serve(made, WAITED, 3.0, running=2)
    serve(made, WAITED, 4.0, running=2)
    assert made.learned.proven == 1


def test_an_operators_slots_are_not_lowered_by_a_wait_inside() -> None:
    made = engine(4)
    serve(made, WAITED, 1.0)
    assert made.slots == 4


def test_a_wait_inside_is_known_only_from_all_its_parts() -> None:
    assert UNTOLD.waited_inside is None
    assert WAITED.waited_inside == pytest.approx(2.9)
    assert Measured(0.1, 1, 2.0, 1, 2.0, 0.0, 1.0).waited_inside == 0.0
