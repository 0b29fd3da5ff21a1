"""One form for all refusals: 503, a stable code, a reason, and when to come again."""

from __future__ import annotations

import pytest

from hive.errors import Fault
from hive.fleet.engines import Health
from hive.scheduling.refusals import MOST_RETRY, UNKNOWN_RETRY, retry_after

from .fleets import Floor


@pytest.mark.parametrize(
    ("waiting", "rate", "seconds"),
    [(10, 2.0, 5), (0, 2.0, 1), (1, 100.0, 1), (1_000, 0.5, MOST_RETRY), (5, 0.0, UNKNOWN_RETRY)],
)
def test_a_refused_client_may_come_again_when_all_waiting_tickets_are_served(
    waiting: int, rate: float, seconds: int
) -> None:
    assert retry_after(waiting, rate) == seconds


def test_the_pace_is_measured() -> None:
    floor = Floor(limit=30)
    floor.add("a", loaded="m")
    now = 0.0
    for _ in range(200):
        now += 0.25
        _, lease = floor.ask(now=now)
        assert lease is not None
        floor.dispatcher.release(lease)
        floor.dispatcher.step(now)
    floor.ask(now=now)
    for _ in range(30):
        floor.ask(now=now)
    with pytest.raises(Fault) as refused:
        floor.ask(now=now)
    fault = refused.value
    assert (fault.kind.code, fault.kind.status) == ("queue_full", 503)
    assert dict(fault.headers) == {"Retry-After": "8"}, "30 tickets at 4 a second"
    assert "30" in fault.message


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (Health.READY, "queue_timeout"),
        (Health.PROBATION, "queue_timeout"),
        (Health.DOWN, "no_node"),
        (Health.SUSPECT, "no_node"),
        (Health.JOINING, "no_node"),
        (Health.DRAINING, "no_node"),
    ],
)
def test_the_reason_is_the_queue_or_the_nodes(health: Health, code: str) -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    floor.ask()
    ticket = floor.ticket()
    ticket.deadline = 5.0
    assert floor.dispatcher.offer(ticket, 0.0) is None
    floor.fleet.set_health(engine, health, "because")
    ((given_up, fault),) = floor.dispatcher.step(5.0).refused
    assert (given_up, fault.kind.code, fault.kind.status) == (ticket, code, 503)
    assert "Retry-After" in dict(fault.headers)
    assert ("because" in fault.message) == (code == "no_node")
