"""The fleet's queue and slots, as a transcript: who is served when, who waits, who is given up."""

from __future__ import annotations

import random

import pytest

from hive.dialects.operations import CHAT, SHOW, Operation, methods_of
from hive.fleet.engines import Engine, EngineKind, EngineReport, Fleet, Health, Model
from hive.scheduling.dispatcher import Dispatcher, QueueFull
from hive.scheduling.tickets import Lease, Ticket

MESSAGES = methods_of("/v1/messages")["POST"]
NEVER = 1e9


class Hall:
    """A dispatcher over Ollamas `a`, `b`, ... with their slots and models, and a clock that tests turn."""

    def __init__(self, *engines: tuple[int, str], queue_limit: int = 10, patience: float = 10.0) -> None:
        self.engines = []
        for name, (slots, _) in zip("abcdef", engines, strict=False):
            self.engines.append(Engine(name, f"http://{name}", configured_slots=slots, health=Health.READY))
        self.fleet = Fleet(self.engines)
        for engine, (_, models) in zip(self.engines, engines, strict=True):
            listed = tuple(Model(key, key, "d", 1, "", b"{}", b"{}") for key in models)
            self.fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.9.3", listed, ()))
        self.dispatcher = Dispatcher(self.fleet, queue_limit, patience=patience, rng=random.Random(1))

    def ticket(self, model: str = "m", operation: Operation = CHAT, deadline: float = NEVER) -> Ticket:
        return Ticket(model, operation, deadline)

    def offer(
        self, model: str = "m", operation: Operation = CHAT, *, deadline: float = NEVER
    ) -> tuple[Ticket, Lease | None]:
        ticket = self.ticket(model, operation, deadline)
        return ticket, self.dispatcher.offer(ticket, 0.0)

    def running(self) -> list[int]:
        return [engine.running for engine in self.engines]


def test_a_free_slot_is_leased_at_once_and_given_back_once() -> None:
    hall = Hall((1, "m"))
    ticket, lease = hall.offer()
    assert lease is not None
    assert (lease.ticket, lease.engine.node, lease.is_held, hall.running()) == (ticket, "a", True, [1])
    assert lease.reason
    for _ in range(3):
        hall.dispatcher.release(lease)
        assert (lease.is_held, hall.running()) == (False, [0])


def test_without_a_free_slot_tickets_wait_in_order_of_arrival() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    waiting = [hall.offer()[0] for _ in range(3)]
    assert list(hall.dispatcher.waiting()) == waiting
    for ticket in waiting:
        assert lease is not None
        assert hall.dispatcher.serve(1.0) == []
        hall.dispatcher.release(lease)
        (lease,) = hall.dispatcher.serve(1.0)
        assert lease.ticket is ticket
    assert hall.dispatcher.waiting_count == 0


def test_who_comes_later_does_not_overtake() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    first, _ = hall.offer()
    assert lease is not None
    hall.dispatcher.release(lease)
    second, none = hall.offer()
    assert none is None
    assert [each.ticket for each in hall.dispatcher.serve(0.0)] == [first]
    assert list(hall.dispatcher.waiting()) == [second]


def test_between_models_the_oldest_goes_first() -> None:
    hall = Hall((1, "mn"))
    _, lease = hall.offer("m")
    order = [hall.offer(model)[0] for model in ("n", "m", "n", "m")]
    served = []
    while lease is not None:
        hall.dispatcher.release(lease)
        leases = hall.dispatcher.serve(0.0)
        lease = leases[0] if leases else None
        served += [each.ticket for each in leases]
    assert served == order


def test_a_model_nobody_can_serve_now_holds_no_other_up() -> None:
    hall = Hall((1, "m"), (1, "n"))
    _, on_m = hall.offer("m")
    _, on_n = hall.offer("n")
    hall.offer("m")
    second_n, _ = hall.offer("n")
    assert on_m is not None
    assert on_n is not None
    hall.dispatcher.release(on_n)
    assert [lease.ticket for lease in hall.dispatcher.serve(0.0)] == [second_n]


def test_show_passes_a_busy_engine_and_takes_no_slot() -> None:
    hall = Hall((1, "m"))
    hall.offer()
    hall.offer()
    for _ in range(5):
        _, lease = hall.offer(operation=SHOW)
        assert lease is not None
        assert hall.running() == [1]
        hall.dispatcher.release(lease)
        assert hall.running() == [1]


@pytest.mark.parametrize("health", [Health.JOINING, Health.SUSPECT, Health.DOWN])
def test_an_engine_that_is_not_ready_gets_no_work(health: Health) -> None:
    hall = Hall((4, "m"))
    hall.fleet.set_health(hall.engines[0], health)
    assert hall.offer()[1] is None
    assert hall.offer(operation=SHOW)[1] is None
    assert hall.dispatcher.serve(1.0) == []
    hall.fleet.set_health(hall.engines[0], Health.READY)
    assert len(hall.dispatcher.serve(1.0)) == 2


def test_an_engine_that_said_busy_rests() -> None:
    hall = Hall((4, "m"))
    hall.engines[0].rests_until = 5.0
    ticket, lease = hall.offer()
    assert lease is None
    assert hall.dispatcher.serve(4.9) == []
    assert [each.ticket for each in hall.dispatcher.serve(5.0)] == [ticket]


def test_an_engine_that_lacks_the_route_or_failed_the_ticket_is_no_choice() -> None:
    hall = Hall((4, "m"))
    assert hall.offer(operation=MESSAGES)[1] is None
    ticket = hall.ticket()
    ticket.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(ticket, 0.0) is None
    served, _ = hall.offer()
    assert [lease.ticket for lease in hall.dispatcher.serve(0.0)] in ([served], [])


def test_a_ticket_that_comes_back_keeps_its_place() -> None:
    hall = Hall((1, "m"))
    first, lease = hall.offer()
    later = [hall.offer()[0] for _ in range(3)]
    assert lease is not None
    hall.dispatcher.release(lease)
    assert hall.dispatcher.offer(first, 0.0) is None
    assert list(hall.dispatcher.waiting()) == [first, *later]
    assert [each.ticket for each in hall.dispatcher.serve(0.0)] == [first]


def test_the_queue_is_bounded_and_who_is_refused_leaves_no_trace() -> None:
    hall = Hall((1, "mn"), queue_limit=2)
    _, lease = hall.offer()
    waiting = [hall.offer("m")[0], hall.offer("n")[0]]
    for model in ("m", "n"):
        with pytest.raises(QueueFull):
            hall.offer(model)
    assert hall.dispatcher.waiting_count == 2
    assert list(hall.dispatcher.waiting()) == waiting
    assert hall.offer(operation=SHOW)[1] is not None
    hall.dispatcher.cancel(waiting[0])
    assert hall.offer("m")[1] is None
    assert lease is not None
    hall.dispatcher.release(lease)
    assert [each.ticket for each in hall.dispatcher.serve(0.0)] == [waiting[1]]


def test_a_queue_of_nothing_serves_who_can_be_served() -> None:
    hall = Hall((1, "m"), queue_limit=0)
    assert hall.offer()[1] is not None
    with pytest.raises(QueueFull):
        hall.offer()


def test_who_leaves_is_forgotten() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    gone, stays = hall.offer()[0], hall.offer()[0]
    for _ in range(2):
        hall.dispatcher.cancel(gone)
    assert (hall.dispatcher.waiting_count, list(hall.dispatcher.waiting())) == (1, [stays])
    assert lease is not None
    hall.dispatcher.cancel(lease.ticket)
    assert hall.running() == [1]
    hall.dispatcher.release(lease)
    assert [each.ticket for each in hall.dispatcher.serve(0.0)] == [stays]


def test_whose_deadline_has_passed_is_given_up() -> None:
    hall = Hall((1, "m"))
    hall.offer()
    late, patient = hall.offer(deadline=5.0)[0], hall.offer(deadline=6.0)[0]
    assert hall.dispatcher.step(4.9).expired == []
    assert hall.dispatcher.step(5.0).expired == [late]
    assert hall.dispatcher.step(5.5).expired == []
    assert (hall.dispatcher.waiting_count, list(hall.dispatcher.waiting())) == (1, [patient])


def test_without_an_engine_for_too_long_there_is_no_hope() -> None:
    hall = Hall((1, "m"), patience=10.0)
    hall.fleet.set_health(hall.engines[0], Health.DOWN)
    ticket, _ = hall.offer()
    assert hall.dispatcher.step(100.0).hopeless == []
    assert hall.dispatcher.step(109.9).hopeless == []
    assert hall.dispatcher.step(110.0).hopeless == [ticket]
    assert hall.dispatcher.step(111.0).hopeless == []
    assert hall.dispatcher.waiting_count == 0


def test_hope_returns_with_an_engine() -> None:
    hall = Hall((1, "m"), patience=10.0)
    _, lease = hall.offer()
    ticket, _ = hall.offer()
    for now, health in ((0.0, Health.DOWN), (9.0, Health.READY), (15.0, Health.DOWN), (24.0, Health.DOWN)):
        hall.fleet.set_health(hall.engines[0], health)
        assert hall.dispatcher.step(now).hopeless == []
    assert lease is not None
    assert hall.dispatcher.step(25.0).hopeless == [ticket]


def test_a_model_that_left_the_fleet_leaves_no_hope() -> None:
    hall = Hall((1, "m"), patience=1.0)
    hall.offer()
    ticket, _ = hall.offer()
    hall.fleet.learn(hall.engines[0], EngineReport(EngineKind.OLLAMA, "0.9.3", (), ()))
    assert hall.dispatcher.step(0.0).hopeless == []
    assert hall.dispatcher.step(1.0).hopeless == [ticket]


def test_a_step_serves_before_it_gives_up() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    ticket, _ = hall.offer(deadline=5.0)
    assert lease is not None
    hall.dispatcher.release(lease)
    step = hall.dispatcher.step(5.0)
    assert ([each.ticket for each in step.leases], step.expired, step.hopeless) == ([ticket], [], [])


def test_slots_of_all_engines_are_used() -> None:
    hall = Hall((2, "m"), (1, "m"), (1, "n"))
    assert [hall.offer()[1] is not None for _ in range(4)] == [True, True, True, False]
    assert hall.running() == [2, 1, 0]
