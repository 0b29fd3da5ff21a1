"""Waiting in order, found by model, forgotten at any time."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hive.dialects.tasks import CHAT, COMPLETE, SHOW, Dialect, Task
from hive.fleet.engines import Engine
from hive.scheduling.lanes import wish_of
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Claim, Ticket, claim_of


def push(queue: TicketQueue, number: int, model: str = "m", deadline: float = 1e9) -> Ticket:
    ticket = Ticket(model, CHAT, Dialect.OLLAMA, deadline, number=number)
    queue.push(ticket, queue.lane(ticket))
    return ticket


def test_a_ticket_that_comes_back_waits_where_its_key_says() -> None:
    queue = TicketQueue(10)
    second, third = push(queue, 2), push(queue, 3)
    first = push(queue, 1)
    assert list(queue) == [first, second, third]
    assert queue.lane(first).head() is first


def test_a_lane_holds_tickets_that_the_same_engines_accept() -> None:
    queue = TicketQueue(10)
    chat, generate = Ticket("m", CHAT, Dialect.OLLAMA, 1.0), Ticket("m", COMPLETE, Dialect.OLLAMA, 1.0)
    options = Ticket("m", CHAT, Dialect.OLLAMA, 1.0, load_options="num_ctx=8192")
    assert queue.lane(chat) is queue.lane(Ticket("m", CHAT, Dialect.OLLAMA, 2.0))
    assert len({id(queue.lane(ticket)) for ticket in (chat, generate, options)}) == 3


def test_only_tickets_that_take_a_slot_count_as_waiting_for_a_model() -> None:
    queue = TicketQueue(10)
    push(queue, 1)
    show = Ticket("m", SHOW, Dialect.OLLAMA, 1e9, number=2, claim=Claim.NOTHING)
    queue.push(show, queue.lane(show))
    assert (queue.waiting_of, queue.count) == ({"m": 1}, 2)


def test_late_tickets_are_taken_the_earliest_deadline_first() -> None:
    queue = TicketQueue(10)
    late = [push(queue, number, deadline=deadline) for number, deadline in ((1, 5.0), (2, 3.0), (3, 4.0), (4, 9.0))]
    assert queue.take_expired(2.9) == []
    assert queue.take_expired(5.0) == [late[1], late[2], late[0]]
    assert list(queue) == [late[3]]


def test_tickets_that_left_leave_no_heap_behind() -> None:
    queue = TicketQueue(10_000)
    stays = push(queue, 0)
    for number in range(1, 5_000):
        queue.remove(push(queue, number))
    assert list(queue) == [stays]
    assert len(queue.lane(stays).entries) < 100
    assert len(queue._deadlines) < 100


def test_lanes_are_forgotten_when_there_are_many() -> None:
    queue = TicketQueue(10)
    stays = push(queue, 1)
    for number in range(10_000):
        queue.lane(Ticket("m", CHAT, Dialect.OLLAMA, 1.0, load_options=str(number)))
    assert len(queue.lanes) < 5_000
    assert queue.lanes[stays.lane].head() is stays


class QueueMachine(RuleBasedStateMachine):
    """The queue against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TicketQueue(1_000)
        self.waiting: list[Ticket] = []
        self.gone: list[Ticket] = []
        self.number = 0

    @rule(model=st.sampled_from("mn"), deadline=st.floats(0, 100), task=st.sampled_from([CHAT, SHOW]))
    def a_ticket_comes(self, model: str, deadline: float, task: Task) -> None:
        self.number += 1
        ticket = Ticket(model, task, Dialect.OLLAMA, deadline, claim=claim_of(task), number=self.number)
        self.queue.push(ticket, self.queue.lane(ticket))
        self.waiting.append(ticket)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def a_ticket_comes_back(self, data: st.DataObject) -> None:
        ticket = self.gone.pop(data.draw(st.integers(0, len(self.gone) - 1)))
        self.queue.push(ticket, self.queue.lane(ticket))
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_ticket_leaves(self, data: st.DataObject) -> None:
        ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.queue.remove(ticket)
        assert not self.queue.remove(ticket)
        self.gone.append(ticket)

    @rule(now=st.floats(0, 100))
    def time_passes(self, now: float) -> None:
        late = self.queue.take_expired(now)
        assert sorted(late, key=lambda each: each.number) == sorted(
            (each for each in self.waiting if each.deadline <= now), key=lambda each: each.number
        )
        self.waiting = [each for each in self.waiting if each.deadline > now]

    @invariant()
    def queue_and_list_agree(self) -> None:
        assert sorted(self.queue, key=lambda each: each.number) == sorted(self.waiting, key=lambda each: each.number)
        assert self.queue.count == len(self.waiting)
        for lanes in self.queue.by_model.values():
            for lane in lanes:
                mine = [each.number for each in self.waiting if each.lane == lane.key]
                assert (lane.count, lane.head().number) == (len(mine), min(mine))
        slots = [each.model for each in self.waiting if each.takes_slot]
        assert self.queue.waiting_of == {model: slots.count(model) for model in set(slots)}


QueueMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestQueue = QueueMachine.TestCase


def test_order_holds_for_many() -> None:
    queue, rng = TicketQueue(5_000), random.Random(1)
    numbers = list(range(1, 1_000))
    rng.shuffle(numbers)
    for number in numbers:
        push(queue, number)
    assert [ticket.number for ticket in queue] == sorted(numbers)


def test_a_ticket_that_moved_is_not_first_in_its_old_lane() -> None:
    queue = TicketQueue(10)
    moves, stays = push(queue, 1), push(queue, 2)
    old = queue.lane(moves)
    queue.remove(moves)
    moves.load_options = "num_ctx=8192"
    queue.push(moves, queue.lane(moves))
    assert old.head() is stays
    assert queue.lane(moves).head() is moves


def test_a_ticket_that_moves_keeps_its_key_and_the_time_its_wish_was_served() -> None:
    queue = TicketQueue(10)
    failed = Engine("a", "http://a")
    early = Ticket("m", CHAT, Dialect.OLLAMA, 1e9, number=1, excluded={failed})
    queue.push(early, queue.lane(early))
    queue.served_at[wish_of(early.lane)] = 5.0
    early.excluded.clear()
    late = push(queue, 2)
    queue.remove(late)
    queue.move(early, queue.lane(early))
    assert (queue.count, list(queue), queue.waiting_of) == (1, [early], {"m": 1})
    assert queue.served_at != {}
    assert queue.lane(early).head() is early
    assert queue.take_expired(2e9) == [early]
    assert (queue.count, queue.waiting_of) == (0, {})


def test_the_time_a_wish_was_served_is_forgotten_with_the_last_ticket() -> None:
    queue = TicketQueue(10)
    ticket = push(queue, 1)
    queue.served_at["m"] = 5.0
    queue.remove(ticket)
    assert (queue.served_at, queue.by_model, queue.waiting_of, queue._lane_of) == ({}, {}, {}, {})


@pytest.mark.parametrize("left", range(60, 140))
def test_a_ticket_that_moves_keeps_its_place_and_its_deadline_however_many_have_left(left: int) -> None:
    """Heaps are compacted now and then; a move may do it, and must not lose the very ticket that moves."""
    queue = TicketQueue(1000)
    ticket = Ticket("m", CHAT, Dialect.OLLAMA, 10.0, number=1)
    queue.push(ticket, queue.lane(ticket))
    for number in range(left):
        gone = Ticket("m", CHAT, Dialect.OLLAMA, 99.0, number=number + 2)
        queue.push(gone, queue.lane(gone))
        queue.remove(gone)
    queue.rekey(ticket)
    lane = queue.lane(ticket)
    assert (queue.count, lane.count, lane.tickets()) == (1, 1, [ticket])
    ticket.excluded.add(Engine("a", "http://a"))
    other = queue.lane(ticket)
    queue.move(ticket, other)
    assert (queue.count, lane.count, other.tickets()) == (1, 0, [ticket])
    assert queue.take_expired(11.0) == [ticket]
    assert (queue.count, queue.by_model, queue.waiting_of) == (0, {}, {})
