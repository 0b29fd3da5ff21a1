"""The fleet's queue and slots: which tickets are served when, which wait, and which are refused."""

from __future__ import annotations

import random

import pytest

from hive.dialects.tasks import CHAT, COMPLETE, SHOW, Dialect, Task
from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.survey import GONE_AFTER
from hive.scheduling.tickets import Lease, Ticket, claim_of

from .fleets import Floor, report

NEVER = 1e9


class Hall:
    """A dispatcher over Ollamas `a`, `b`, ... with their slots and models in memory, and a clock that tests turn."""

    def __init__(self, *engines: tuple[int, str], queue_limit: int = 10) -> None:
        self.engines = []
        for name, (slots, _) in zip("abcdef", engines, strict=False):
            self.engines.append(Engine(name, f"http://{name}", configured_slots=slots, health=Health.READY))
        self.fleet = Fleet(self.engines)
        for engine, (_, models) in zip(self.engines, engines, strict=True):
            self.learn(engine, models)
        self.dispatcher = Dispatcher(self.fleet, queue_limit, rng=random.Random(1))

    def learn(self, engine: Engine, models: str) -> None:
        self.fleet.learn(engine, report(*models, loaded=tuple(models), version="0.9.3"))

    def ticket(
        self, model: str = "m", task: Task = CHAT, deadline: float = NEVER, dialect: Dialect = Dialect.OLLAMA
    ) -> Ticket:
        return Ticket(model, task, dialect, deadline, claim=claim_of(task))

    def offer(
        self, model: str = "m", task: Task = CHAT, *, deadline: float = NEVER, dialect: Dialect = Dialect.OLLAMA
    ) -> tuple[Ticket, Lease | None]:
        ticket = self.ticket(model, task, deadline, dialect)
        return ticket, self.dispatcher.offer(ticket, 0.0)

    def serve(self, now: float = 0.0) -> list[Lease]:
        return self.dispatcher.serve(now).leases

    def running(self) -> list[int]:
        return [engine.running.count for engine in self.engines]


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
        assert hall.serve(1.0) == []
        hall.dispatcher.release(lease)
        (lease,) = hall.serve(1.0)
        assert lease.ticket is ticket
    assert hall.dispatcher.waiting_count == 0


def test_a_later_ticket_does_not_overtake() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    first, _ = hall.offer()
    assert lease is not None
    hall.dispatcher.release(lease)
    second, none = hall.offer()
    assert none is None
    assert [each.ticket for each in hall.serve(0.0)] == [first]
    assert list(hall.dispatcher.waiting()) == [second]


def test_between_models_the_oldest_ticket_goes_first() -> None:
    hall = Hall((1, "mn"))
    _, lease = hall.offer("m")
    order = [hall.offer(model)[0] for model in ("n", "m", "n", "m")]
    served = []
    while lease is not None:
        hall.dispatcher.release(lease)
        leases = hall.serve(0.0)
        lease = leases[0] if leases else None
        served += [each.ticket for each in leases]
    assert served == order


def test_a_model_that_no_engine_can_serve_now_holds_no_other_up() -> None:
    hall = Hall((1, "m"), (1, "n"))
    _, on_m = hall.offer("m")
    _, on_n = hall.offer("n")
    hall.offer("m")
    second_n, _ = hall.offer("n")
    assert on_m is not None
    assert on_n is not None
    hall.dispatcher.release(on_n)
    assert [lease.ticket for lease in hall.serve(0.0)] == [second_n]


def test_show_passes_a_busy_engine_and_takes_no_slot() -> None:
    hall = Hall((1, "m"))
    hall.offer()
    hall.offer()
    for _ in range(5):
        _, lease = hall.offer(task=SHOW)
        assert lease is not None
        assert hall.running() == [1]
        hall.dispatcher.release(lease)
        assert hall.running() == [1]


@pytest.mark.parametrize("health", [Health.JOINING, Health.SUSPECT, Health.DOWN, Health.DRAINING])
def test_an_engine_that_is_not_ready_gets_no_work(health: Health) -> None:
    hall = Hall((4, "m"))
    hall.fleet.set_health(hall.engines[0], health)
    assert hall.offer()[1] is None
    assert hall.offer(task=SHOW)[1] is None
    assert hall.serve(1.0) == []
    hall.fleet.set_health(hall.engines[0], Health.READY)
    assert len(hall.serve(1.0)) == 2


def test_an_engine_that_said_busy_rests() -> None:
    hall = Hall((4, "m"))
    hall.dispatcher.note_busy(hall.engines[0], 4.0)
    ticket, lease = hall.offer()
    assert lease is None
    assert hall.serve(4.9) == []
    assert [each.ticket for each in hall.serve(5.0)] == [ticket]


def test_an_engine_that_lacks_the_route_or_failed_the_ticket_is_no_choice() -> None:
    assert Hall((4, "m")).offer(dialect=Dialect.ANTHROPIC)[1] is None
    hall = Hall((4, "m"), (1, "m"))
    ticket = hall.ticket()
    ticket.excluded.add(hall.engines[0])
    lease = hall.dispatcher.offer(ticket, 0.0)
    assert lease is not None
    assert lease.engine is hall.engines[1]
    later = hall.ticket()
    later.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(later, 0.0) is None, "it waits for the other one, though this one is free"


def test_an_engine_that_failed_a_ticket_may_have_it_again_when_no_other_is_left() -> None:
    hall = Hall((4, "m"), (1, "m"))
    busy = hall.ticket()
    busy.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(busy, 0.0) is not None
    waiting = hall.ticket()
    waiting.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(waiting, 0.0) is None
    hall.fleet.set_health(hall.engines[1], Health.SUSPECT)
    (lease,) = hall.serve(1.0)
    assert (lease.ticket, lease.engine, waiting.excluded) == (waiting, hall.engines[0], set())
    late = hall.ticket()
    late.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(late, 1.0) is not None, "also when it comes back after the other one went"


def test_tickets_that_return_to_engines_that_failed_them_keep_their_place() -> None:
    hall = Hall((1, "m"), (1, "m"))
    first, second = hall.offer(), hall.offer()
    assert first[1] is not None
    assert second[1] is not None
    early = hall.ticket()
    early.excluded.add(hall.engines[0])
    assert hall.dispatcher.offer(early, 0.0) is None
    later, _ = hall.offer()
    hall.fleet.set_health(hall.engines[1], Health.DOWN)
    assert hall.serve(1.0) == []
    assert list(hall.dispatcher.waiting()) == [early, later]
    (at_first,) = [lease for _, lease in (first, second) if lease is not None and lease.engine is hall.engines[0]]
    hall.dispatcher.release(at_first)
    assert [lease.ticket for lease in hall.serve(2.0)] == [early]


def test_a_ticket_that_comes_back_keeps_its_place() -> None:
    hall = Hall((1, "m"))
    first, lease = hall.offer()
    later = [hall.offer()[0] for _ in range(3)]
    assert lease is not None
    hall.dispatcher.release(lease)
    assert hall.dispatcher.offer(first, 0.0) is None
    assert list(hall.dispatcher.waiting()) == [first, *later]
    assert [each.ticket for each in hall.serve(0.0)] == [first]


def test_the_queue_is_bounded_and_a_refused_ticket_leaves_no_trace() -> None:
    hall = Hall((1, "mn"), queue_limit=2)
    _, lease = hall.offer()
    waiting = [hall.offer("m")[0], hall.offer("n")[0]]
    for model in ("m", "n"):
        with pytest.raises(Fault):
            hall.offer(model)
    assert hall.dispatcher.waiting_count == 2
    assert list(hall.dispatcher.waiting()) == waiting
    assert hall.offer(task=SHOW)[1] is not None
    hall.dispatcher.cancel(waiting[0])
    assert hall.offer("m")[1] is None
    assert lease is not None
    hall.dispatcher.release(lease)
    assert [each.ticket for each in hall.serve(0.0)] == [waiting[1]]


def test_a_queue_of_length_0_serves_tickets_that_need_not_wait() -> None:
    hall = Hall((1, "m"), queue_limit=0)
    assert hall.offer()[1] is not None
    with pytest.raises(Fault):
        hall.offer()


def test_a_ticket_that_leaves_is_forgotten() -> None:
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
    assert [each.ticket for each in hall.serve(0.0)] == [stays]


def refused(hall: Hall, now: float) -> list[tuple[Ticket, str]]:
    return [(ticket, fault.kind.code) for ticket, fault in hall.dispatcher.step(now).refused]


def test_a_ticket_whose_deadline_has_passed_is_refused() -> None:
    hall = Hall((1, "m"))
    hall.offer()
    late, patient = hall.offer(deadline=5.0)[0], hall.offer(deadline=6.0)[0]
    assert refused(hall, 4.9) == []
    assert refused(hall, 5.0) == [(late, "queue_timeout")]
    assert refused(hall, 5.5) == []
    assert (hall.dispatcher.waiting_count, list(hall.dispatcher.waiting())) == (1, [patient])


def test_a_ticket_whose_engines_are_down_waits_to_the_deadline_and_hears_the_reason() -> None:
    hall = Hall((1, "m"), (1, "m"), (1, "n"))
    hall.fleet.set_health(hall.engines[0], Health.DOWN, "connection refused")
    hall.fleet.set_health(hall.engines[1], Health.SUSPECT)
    ticket, lease = hall.offer(deadline=600.0)
    assert lease is None
    assert refused(hall, 599.0) == []
    ((given_up, fault),) = hall.dispatcher.step(600.0).refused
    assert (given_up, fault.kind.code, fault.kind.status) == (ticket, "no_node", 503)
    assert "a is down (connection refused); b is suspect" in fault.message
    assert "600 s" in fault.message
    assert dict(fault.headers)["Retry-After"].isdigit()
    assert hall.dispatcher.waiting_count == 0


def test_a_ticket_that_waits_for_a_node_is_served_when_the_node_comes_back() -> None:
    hall = Hall((1, "m"))
    hall.fleet.set_health(hall.engines[0], Health.DOWN)
    ticket, _ = hall.offer(deadline=600.0)
    assert hall.dispatcher.step(500.0).leases == []
    hall.fleet.set_health(hall.engines[0], Health.PROBATION)
    assert [lease.ticket for lease in hall.dispatcher.step(501.0).leases] == [ticket]


def test_a_ticket_whose_route_is_gone_is_refused_after_a_moment() -> None:
    """As when another server has taken the port of the one that had it."""
    hall = Hall((1, "m"))
    hall.offer()
    ticket, _ = hall.offer(task=CHAT)
    hall.fleet.learn(hall.engines[0], report("m", loaded=("m",), kind=EngineKind.LLAMA_CPP, version=""))
    assert refused(hall, 1.0) == []
    assert refused(hall, GONE_AFTER + 1.0) == [(ticket, "not_served")]


def test_a_ticket_that_comes_back_is_not_refused_by_a_full_queue() -> None:
    hall = Hall((1, "m"), queue_limit=1)
    first, lease = hall.offer()
    younger, _ = hall.offer()
    assert lease is not None
    hall.dispatcher.release(lease)
    assert hall.dispatcher.offer(first, 0.0) is None
    assert list(hall.dispatcher.waiting()) == [first, younger]
    with pytest.raises(Fault, match="queue_full"):
        hall.offer()


def test_tickets_for_a_model_that_left_the_fleet_are_refused_after_a_moment() -> None:
    hall = Hall((1, "m"))
    hall.offer()
    ticket, _ = hall.offer()
    hall.learn(hall.engines[0], "")
    assert refused(hall, 1.0) == []
    assert refused(hall, GONE_AFTER) == []
    assert refused(hall, GONE_AFTER + 1.0) == [(ticket, "no_node")]
    assert hall.dispatcher.waiting_count == 0


def test_a_model_that_comes_back_in_time_is_served() -> None:
    hall = Hall((1, "m"))
    hall.fleet.set_health(hall.engines[0], Health.DOWN)
    ticket, _ = hall.offer()
    hall.learn(hall.engines[0], "")
    assert refused(hall, 1.0) == []
    hall.learn(hall.engines[0], "m")
    hall.fleet.set_health(hall.engines[0], Health.READY)
    assert [lease.ticket for lease in hall.dispatcher.step(100.0).leases] == [ticket]


def test_a_step_serves_tickets_before_it_refuses_any() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    ticket, _ = hall.offer(deadline=5.0)
    assert lease is not None
    hall.dispatcher.release(lease)
    step = hall.dispatcher.step(5.0)
    assert ([each.ticket for each in step.leases], step.refused) == ([ticket], [])


def test_slots_of_all_engines_are_used() -> None:
    hall = Hall((2, "m"), (1, "m"), (1, "n"))
    assert [hall.offer()[1] is not None for _ in range(4)] == [True, True, True, False]
    assert hall.running() == [2, 1, 0]


def test_exchanges_on_a_draining_engine_may_end_and_none_begins() -> None:
    hall = Hall((2, "m"))
    _, lease = hall.offer()
    hall.fleet.set_health(hall.engines[0], Health.DRAINING)
    ticket, none = hall.offer()
    assert none is None
    assert lease is not None
    hall.dispatcher.release(lease)
    assert hall.serve(1.0) == []
    hall.fleet.set_health(hall.engines[0], Health.READY)
    assert [each.ticket for each in hall.serve(2.0)] == [ticket]


def test_a_doubtful_engine_gets_work_only_where_there_is_no_other() -> None:
    hall = Hall((2, "m"), (1, "m"))
    doubtful, ready = hall.engines
    hall.fleet.set_health(doubtful, Health.DOUBTFUL)
    _, lease = hall.offer()
    assert lease is not None
    assert lease.engine is ready
    ticket, none = hall.offer()
    assert none is None, "another engine is busy, but in service"
    assert hall.serve(1.0) == []
    hall.fleet.set_health(ready, Health.DOWN)
    assert [(each.ticket, each.engine) for each in hall.serve(2.0)] == [(ticket, doubtful)]


def test_an_engine_on_probation_gets_one_exchange_at_a_time() -> None:
    hall = Hall((4, "m"))
    hall.fleet.set_health(hall.engines[0], Health.PROBATION)
    _, lease = hall.offer()
    ticket, none = hall.offer()
    assert (lease is not None, none) == (True, None)
    assert lease is not None
    hall.dispatcher.release(lease)
    assert [each.ticket for each in hall.serve(1.0)] == [ticket]
    hall.fleet.set_health(hall.engines[0], Health.READY)
    assert [hall.offer()[1] is not None for _ in range(4)] == [True, True, True, False]


def test_an_engine_with_more_exchanges_than_slots_gets_none_until_it_has_fewer() -> None:
    hall = Hall((4, "m"))
    leases = [hall.offer()[1] for _ in range(4)]
    hall.dispatcher.note_busy(hall.engines[0], 0.0)
    hall.offer()
    for count, lease in enumerate(leases):
        assert lease is not None
        hall.dispatcher.release(lease)
        assert len(hall.serve(2.0)) == (count == 2)
        assert hall.engines[0].running.count <= max(hall.engines[0].slots, 4 - count - 1)


def test_there_is_news_when_serving_may_decide_something() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer()
    assert not hall.dispatcher.has_news
    hall.offer()
    assert not hall.dispatcher.has_news or hall.serve() == []
    assert lease is not None
    hall.dispatcher.release(lease)
    assert hall.dispatcher.has_news
    assert len(hall.serve()) == 1
    assert not hall.dispatcher.has_news


def test_another_route_to_a_model_does_not_overtake_either() -> None:
    hall = Hall((1, "m"))
    _, lease = hall.offer(task=CHAT)
    first, _ = hall.offer(task=CHAT)
    second, _ = hall.offer(task=COMPLETE)
    third, _ = hall.offer(task=CHAT)
    served = []
    while lease is not None:
        hall.dispatcher.release(lease)
        leases = hall.serve()
        lease = leases[0] if leases else None
        served += [each.ticket for each in leases]
    assert served == [first, second, third]


def test_ten_thousand_tickets_come_and_go_and_leave_nothing() -> None:
    hall = Hall((1, "mn"), queue_limit=20_000)
    _, lease = hall.offer()
    tickets = [hall.offer("mn"[number % 2])[0] for number in range(10_000)]
    for ticket in tickets[::2]:
        hall.dispatcher.cancel(ticket)
    assert hall.dispatcher.waiting_count == 5_000
    served = []
    while lease is not None:
        hall.dispatcher.release(lease)
        leases = hall.serve()
        lease = leases[0] if leases else None
        served += [each.ticket for each in leases]
    assert served == tickets[1::2]
    assert hall.running() == [0]


def test_the_oldest_ticket_is_served_first_when_several_slots_come_free_at_once() -> None:
    hall = Hall((2, "mn"))
    leases = [hall.offer("m")[1], hall.offer("m")[1]]
    tickets = [hall.offer(model)[0] for model in ("m", "n", "m", "n")]
    for lease in leases:
        assert lease is not None
        hall.dispatcher.release(lease)
    assert [lease.ticket for lease in hall.serve()] == tickets[:2]


def test_a_drained_engine_gets_no_exchange_and_its_share_again_after_that() -> None:
    floor = Floor()
    a, b = floor.add("a", loaded="m", slots=4), floor.add("b", loaded="m", slots=1)
    floor.fleet.set_health(a, Health.DRAINING)
    leases = [floor.ask()[1] for _ in range(3)]
    assert [lease.engine if lease else None for lease in leases] == [b, None, None]
    assert floor.dispatcher.serve(1.0).leases == []
    floor.fleet.set_health(a, Health.READY)
    assert [lease.engine for lease in floor.dispatcher.serve(1.0).leases] == [a, a]


def test_a_ticket_whose_engines_are_drained_hears_so_at_the_deadline() -> None:
    floor = Floor()
    floor.fleet.set_health(floor.add("a", loaded="m"), Health.DRAINING)
    ticket = floor.ticket()
    ticket.deadline = 5.0
    assert floor.dispatcher.offer(ticket, 0.0) is None
    ((refused, fault),) = floor.dispatcher.step(6.0).refused
    assert refused is ticket
    assert fault.kind.code == "no_node"
    assert "a is draining" in fault.message


def test_a_removed_engine_gets_no_exchange_when_its_last_one_ends() -> None:
    floor = Floor()
    a = floor.add("a", loaded="m")
    _, lease = floor.ask()
    waiting, _ = floor.ask()
    assert lease is not None
    floor.fleet.remove(a)
    floor.dispatcher.release(lease)
    assert floor.dispatcher.serve(1.0).leases == []
    b = Engine("b", "http://b", health=Health.READY)
    floor.fleet.add(b)
    floor.fleet.learn(b, report("m", loaded=("m",)))
    (lease,) = floor.dispatcher.serve(2.0).leases
    assert (lease.engine, lease.ticket) == (b, waiting)


def test_an_engine_that_rests_keeps_its_slots_and_is_back_in_time() -> None:
    floor = Floor()
    a = floor.add("a", loaded="m", slots=4)
    floor.dispatcher.rest(a, 1.0)
    floor.ask()
    assert floor.dispatcher.serve(0.5).leases == []
    assert a.slots == 4
    assert len(floor.dispatcher.serve(1.0).leases) == 1
