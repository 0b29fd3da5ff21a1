"""Lanes: the first ticket is the one with the smallest key; a wish is shared where the same memory is needed."""

from __future__ import annotations

from heapq import heappush

from hive.dialects.tasks import CHAT, COMPLETE, Dialect
from hive.fleet.engines import Engine
from hive.scheduling.frontends import Frontend
from hive.scheduling.lanes import Lane, wish_of
from hive.scheduling.tickets import Ticket


def ticket(**more: object) -> Ticket:
    return Ticket("m", CHAT, Dialect.OLLAMA, 1e9, **more)  # type: ignore[arg-type]


def put(lane: Lane, number: int, mark: int) -> Ticket:
    made = ticket(number=number, mark=mark, order=(0.0, number))
    heappush(lane.entries, (made.order, mark, made))
    lane.count += 1
    return made


def test_the_first_ticket_has_the_smallest_key_of_those_that_still_wait() -> None:
    lane = Lane(ticket().lane, True)
    third, first, second = put(lane, 3, 1), put(lane, 1, 2), put(lane, 2, 3)
    assert lane.head() is first
    first.mark, lane.count = 0, 2
    assert lane.head() is second
    assert lane.tickets() == [second, third]


def test_a_lane_drops_the_entries_of_tickets_that_left_once_they_are_many() -> None:
    lane = Lane(ticket().lane, True)
    stays, *gone = [put(lane, number, number) for number in range(1, 200)]
    for each in gone:
        each.mark = 0
    lane.count = 1
    lane.tidy()
    assert [entry[2] for entry in lane.entries] == [stays]


def test_a_wish_is_shared_by_tasks_and_not_by_options_failures_or_nodes() -> None:
    frontend, failed = Frontend("other", nodes=frozenset("a")), Engine("a", "http://a")
    wish = wish_of(ticket().lane)
    assert wish == wish_of(Ticket("m", COMPLETE, Dialect.OPENAI, 1.0).lane)
    assert wish == wish_of(ticket(frontend=Frontend("other", policy="random")).lane)
    for other in (ticket(load_options="num_ctx=8"), ticket(excluded={failed}), ticket(frontend=frontend)):
        assert wish != wish_of(other.lane)
