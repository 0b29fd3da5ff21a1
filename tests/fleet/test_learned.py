"""What the hub has learned of an engine, and what makes a lesson begin again."""

from __future__ import annotations

from hive.fleet.learned import Learned
from hive.fleet.pace import Pace


def test_the_guess_begins_anew_when_other_slots_hold() -> None:
    learned = Learned()
    learned.begin_slots(4, 4, is_guessed=False)
    assert (learned.guess, learned.proven) == (4, float("inf"))
    learned.guess, learned.insides = 2.5, 3
    learned.begin_slots(4, 4, is_guessed=False)
    assert (learned.guess, learned.insides) == (2.5, 3)
    learned.begin_slots(1, 4, is_guessed=True)
    assert (learned.guess, learned.proven, learned.most_slots, learned.insides) == (1, 1, 4, 0)


def test_a_guess_above_the_most_begins_anew() -> None:
    learned = Learned()
    learned.begin_slots(2, 4, is_guessed=True)
    learned.guess = 4.5
    learned.begin_slots(2, 4, is_guessed=True)
    assert learned.guess == 2


def test_paces_of_models_that_the_engine_lost_are_forgotten() -> None:
    kept = Pace()
    learned = Learned(paces={"m": kept, "n": Pace()})
    learned.keep_paces({"m": 1})
    assert learned.paces == {"m": kept}


def test_the_most_bytes_that_were_held_together_are_remembered() -> None:
    learned = Learned()
    for size in (5, 9, 3):
        learned.note_held(size)
    assert learned.proven_bytes == 9
