"""A survey finds the engines of a lane; a ticket whose other engines are gone may return to those that failed it."""

from __future__ import annotations

import random

from hive.fleet.engines import Health
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.loads import Loads
from hive.scheduling.policies import Situation
from hive.scheduling.survey import GONE_AFTER, LaneSurvey
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Ticket

from .fleets import Floor


class Room:
    """A survey over the engines `a` and `b`, which both have the model `m`."""

    def __init__(self) -> None:
        self.floor = Floor()
        self.a, self.b = self.floor.add("a", loaded="m"), self.floor.add("b", loaded="m")
        self.queue = TicketQueue(10)
        fleet, loads = self.floor.fleet, Loads(self.queue)
        rng = random.Random(1)
        situation = Situation(fleet, self.queue, loads, Estimates(fleet), Demand(), rng)
        self.survey = LaneSurvey(fleet, self.queue, situation)

    def wait(self, number: int, **more: object) -> Ticket:
        ticket = self.floor.ticket(number=number, **more)
        self.queue.push(ticket, self.queue.lane(ticket))
        return ticket


def test_a_lane_has_the_engines_in_service_and_doubtful_ones_only_without_others() -> None:
    room = Room()
    ticket = room.wait(1)
    lane = room.queue.lane(ticket)
    for health, engines in ((Health.READY, [room.a, room.b]), (Health.DOUBTFUL, [room.a]), (Health.DOWN, [room.a])):
        room.floor.fleet.set_health(room.b, health)
        room.survey.survey(lane, ticket)
        assert lane.engines == engines
    room.floor.fleet.set_health(room.a, Health.DOUBTFUL)
    room.survey.survey(lane, ticket)
    assert (lane.engines, lane.policy.name) == ([room.a], "best")


def test_a_ticket_that_all_engines_failed_may_return_to_them_at_its_place() -> None:
    room = Room()
    later = room.wait(2)
    failed = room.wait(1, excluded={room.a, room.b})
    (lane,) = room.survey.forgive_all()
    assert (failed.excluded, lane) == (set(), room.queue.lane(later))
    assert lane.tickets() == [failed, later]


def test_a_ticket_that_one_engine_failed_stays_where_it_is() -> None:
    room = Room()
    failed = room.wait(1, excluded={room.a})
    assert room.survey.forgive_all() == []
    assert failed.excluded == {room.a}


def test_tickets_for_a_model_that_is_gone_are_taken_after_a_while_and_not_if_it_comes_back() -> None:
    room = Room()
    ticket = room.wait(1)
    gone = room.wait(2, model="x")
    assert room.survey.take_gone(0.0) == []
    assert room.survey.take_gone(GONE_AFTER) == [gone]
    assert (gone.is_waiting, ticket.is_waiting) == (False, True)
