"""The order of the queue is data: any function of a ticket may make its key."""

from __future__ import annotations

import random

from hive.auth.principals import Principal
from hive.dialects.tasks import CHAT, Dialect
from hive.fleet.engines import Engine, Fleet, Health
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.order import order_of
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import UNORDERED, Lease, OrderKey, Ticket

from .fleets import report


class Turns:
    """The keys of a toy: the principal that was served least comes first."""

    def __init__(self) -> None:
        self.served: dict[str, float] = {}

    def order(self, ticket: Ticket) -> OrderKey:
        return self.served.get(ticket.principal.name, 0.0), ticket.number


def ticket(name: str = "", number: int = 0, **more: object) -> Ticket:
    principal = Principal(name, frozenset())
    return Ticket("m", CHAT, Dialect.OLLAMA, 1e9, principal=principal, number=number, **more)  # type: ignore[arg-type]


def dispatcher(turns: Turns) -> Dispatcher:
    engine = Engine("a", "http://a", configured_slots=1, health=Health.READY)
    fleet = Fleet([engine])
    fleet.learn(engine, report("m", loaded=("m",)))
    return Dispatcher(fleet, 10, order=turns.order, rng=random.Random(1))


def test_tickets_are_ordered_by_arrival() -> None:
    tickets = [ticket(number=number) for number in (3, 1, 2)]
    assert [each.number for each in sorted(tickets, key=order_of)] == [1, 2, 3]


def test_a_ticket_that_is_served_at_once_gets_no_key() -> None:
    made = dispatcher(Turns())
    first = ticket("ann")
    assert made.offer(first, 0.0) is not None
    assert first.order is UNORDERED


def test_another_function_changes_who_is_served_next() -> None:
    turns = Turns()
    made = dispatcher(turns)
    lease = made.offer(ticket("ann"), 0.0)
    assert lease is not None
    turns.served["ann"] = 100.0
    again, other = ticket("ann"), ticket("ben")
    assert [made.offer(each, 0.0) for each in (again, other)] == [None, None]
    assert list(made.waiting()) == [other, again]
    made.release(lease)
    (lease,) = made.serve(1.0).leases
    assert lease.ticket is other


def test_a_key_that_changes_moves_a_waiting_ticket() -> None:
    turns = Turns()
    made = dispatcher(turns)
    lease = made.offer(ticket("cat"), 0.0)
    tickets = [ticket(name) for name in ("ann", "ben", "ann")]
    for each in tickets:
        made.offer(each, 0.0)
    turns.served["ann"] = 5.0
    for each in tickets:
        if each.principal.name == "ann":
            made.queue.rekey(each)
    assert list(made.waiting()) == [tickets[1], tickets[0], tickets[2]]
    assert (made.waiting_count, made.queue.waiting_of) == (3, {"m": 3})
    order = []
    while lease is not None:
        made.release(lease)
        lease = next(iter(made.serve(1.0).leases), None)
        order.append(lease.ticket if isinstance(lease, Lease) else None)
    assert order == [tickets[1], tickets[0], tickets[2], None]


def test_a_ticket_that_comes_back_keeps_its_key() -> None:
    turns = Turns()
    queue = TicketQueue(10, turns.order)
    back = ticket("ann", 1)
    queue.push(back, queue.lane(back))
    queue.remove(back)
    turns.served["ann"] = 9.0
    other = ticket("ben", 2)
    for each in (other, back):
        queue.push(each, queue.lane(each))
    assert list(queue) == [back, other]
    queue.rekey(back)
    assert list(queue) == [other, back]


def test_the_key_of_a_ticket_that_does_not_wait_is_made_anew_and_nothing_moves() -> None:
    turns = Turns()
    queue = TicketQueue(10, turns.order)
    away = ticket("ann", 1)
    turns.served["ann"] = 3.0
    queue.rekey(away)
    assert (away.order, queue.count, list(queue)) == ((3.0, 1), 0, [])


def test_many_changes_of_keys_leave_no_heap_behind() -> None:
    turns = Turns()
    queue = TicketQueue(10, turns.order)
    tickets = [ticket(name, number) for number, name in enumerate(("ann", "ben"), 1)]
    for each in tickets:
        queue.push(each, queue.lane(each))
    for count in range(5_000):
        turns.served["ann"] = float(count)
        queue.rekey(tickets[0])
    lane = queue.lane(tickets[0])
    assert (len(lane.entries) < 100, len(queue._deadlines) < 100, lane.count) == (True, True, 2)
    assert list(queue) == [tickets[1], tickets[0]]
    assert sorted(each.number for each in queue.take_expired(2e9)) == [1, 2]
    assert queue.count == 0
