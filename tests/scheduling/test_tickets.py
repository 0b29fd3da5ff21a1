"""A ticket's lane, and which engines it accepts."""

from __future__ import annotations

import pytest

from hive.dialects.tasks import CHAT, COMPLETE, SHOW, Dialect, Task
from hive.fleet.engines import Engine, Fleet
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport
from hive.scheduling.tickets import Candidate, Decision, Lease, Ticket

OLLAMA_CHAT, OLLAMA_SHOW, MESSAGES = (CHAT, Dialect.OLLAMA), (SHOW, Dialect.OLLAMA), (CHAT, Dialect.ANTHROPIC)


def engine(kind: EngineKind = EngineKind.OLLAMA, version: str = "0.33.0") -> Engine:
    made = Engine("a", "http://a")
    Fleet([made]).learn(made, EngineReport(kind, version, (), ()))
    return made


def test_a_lane_is_made_of_all_that_decides_which_engines_accept_a_ticket() -> None:
    lane = Ticket("m:latest", CHAT, Dialect.OLLAMA, 1.0).lane
    assert lane == Ticket("m:latest", CHAT, Dialect.OLLAMA, 2.0, prompt_tokens=9).lane
    assert lane != Ticket("m:latest", COMPLETE, Dialect.OLLAMA, 1.0).lane
    assert lane != Ticket("n:latest", CHAT, Dialect.OLLAMA, 1.0).lane
    assert lane != Ticket("m:latest", CHAT, Dialect.OLLAMA, 1.0, load_options="num_ctx=8192").lane
    failed = Ticket("m:latest", CHAT, Dialect.OLLAMA, 1.0)
    failed.excluded.add(engine())
    assert lane != failed.lane


@pytest.mark.parametrize(
    ("kind", "version", "accepted"),
    [
        (EngineKind.OLLAMA, "0.33.0", [OLLAMA_CHAT, OLLAMA_SHOW, MESSAGES]),
        (EngineKind.OLLAMA, "0.9.3", [OLLAMA_CHAT, OLLAMA_SHOW]),
        (EngineKind.LLAMA_CPP, "", [MESSAGES]),
    ],
)
def test_a_ticket_accepts_engines_that_have_its_route(
    kind: EngineKind, version: str, accepted: list[tuple[Task, Dialect]]
) -> None:
    asked = [
        (task, dialect)
        for task, dialect in (OLLAMA_CHAT, OLLAMA_SHOW, MESSAGES)
        if Ticket("m", task, dialect, 1.0).accepts(engine(kind, version))
    ]
    assert asked == accepted


def test_an_engine_that_failed_a_ticket_is_not_accepted_again() -> None:
    first, second = engine(), engine()
    ticket = Ticket("m", CHAT, Dialect.OLLAMA, 1.0)
    ticket.excluded.add(first)
    assert not ticket.accepts(first)
    assert ticket.accepts(second)
    assert Ticket("m", CHAT, Dialect.OLLAMA, 1.0).accepts(first)


def test_tickets_and_leases_are_themselves_and_not_their_values() -> None:
    one, other = Ticket("m", CHAT, Dialect.OLLAMA, 1.0), Ticket("m", CHAT, Dialect.OLLAMA, 1.0)
    assert one != other
    assert len({one, other}) == 2
    on = engine()
    assert Lease(on, one, "why") != Lease(on, one, "why")
    assert Lease(on, one, "why").is_held


def test_a_decision_names_the_engines_that_were_compared() -> None:
    on, other = engine(), Engine("b", "http://b")
    lease = Lease(
        on, Ticket("m", CHAT, Dialect.OLLAMA, 1.0), "soonest", policy="best", compared=[(on, 0.5), (other, 0.7)]
    )
    compared = Candidate("a", None, 0.5), Candidate("b", None, 0.7)
    assert lease.decision == Decision("best", "soonest", "a", None, 1, compared)
    alone = Candidate("a", None, None)
    assert Lease(on, Ticket("m", CHAT, Dialect.OLLAMA, 1.0), "only choice").decision.candidates == (alone,)
