"""The table of failover, row by row; what is left for a ticket; whom a failure speaks against."""

from __future__ import annotations

import itertools

import pytest

from hive import errors
from hive.errors import Family, Kind
from hive.fleet.engines import Health
from hive.fleet.failures import Row, Verdict
from hive.fleet.known import Model
from hive.scheduling.failover import (
    BLAMED_REST,
    LONGEST_REST,
    MAX_OTHER_NODES,
    MAX_UNREACHED,
    TABLE,
    Act,
    Case,
    End,
    Left,
    NextStep,
    Note,
    blamed_rest,
    decide,
    end_of_failure,
    end_of_refusal,
    has_elsewhere,
    may_try_again,
    what_is_left,
)

from .fleets import Floor

NONE = Left()
ACCEPTING = Left(accepting=True)
RESTING = Left(accepting=True, in_service=True)
OTHERS = Left(accepting=True, in_service=True, rested=True)
LEFTS = [NONE, ACCEPTING, RESTING, OTHERS]
LAST = MAX_OTHER_NODES + 1
OWN_ERROR = Row(None, 401, (), Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB, blames=True)
BLAMED = Row(None, 502, (), Verdict.ELSEWHERE, blames=True)
BLAMELESS = Row(None, 404, (), Verdict.ELSEWHERE)
BUSY = Row(None, 429, (), Verdict.BUSY, errors.NODE_BUSY)
PASS = Row(None, 400, (), Verdict.PASS)
AGAIN = NextStep(Act.AGAIN, counts=False)
MOVES = NextStep(Act.ELSEWHERE, excludes=True)
BLAMES = NextStep(Act.ELSEWHERE, excludes=True, blames=True)
ERROR, PASSES = NextStep(Act.ERROR), NextStep(Act.PASS)
STALE = Note.STALE

ROWS: list[tuple[str, Case, NextStep]] = [
    ("delivered", Case(End.DELIVERED, left=OTHERS), NextStep(Act.NOTHING)),
    ("the engine told of its error", Case(End.ENGINE_ERROR, left=OTHERS), NextStep(Act.NOTHING)),
    ("unreachable, seen down", Case(End.UNREACHABLE, unreached=MAX_UNREACHED - 1), AGAIN),
    ("unreachable, not seen down", Case(End.UNREACHABLE, 9, unreached=0, left=OTHERS), AGAIN),
    (
        "unreachable too often",
        Case(End.UNREACHABLE, unreached=MAX_UNREACHED, left=ACCEPTING),
        NextStep(Act.ELSEWHERE, counts=False, excludes=True),
    ),
    (
        "unreachable too often, and the only one",
        Case(End.UNREACHABLE, unreached=MAX_UNREACHED),
        NextStep(Act.ERROR, counts=False),
    ),
    ("busy", Case(End.BUSY, LAST, row=BUSY), NextStep(Act.AGAIN, counts=False, note=Note.BUSY)),
    ("waited inside", Case(End.INSIDE, LAST), NextStep(Act.AGAIN, counts=False, note=Note.INSIDE)),
    ("about the request", Case(End.REFUSED, left=OTHERS, row=PASS), PASSES),
    (
        "a lost model, others there",
        Case(End.REFUSED_HERE, left=OTHERS, row=BLAMELESS),
        NextStep(Act.ELSEWHERE, excludes=True, note=STALE),
    ),
    (
        "it died, others there",
        Case(End.REFUSED_HERE, left=OTHERS, row=BLAMED),
        NextStep(Act.ELSEWHERE, excludes=True, blames=True, note=STALE),
    ),
    (
        "it died, others rest",
        Case(End.REFUSED_HERE, left=RESTING, row=BLAMED),
        NextStep(Act.ELSEWHERE, excludes=True, note=STALE),
    ),
    ("it died, alone", Case(End.REFUSED_HERE, left=ACCEPTING, row=BLAMED), NextStep(Act.PASS, note=STALE)),
    (
        "it died, tried often",
        Case(End.REFUSED_HERE, LAST, left=OTHERS, row=BLAMED),
        NextStep(Act.PASS, blames=True, note=STALE),
    ),
    ("the hub refused, alone", Case(End.REFUSED_HERE, row=OWN_ERROR), NextStep(Act.ERROR, note=STALE)),
    (
        "the hub refused, tried often",
        Case(End.REFUSED_HERE, LAST, left=OTHERS, row=OWN_ERROR),
        NextStep(Act.ERROR, blames=True, note=STALE),
    ),
    ("failed, others there", Case(End.FAILED, left=OTHERS), BLAMES),
    ("failed at last but one", Case(End.FAILED, LAST - 1, left=OTHERS), BLAMES),
    ("failed, others rest", Case(End.FAILED, left=RESTING), MOVES),
    ("failed, others down", Case(End.FAILED, left=ACCEPTING), ERROR),
    ("failed, tried often", Case(End.FAILED, LAST, left=OTHERS), NextStep(Act.ERROR, blames=True)),
    ("failed, for another machine", Case(End.FAILED, left=Left(True, True, True, is_relayed=True)), MOVES),
    ("lost, others there", Case(End.LOST, left=OTHERS), BLAMES),
    ("lost, alone", Case(End.LOST), NextStep(Act.AGAIN, forgives=True)),
    ("lost, others down", Case(End.LOST, LAST - 1, left=ACCEPTING), NextStep(Act.AGAIN, forgives=True)),
    ("lost, tried often", Case(End.LOST, LAST), ERROR),
    ("lost for the last time", Case(End.LOST, is_last=True, left=RESTING), ERROR),
    ("broken off", Case(End.BROKEN_OFF, left=OTHERS), NextStep(Act.BREAK_OFF, blames=True)),
    ("broken off, alone", Case(End.BROKEN_OFF), NextStep(Act.BREAK_OFF)),
    ("cut short by the hub", Case(End.CUT_SHORT, is_last=True, left=OTHERS), NextStep(Act.BREAK_OFF)),
    ("given up by the hub", Case(End.GIVEN_UP, is_last=True, left=OTHERS), ERROR),
]


@pytest.mark.parametrize(("case", "step"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_row(case: Case, step: NextStep) -> None:
    assert decide(case) == step


def test_the_rows_here_reach_every_row_of_the_table() -> None:
    reached = {next(i for i, row in enumerate(TABLE) if row.end is c.end and row.holds(c)) for _, c, _ in ROWS}
    assert reached == set(range(len(TABLE)))


ALL_CASES = [
    Case(end, attempts, unreached, is_last, left, row)
    for end, attempts, unreached, is_last, left, row in itertools.product(
        End, (1, LAST), (0, MAX_UNREACHED), (False, True), LEFTS, (None, BLAMED, BLAMELESS, OWN_ERROR)
    )
]


def test_every_case_has_one_decision_that_makes_sense() -> None:
    for case in ALL_CASES:
        step = decide(case)
        assert step.comes_back is (step.act in (Act.AGAIN, Act.ELSEWHERE))
        assert not (step.excludes and step.forgives)
        assert step.excludes is (step.act is Act.ELSEWHERE)
        assert step.counts or not step.blames
        if step.blames:
            assert case.left.rested, "an engine is left alone only where another one is not"
        if step.act is Act.ELSEWHERE:
            assert case.left.accepting, "a ticket that no engine accepts would wait for nothing"


def test_what_has_begun_never_goes_elsewhere() -> None:
    for kind in (errors.NODE_BROKE_OFF, errors.NODE_SILENT, errors.NODE_BUSY, errors.DRAINING, errors.CANCELLED):
        end = end_of_failure(kind, has_begun=True)
        assert all(decide(case).act is Act.BREAK_OFF for case in ALL_CASES if case.end is end)


FAILURES = [
    (errors.NODE_BROKE_OFF, End.LOST, End.BROKEN_OFF),
    (errors.NODE_SILENT, End.FAILED, End.BROKEN_OFF),
    (errors.NODE_GARBLED, End.FAILED, End.BROKEN_OFF),
    (errors.NODE_UNREACHABLE, End.FAILED, End.BROKEN_OFF),
    (errors.NODE_BUSY, End.INSIDE, End.BROKEN_OFF),
    (errors.DRAINING, End.GIVEN_UP, End.CUT_SHORT),
    (errors.CANCELLED, End.GIVEN_UP, End.CUT_SHORT),
]


@pytest.mark.parametrize(("kind", "before", "after"), FAILURES)
def test_how_a_failed_attempt_ended(kind: Kind, before: End, after: End) -> None:
    assert end_of_failure(kind, has_begun=False) is before
    assert end_of_failure(kind, has_begun=True) is after
    assert (before is End.GIVEN_UP) is (kind.family is not Family.NODE)


def test_how_a_refused_attempt_ended() -> None:
    ends = [end_of_refusal(row) for row in (BUSY, BLAMED, BLAMELESS, PASS)]
    assert ends == [End.BUSY, End.REFUSED_HERE, End.REFUSED_HERE, End.REFUSED]


def test_two_other_nodes_are_tried_at_most() -> None:
    assert [may_try_again(count, is_last=False) for count in range(1, 5)] == [True, True, False, False]
    assert not may_try_again(1, is_last=True)


def test_what_is_left_for_a_ticket() -> None:
    floor = Floor()
    here, other, third = floor.add("here"), floor.add("other"), floor.add("third")
    floor.add("without", "x")
    ticket = floor.ticket()
    having = floor.fleet.having("m")
    assert what_is_left([here], ticket, here, 0.0) == NONE
    assert what_is_left(having, ticket, here, 0.0) == OTHERS
    floor.dispatcher.rest(other, 5.0)
    floor.dispatcher.rest(third, 9.0)
    assert what_is_left(having, ticket, here, 4.9) == RESTING
    assert what_is_left(having, ticket, here, 5.0) == OTHERS
    ticket.excluded.add(third)
    floor.fleet.set_health(other, Health.SUSPECT)
    assert what_is_left(having, ticket, here, 9.0) == ACCEPTING
    assert not has_elsewhere(having, ticket, here)
    floor.fleet.set_health(other, Health.PROBATION)
    assert what_is_left(having, ticket, here, 9.0) == OTHERS
    assert has_elsewhere(having, ticket, here)
    ticket.excluded.add(other)
    assert what_is_left(having, ticket, here, 9.0) == NONE
    here.known.models["m"] = Model("m", "m", "", 0, "", b"{}", b"{}", is_remote=True)
    assert what_is_left(having, ticket, here, 9.0) == Left(is_relayed=True)


def test_an_engine_that_fails_again_and_again_rests_longer_each_time_up_to_a_bound() -> None:
    assert [blamed_rest(count) for count in (1, 2, 3)] == [BLAMED_REST, 2 * BLAMED_REST, 3 * BLAMED_REST]
    assert blamed_rest(1_000) == LONGEST_REST
