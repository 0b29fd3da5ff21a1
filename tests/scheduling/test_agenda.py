"""The agenda holds the lanes for which something changed, and each lane again after a while."""

from __future__ import annotations

import random

from hive.fleet.engines import Engine, Health
from hive.scheduling.agenda import REVIEWS, Agenda
from hive.scheduling.demand import Demand
from hive.scheduling.estimates import Estimates
from hive.scheduling.lanes import Lane
from hive.scheduling.loads import Loads
from hive.scheduling.policies import Situation
from hive.scheduling.survey import LaneSurvey
from hive.scheduling.ticket_queue import TicketQueue

from .fleets import Floor


class Desk:
    """An agenda over engines that tests add; the queue is empty at first."""

    def __init__(self) -> None:
        self.floor = Floor()
        fleet, self.queue = self.floor.fleet, TicketQueue(100)
        rng = random.Random(1)
        situation = Situation(fleet, self.queue, Loads(self.queue), Estimates(fleet), Demand(), rng)
        self.agenda = Agenda(fleet, self.queue, LaneSurvey(fleet, self.queue, situation))

    def wait(self, model: str = "m", **more: object) -> Lane:
        ticket = self.floor.ticket(model, number=self.queue.count + 1, **more)  # type: ignore[arg-type]
        lane = self.queue.lane(ticket)
        self.queue.push(ticket, lane)
        return lane

    def settle(self) -> None:
        self.agenda.take(0.0)


def busy(engine: Engine) -> None:
    engine.running.count, engine.running.of_model = 1, {"m": 1}


def test_nothing_is_to_be_considered_while_no_ticket_waits() -> None:
    desk = Desk()
    engine = desk.floor.add("a", loaded="m")
    desk.agenda.dirty.add(engine)
    assert desk.agenda.is_empty
    assert desk.agenda.take(0.0) == {}
    assert (desk.agenda.dirty, desk.floor.fleet.changed) == (set(), set())


def test_an_engine_that_changed_brings_the_lanes_of_its_models() -> None:
    desk = Desk()
    engine = desk.floor.add("a", "mn", loaded="m")
    lane, other = desk.wait("m"), desk.wait("n")
    busy(engine)
    desk.settle()
    desk.agenda.dirty.add(engine)
    assert not desk.agenda.is_empty
    assert desk.agenda.take(0.0) == {lane: [engine]}
    engine.running.count, engine.running.of_model = 0, {}
    desk.agenda.dirty.add(engine)
    assert desk.agenda.take(0.0) == {lane: [engine], other: [engine]}, "an idle engine may load the other model"
    assert desk.agenda.take(0.0) == {}


def test_a_change_of_the_fleets_shape_brings_all_lanes() -> None:
    desk = Desk()
    engine = desk.floor.add("a", "mn", loaded="m")
    lanes = {desk.wait("m"), desk.wait("n")}
    desk.settle()
    desk.floor.fleet.set_health(engine, Health.DOWN)
    assert desk.agenda.take(0.0) == dict.fromkeys(lanes)


def test_a_lane_that_a_ticket_came_into_is_considered_once() -> None:
    desk = Desk()
    desk.floor.add("a", loaded="m")
    lane = desk.wait()
    desk.settle()
    desk.agenda.fresh[lane] = None
    assert not desk.agenda.is_empty
    assert desk.agenda.take(0.0) == {lane: None}
    assert desk.agenda.take(0.0) == {}


def test_an_engine_is_considered_at_the_end_of_its_rest() -> None:
    desk = Desk()
    engine = desk.floor.add("a", loaded="m")
    lane = desk.wait()
    desk.settle()
    engine.running.rests_until = 5.0
    desk.agenda.rest(engine)
    assert desk.agenda.take(4.9) == {}
    assert desk.agenda.take(5.0) == {lane: [engine]}


def test_lanes_have_their_turn_and_an_empty_lane_leaves_the_rota() -> None:
    desk = Desk()
    desk.floor.add("a", loaded="m")
    lanes = [desk.wait(load_options=str(number)) for number in range(REVIEWS + 3)]
    desk.settle()
    for lane in lanes:
        desk.agenda.put_on_rota(lane)
        desk.agenda.put_on_rota(lane)
    desk.agenda.review()
    assert list(desk.agenda.take(0.0)) == lanes[:REVIEWS]
    for ticket in lanes[-1].tickets():
        desk.queue.remove(ticket)
    desk.agenda.review()
    assert list(desk.agenda.take(0.0)) == [*lanes[REVIEWS:-1], *lanes[: REVIEWS - 3]]
    assert not lanes[-1].is_on_rota
