"""A ticket's lane, and which engines it accepts."""

from __future__ import annotations

import pytest

from hive.dialects.operations import CHAT, GENERATE, SHOW, methods_of
from hive.fleet.engines import Engine, EngineKind, EngineReport, Fleet
from hive.scheduling.tickets import Lease, Ticket

MESSAGES = methods_of("/v1/messages")["POST"]


def engine(kind: EngineKind = EngineKind.OLLAMA, version: str = "0.33.0") -> Engine:
    made = Engine("a", "http://a")
    Fleet([made]).learn(made, EngineReport(kind, version, (), ()))
    return made


def test_a_lane_is_a_model_and_whether_a_slot_is_needed() -> None:
    assert Ticket("m:latest", CHAT, 1.0).lane == Ticket("m:latest", GENERATE, 2.0).lane
    assert Ticket("m:latest", CHAT, 1.0).lane != Ticket("m:latest", SHOW, 1.0).lane
    assert Ticket("m:latest", CHAT, 1.0).lane != Ticket("n:latest", CHAT, 1.0).lane


@pytest.mark.parametrize(
    ("kind", "version", "accepted"),
    [
        (EngineKind.OLLAMA, "0.33.0", [CHAT, SHOW, MESSAGES]),
        (EngineKind.OLLAMA, "0.9.3", [CHAT, SHOW]),
        (EngineKind.LLAMA_CPP, "", [MESSAGES]),
    ],
)
def test_a_ticket_accepts_engines_that_have_its_route(kind: EngineKind, version: str, accepted: list[object]) -> None:
    asked = [
        operation for operation in (CHAT, SHOW, MESSAGES) if Ticket("m", operation, 1.0).accepts(engine(kind, version))
    ]
    assert asked == accepted


def test_an_engine_that_failed_a_ticket_is_not_accepted_again() -> None:
    first, second = engine(), engine()
    ticket = Ticket("m", CHAT, 1.0)
    ticket.excluded.add(first)
    assert not ticket.accepts(first)
    assert ticket.accepts(second)
    assert Ticket("m", CHAT, 1.0).accepts(first)


def test_tickets_and_leases_are_themselves_and_not_their_values() -> None:
    one, other = Ticket("m", CHAT, 1.0), Ticket("m", CHAT, 1.0)
    assert one != other
    assert len({one, other}) == 2
    on = engine()
    assert Lease(on, one, "why") != Lease(on, one, "why")
    assert Lease(on, one, "why").is_held
