"""Whole worlds in virtual time: whatever goes wrong, what must hold holds; and what is broken is found."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from statistics import mean

import pytest

from hive.config import PolicyName
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.lanes import Lane
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Lease, Ticket

from .audit import Broken
from .compare import measure
from .faults import STRIKES
from .world import Outcome, run_world

FEW = range(40)
MANY = range(1000)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """The outcomes of a few worlds."""
    return [run_world(seed) for seed in FEW]


def test_all_rules_hold_in_a_few_worlds(outcomes: list[Outcome]) -> None:
    assert all(sum(outcome.answers.values()) == outcome.requests for outcome in outcomes)


def test_the_few_worlds_have_all_kinds_of_ends(outcomes: list[Outcome]) -> None:
    """Every kind of fault strikes, every policy runs, every kind of end is reached."""
    assert {fault.kind for outcome in outcomes for fault in outcome.faults} == set(STRIKES)
    assert {outcome.policy for outcome in outcomes} == set(PolicyName)
    ends: Counter[str] = sum((outcome.answers for outcome in outcomes), Counter())
    assert {"ok", "client gone", "failed", "broken off"} <= set(ends)
    assert {"503 queue_full", "503 queue_timeout", "503 no_node"} <= set(ends)
    assert sum(outcome.loads for outcome in outcomes) > 100
    assert sum(outcome.transitions for outcome in outcomes) > 100
    assert any(not outcome.faults for outcome in outcomes)


def test_the_same_seed_makes_the_same_world() -> None:
    assert run_world(3).story == run_world(3).story
    assert run_world(3).story != run_world(4).story


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_rules_hold_in_many_worlds() -> None:
    run_all(MANY)


def run_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        run_world(seed)


def release_nothing(self: Dispatcher, lease: Lease) -> None:
    lease.is_held = False


def forget_a_few(self: TicketQueue, ticket: Ticket, lane: object) -> None:
    if ticket.number % 7:
        push(self, ticket, lane)  # type: ignore[arg-type]
    else:
        ticket.mark = -1


def youngest_first(self: Lane) -> Ticket:
    return max((entry[2] for entry in self.entries if entry[2].mark == entry[1]), key=lambda each: each.order)


push = TicketQueue.push
DEFECTS = [
    (Dispatcher, "release", release_nothing, "counts"),
    (TicketQueue, "push", forget_a_few, ""),
    (Lane, "head", youngest_first, "overtook"),
]


@pytest.mark.parametrize(("owner", "name", "defect", "words"), DEFECTS)
def test_a_defect_is_found_and_its_story_told(
    owner: type, name: str, defect: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, defect)
    with pytest.raises((Broken, AssertionError, KeyError)) as found:
        run_all(FEW)
    assert words in str(found.value)


def test_a_broken_world_tells_its_seed_and_story() -> None:
    broken = Broken("seed 7: nothing holds\n    1.000  #1 ok")
    assert "seed 7" in str(broken)


def test_the_program_runs_a_seed_and_tells_its_story() -> None:
    command = [sys.executable, "-m", "tests.scheduling.laboratory", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "joining -> ready" in done.stdout
    assert "1 worlds hold" in done.stdout


def test_best_is_sooner_than_round_robin_and_loads_less_at_a_moderate_load() -> None:
    best, turns = (measure(policy, 0.4, 1, 900.0) for policy in ("best", "round_robin"))
    assert best.refused == turns.refused == 0
    assert best.p50 * 1.5 < turns.p50
    assert best.p95 * 1.2 < turns.p95
    assert best.loads * 1.5 < turns.loads


@pytest.mark.long
@pytest.mark.timeout(300)
def test_at_four_fifths_of_the_load_best_is_twice_as_good_as_round_robin() -> None:
    p95 = {policy: mean(measure(policy, 0.8, seed).p95 for seed in range(1, 5)) for policy in ("best", "round_robin")}
    assert p95["best"] * 2 < p95["round_robin"]
