"""The table of failover: what is done after an attempt, by its end, by the earlier attempts and by the other engines.

The table is pure data. The hub acts by it. The laboratory of the scheduler acts by it too, and tests its invariants in
simulated worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from hive import errors
from hive.errors import Family, Kind
from hive.fleet.engines import Engine
from hive.fleet.failures import Row, Verdict
from hive.scheduling.tickets import Ticket

MAX_OTHER_NODES = 2
"""Further attempts on other nodes, after the first."""
MAX_UNREACHED = 3
"""How often an engine that seems up may be unreachable in one exchange."""
BLAMED_REST = 0.5
"""Seconds of rest for each failure in a row. Without a rest an engine that fails fast would get most of the work."""
LONGEST_REST = 5.0


class End(Enum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    """The client has the whole answer."""
    ENGINE_ERROR = "engine error"
    """The client has an answer that the engine itself ended with an error."""
    UNREACHABLE = "unreachable"
    """The engine could not be reached: it never got the request."""
    BUSY = "busy"
    """The engine refused because it can take no more requests now."""
    REFUSED = "refused"
    """The engine refused, and the cause is the request."""
    REFUSED_HERE = "refused here"
    """The engine refused, and the cause is the engine."""
    INSIDE = "inside"
    """The request waited inside the engine, behind another request."""
    LOST = "lost"
    """The connection broke before the client had any of the answer."""
    FAILED = "failed"
    """The engine failed before the client had any of the answer."""
    BROKEN_OFF = "broken off"
    """The engine failed when the client had a part of the answer."""
    GIVEN_UP = "given up"
    """The hub ended the attempt before the client had any of the answer."""
    CUT_SHORT = "cut short"
    """The hub ended the attempt when the client had a part of the answer."""


class Act(Enum):
    """What is done after an attempt."""

    NOTHING = "nothing"
    """The client has its answer."""
    AGAIN = "again"
    """The ticket goes back into the queue; the same engine may have it again."""
    ELSEWHERE = "elsewhere"
    """The ticket goes back into the queue; this engine is excluded."""
    PASS = "pass"  # noqa: S105 - not a password
    """The client gets the answer of the engine, a refusal."""
    ERROR = "error"
    """The client gets an error of the hub."""
    BREAK_OFF = "break off"
    """The answer, of which the client has a part, ends with an error."""


class Note(Enum):
    """The report to the scheduler about the engine."""

    NOTHING = "nothing"
    BUSY = "busy"
    INSIDE = "inside"
    STALE = "stale"
    """The hub's knowledge of the engine may be wrong."""


@dataclass(frozen=True, slots=True)
class Left:
    """The engines that have the ticket's model, other than the engine of its last attempt."""

    accepting: bool = False
    """Does any other engine accept the ticket, whatever its state?"""
    in_service: bool = False
    """Is one of the accepting engines in service?"""
    rested: bool = False
    """Is one of the engines in service not resting?"""
    is_relayed: bool = False
    """Does the engine of the last attempt only pass the model's requests on to another machine?"""


NOTHING_LEFT = Left()


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt that is over: how it ended, the attempts so far, and the other engines."""

    end: End
    attempts: int = 1
    """The number of engines that have got the request, with the engine of this attempt."""
    unreached: int = 0
    """How often this engine seemed up and was unreachable, with this attempt."""
    is_last: bool = False
    """Is a further attempt forbidden?"""
    left: Left = NOTHING_LEFT
    row: Row | None = None
    """The row that says what the engine's refusal means; None if it did not refuse."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """The act after an attempt, and its notes about ticket and engine."""

    act: Act
    counts: bool = True
    """Does the attempt count? It does not if the engine never worked for the request."""
    excludes: bool = False
    """Is the engine excluded from the ticket from now on?"""
    forgives: bool = False
    """May the ticket go again to the engines that it excludes?"""
    blames: bool = False
    """Does the engine get no work for a while?"""
    note: Note = Note.NOTHING

    @property
    def comes_back(self) -> bool:
        """Does the ticket go back into the queue?"""
        return self.act is Act.AGAIN or self.act is Act.ELSEWHERE


@dataclass(frozen=True, slots=True)
class FailoverRow:
    """One row of the table: the step after an attempt that ended as `end`, if `holds` returns true."""

    end: End
    holds: Callable[[Case], bool]
    step: NextStep


def _always(case: Case) -> bool:
    return True


def _may_be_up(case: Case) -> bool:
    return case.unreached < MAX_UNREACHED


def _has_accepting(case: Case) -> bool:
    return case.left.accepting


def _may_try_again(case: Case) -> bool:
    return may_try_again(case.attempts, is_last=case.is_last)


def _may_move(case: Case) -> bool:
    return _may_try_again(case) and case.left.in_service


def _has_own_error(case: Case) -> bool:
    """Does the client get an error of the hub instead of the engine's refusal?"""
    return case.row is not None and case.row.kind is not None


_MOVES = NextStep(Act.ELSEWHERE, excludes=True, blames=True)
_ERROR = NextStep(Act.ERROR, blames=True)

TABLE: tuple[FailoverRow, ...] = (
    FailoverRow(End.DELIVERED, _always, NextStep(Act.NOTHING)),
    FailoverRow(End.ENGINE_ERROR, _always, NextStep(Act.NOTHING)),
    # The engine never got the request: the ticket waits for any engine that is up, this engine included.
    FailoverRow(End.UNREACHABLE, _may_be_up, NextStep(Act.AGAIN, counts=False)),
    FailoverRow(End.UNREACHABLE, _has_accepting, NextStep(Act.ELSEWHERE, counts=False, excludes=True)),
    FailoverRow(End.UNREACHABLE, _always, NextStep(Act.ERROR, counts=False)),
    FailoverRow(End.BUSY, _always, NextStep(Act.AGAIN, counts=False, note=Note.BUSY)),
    FailoverRow(End.INSIDE, _always, NextStep(Act.AGAIN, counts=False, note=Note.INSIDE)),
    FailoverRow(End.REFUSED, _always, NextStep(Act.PASS)),
    FailoverRow(End.REFUSED_HERE, _may_move, replace(_MOVES, note=Note.STALE)),
    FailoverRow(End.REFUSED_HERE, _has_own_error, replace(_ERROR, note=Note.STALE)),
    FailoverRow(End.REFUSED_HERE, _always, NextStep(Act.PASS, blames=True, note=Note.STALE)),
    FailoverRow(End.BROKEN_OFF, _always, NextStep(Act.BREAK_OFF, blames=True)),
    FailoverRow(End.CUT_SHORT, _always, NextStep(Act.BREAK_OFF)),
    FailoverRow(End.FAILED, _may_move, _MOVES),
    FailoverRow(End.FAILED, _always, _ERROR),
    FailoverRow(End.LOST, _may_move, _MOVES),
    # No other engine is up: a node that restarts may have the request again when it is back.
    FailoverRow(End.LOST, _may_try_again, NextStep(Act.AGAIN, forgives=True, blames=True)),
    FailoverRow(End.LOST, _always, _ERROR),
    FailoverRow(End.GIVEN_UP, _always, NextStep(Act.ERROR)),
)
"""The rows in order: the first row that fits decides."""


def decide(case: Case) -> NextStep:
    """Return the step after an attempt."""
    step = next(row.step for row in TABLE if row.end is case.end and row.holds(case))
    return replace(step, blames=False) if step.blames and not _speaks_against(case) else step


def _speaks_against(case: Case) -> bool:
    """Is the engine to blame? Only if it works itself, and if another engine can work without a rest."""
    is_blameless = case.row is not None and not case.row.blames
    return not is_blameless and case.left.rested and not case.left.is_relayed


def may_try_again(attempts: int, *, is_last: bool) -> bool:
    """May another attempt follow after this many attempts?"""
    return attempts <= MAX_OTHER_NODES and not is_last


def end_of_refusal(row: Row) -> End:
    """Return the `End` of a refused attempt."""
    if row.verdict is Verdict.BUSY:
        return End.BUSY
    return End.REFUSED_HERE if row.verdict is Verdict.ELSEWHERE else End.REFUSED


def end_of_failure(kind: Kind, *, has_begun: bool) -> End:
    """Return the `End` of a failed attempt. `has_begun`: does the client have a part of the answer?"""
    is_of_node = kind.family is Family.NODE
    if has_begun:
        return End.BROKEN_OFF if is_of_node else End.CUT_SHORT
    if not is_of_node:
        return End.GIVEN_UP
    if kind is errors.NODE_BUSY:
        return End.INSIDE
    return End.LOST if kind is errors.NODE_BROKE_OFF else End.FAILED


def what_is_left(having: Iterable[Engine], ticket: Ticket, here: Engine, now: float) -> Left:
    """Return what the other engines in `having` can do for a ticket. `here` is the engine of its last attempt."""
    accepting = in_service = rested = False
    for each in having:
        if each is here or not ticket.accepts(each):
            continue
        accepting = True
        if each.takes_work:
            in_service = True
            if each.running.rests_until <= now:
                rested = True
                break
    return Left(accepting, in_service, rested, here.relays(ticket.model))


def has_elsewhere(having: Iterable[Engine], ticket: Ticket, here: Engine) -> bool:
    """Is an engine other than `here` in service, and does it accept the ticket?"""
    return any(each.takes_work and each is not here and ticket.accepts(each) for each in having)


def blamed_rest(blames: int) -> float:
    """Return how many seconds an engine rests after `blames` failures in a row."""
    return min(blames * BLAMED_REST, LONGEST_REST)
