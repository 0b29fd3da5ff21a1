"""Loads: one at a time, none at the cost of others' work, within an ageing bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hive.config import PolicyName
from hive.dialects.tasks import Dialect
from hive.fleet.engines import Engine, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import Known
from hive.scheduling.loads import AGEING, EVICTED_AFTER, FAILED_REST, is_running, room_bytes
from hive.scheduling.slots import BUSY_REST
from hive.scheduling.tickets import Lease, LoadEnd, LoadOrder, Ticket

from .fleets import GB, Floor, report


def orders(floor: Floor, now: float = 0.0) -> list[LoadOrder]:
    return floor.dispatcher.serve(now).loads


def only_order(floor: Floor, now: float = 0.0) -> LoadOrder:
    (order,) = orders(floor, now)
    return order


def finish(floor: Floor, order: LoadOrder, now: float, end: LoadEnd = LoadEnd.DONE) -> list[Ticket]:
    """End a load; return the tickets that were served thereby."""
    floor.dispatcher.load_finished(order, end, now)
    return [lease.ticket for lease in floor.dispatcher.serve(now).leases]


def test_a_cold_model_is_ordered_and_its_tickets_wait_for_it() -> None:
    floor = Floor()
    floor.add("a", slots=2)
    first, lease = floor.ask(load_options="num_ctx=8192")
    assert lease is None
    order = only_order(floor)
    assert (order.engine.node, order.model, order.load_options) == ("a", "m", "num_ctx=8192")
    second, lease = floor.ask(load_options="num_ctx=8192")
    assert (lease, orders(floor, 1.0)) == (None, [])
    assert finish(floor, order, 4.0) == [first, second]


@pytest.mark.parametrize("policy", PolicyName)
@pytest.mark.parametrize("memory", [None, 100 * GB])
def test_a_model_that_is_listed_during_its_load_is_not_in_memory_yet(policy: str, memory: int | None) -> None:
    """An Ollama lists a model from the moment in which its load begins: this serves no ticket and stops no load."""
    floor = Floor(policy=policy)
    engines = [floor.add(node, slots=4) for node in "ab"]
    for engine in engines:
        engine.known.memory_bytes = memory
    first, _ = floor.ask()
    order = only_order(floor)
    for now in (0.1, 2.5, 4.0):
        floor.load(order.engine, "m")
        floor.dispatcher.note_listing(order.engine, now)
        step = floor.dispatcher.step(now)
        assert (step.leases, step.loads) == ([], [])
        assert not order.engine.is_warm("m")
    second, lease = floor.ask(now=4.0)
    assert lease is None
    floor.dispatcher.load_finished(order, LoadEnd.DONE, 5.0)
    assert [each.ticket for each in floor.dispatcher.serve(5.0).leases] == [first, second]


def test_no_clients_departure_ends_a_load() -> None:
    floor = Floor()
    engine = floor.add("a")
    ticket, _ = floor.ask()
    order = only_order(floor)
    floor.dispatcher.cancel(ticket)
    assert engine.running.loading == "m"
    assert finish(floor, order, 4.0) == []
    assert floor.ask(now=5.0)[1] is not None


def test_an_engine_loads_one_model_at_a_time() -> None:
    floor = Floor()
    floor.add("a", "mn")
    first, _ = floor.ask("m")
    second, _ = floor.ask("n")
    order = only_order(floor)
    assert (order.model, orders(floor, 1.0)) == ("m", [])
    assert finish(floor, order, 4.0) == [first]
    assert list(floor.dispatcher.waiting()) == [second]


def test_two_engines_load_two_models() -> None:
    floor = Floor()
    floor.add("a", "mn")
    floor.add("b", "mn")
    floor.ask("m")
    floor.ask("n")
    both = orders(floor)
    assert ({each.engine.node for each in both}, {each.model for each in both}) == ({"a", "b"}, {"m", "n"})


@pytest.mark.parametrize("kind", [EngineKind.VLLM, EngineKind.LLAMA_CPP, EngineKind.OPENAI])
def test_engines_that_load_nothing_are_sent_the_request_itself(kind: EngineKind) -> None:
    floor = Floor()
    engine = floor.add("a")
    floor.fleet.learn(engine, report("m", kind=kind))
    floor.fleet.learn_loaded(engine, [])
    assert floor.ask(dialect=Dialect.OPENAI)[1] is not None
    assert orders(floor) == []


def test_other_options_than_it_was_loaded_with_are_a_load() -> None:
    floor = Floor()
    engine = floor.add("a")
    floor.ask(load_options="num_ctx=8192")
    finish(floor, only_order(floor), 4.0)
    floor.load(engine, "m")
    assert engine.is_warm("m", "num_ctx=8192")
    assert not engine.is_warm("m")
    assert not engine.is_warm("m", "num_ctx=4096")
    floor.load(engine)
    floor.load(engine, "m")
    assert engine.is_warm("m")
    assert engine.is_warm("m", "num_ctx=4096")


def test_no_load_begins_that_could_evict_the_model_of_a_running_exchange() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m", slots=2)
    _, lease = floor.ask("m")
    assert isinstance(lease, Lease)
    floor.ask("n")
    assert orders(floor) == []
    assert floor.dispatcher.step(30.0).loads == []
    floor.dispatcher.release(lease)
    assert only_order(floor, 31.0).engine is engine


def test_no_load_begins_that_could_evict_a_model_with_waiting_tickets() -> None:
    floor = Floor()
    floor.add("a", "mn", loaded="m")
    _, lease = floor.ask("m")
    floor.ask("n", now=1.0)
    later, _ = floor.ask("m", now=2.0)
    assert lease is not None
    floor.dispatcher.release(lease)
    step = floor.dispatcher.serve(3.0)
    assert ([each.ticket for each in step.leases], step.loads) == ([later], [])


def test_a_model_that_fits_by_the_stated_size_is_loaded_beside_running_exchanges() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m", slots=2)
    engine.known.memory_bytes = 12 * GB
    _, lease = floor.ask("m")
    floor.ask("n")
    assert only_order(floor).model == "n"
    assert lease is not None
    assert floor.ask("m", now=1.0)[1] is not None


def test_models_that_were_in_memory_together_are_known_to_fit() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="mn", slots=2)
    floor.load(engine, "m")
    floor.ask("m")
    floor.ask("n")
    order = only_order(floor)
    assert (order.model, order.unload) == ("n", ())


def test_the_model_that_is_missed_least_is_unloaded_where_that_makes_room() -> None:
    floor = Floor()
    engine = floor.add("a", "mnop", loaded="mno", slots=2)
    engine.learned.full_bytes = 16 * GB
    for step in range(20):
        for _ in range(9):
            _, lease = floor.ask("m", now=float(step))
            if lease is not None:
                floor.dispatcher.release(lease)
        _, lease = floor.ask("o", now=float(step))
        assert lease is not None
        floor.dispatcher.release(lease)
        floor.dispatcher.step(float(step))
    _, running = floor.ask("m", now=20.0)
    floor.ask("p", now=20.0)
    order = only_order(floor, 20.0)
    assert (order.model, order.unload) == ("p", ("n",))
    assert running is not None
    assert "n" not in engine.known.loaded
    assert floor.ask("o", now=20.5)[1] is not None, "what stays is served meanwhile"


def test_an_engine_that_may_evict_any_model_gets_no_exchange_until_it_was_asked() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m", slots=2)
    floor.ask("n")
    only_order(floor)
    waits, lease = floor.ask("m", now=0.5)
    assert lease is None
    floor.dispatcher.note_listing(engine, EVICTED_AFTER - 0.1)
    assert floor.dispatcher.serve(EVICTED_AFTER).leases == []
    floor.dispatcher.note_listing(engine, EVICTED_AFTER)
    assert [each.ticket for each in floor.dispatcher.serve(EVICTED_AFTER).leases] == [waits]


def test_a_listing_that_lacks_a_model_shows_how_many_bytes_do_not_fit() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m", slots=2)
    floor.dispatcher.note_listing(engine, 0.0)
    floor.ask("n", now=1.0)
    only_order(floor, 1.0)
    floor.load(engine)
    floor.dispatcher.note_listing(engine, 4.0)
    assert (engine.learned.full_bytes, engine.learned.proven_bytes) == (10 * GB, 5 * GB)


def test_a_ticket_whose_model_was_not_served_for_a_minute_may_evict() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m")
    _, lease = floor.ask("m")
    floor.ask("n")
    for now in range(1, 61):
        assert floor.dispatcher.step(now - 0.5).loads == []
    (order,) = floor.dispatcher.step(AGEING).loads
    assert order.model == "n"
    assert lease is not None
    floor.dispatcher.release(lease)
    starves_it, lease = floor.ask("m", now=61.0)
    assert lease is None, "else the engine would never come to evict it"
    assert engine.limit == 0
    floor.load(engine, "n")
    floor.dispatcher.load_finished(order, LoadEnd.DONE, 70.0)
    assert [each.ticket.model for each in floor.dispatcher.serve(70.0).leases] == ["n"]
    assert list(floor.dispatcher.waiting()) == [starves_it]


def test_a_load_that_failed_rests_and_the_engine_itself_says_why() -> None:
    floor = Floor()
    engine = floor.add("a")
    ticket, _ = floor.ask()
    order = only_order(floor)
    assert finish(floor, order, 1.0, LoadEnd.FAILED) == [ticket]
    assert engine.running.loading == ""
    other = Floor()
    other.add("a", slots=2)
    other.add("b", slots=2)
    ticket, _ = other.ask()
    first = only_order(other)
    other.dispatcher.load_finished(first, LoadEnd.FAILED, 1.0)
    second = only_order(other, 1.0)
    assert second.engine is not first.engine
    other.dispatcher.load_finished(second, LoadEnd.FAILED, 2.0)
    (lease,) = other.dispatcher.serve(2.0).leases
    assert "load failed" in lease.reason
    other.dispatcher.release(lease)
    other.ask(now=FAILED_REST + 3.0)
    assert len(orders(other, FAILED_REST + 3.0)) == 1


def test_a_failed_load_does_not_stop_a_load_with_other_options() -> None:
    floor = Floor()
    floor.add("a")
    bad, _ = floor.ask(load_options="num_ctx=1000000000")
    floor.dispatcher.load_finished(only_order(floor), LoadEnd.FAILED, 1.0)
    (lease,) = floor.dispatcher.serve(1.0).leases
    assert (lease.ticket, lease.reason) == (bad, "its load failed: the engine says why")
    floor.dispatcher.release(lease)
    good, _ = floor.ask(now=2.0)
    order = only_order(floor, 2.0)
    assert order.load_options == ""
    assert finish(floor, order, 4.0) == [good]
    floor.ask(load_options="num_ctx=1000000000", now=5.0)
    assert orders(floor, 6.0) == [], "that one is not tried again so soon"


@pytest.mark.parametrize("policy", PolicyName)
def test_a_model_that_was_listed_during_a_failed_load_is_not_in_memory(policy: str) -> None:
    """Else all tickets for the model would be sent to the engine that could not load it."""
    floor = Floor(policy=policy)
    engines = {floor.add(node) for node in "ab"}
    floor.ask()
    first = only_order(floor)
    floor.load(first.engine, "m")
    floor.dispatcher.load_finished(first, LoadEnd.FAILED, 3.0)
    assert not first.engine.is_warm("m")
    assert floor.fleet.copies == {}
    step = floor.dispatcher.serve(3.0)
    assert (step.leases, {order.engine for order in step.loads}) == ([], engines - {first.engine})


def test_after_a_failed_load_with_other_options_the_model_is_not_in_memory_at_all() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    engine.running.loaded_as["m"] = ""
    floor.ask(load_options="num_ctx=8192")
    floor.dispatcher.load_finished(only_order(floor), LoadEnd.FAILED, 1.0)
    assert not engine.is_warm("m")


def test_a_load_that_an_engine_was_too_busy_for_is_ordered_again_after_its_rest() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    engine.running.loaded_as["m"] = ""
    ticket, _ = floor.ask(load_options="num_ctx=8192")
    order = only_order(floor)
    assert finish(floor, order, 1.0, LoadEnd.BUSY) == []
    assert engine.running.rests_until == 1.0 + BUSY_REST
    assert engine.is_warm("m", ""), "what it had, it has still"
    assert orders(floor, 0.9 + BUSY_REST) == []
    again = only_order(floor, 1.0 + BUSY_REST)
    assert finish(floor, again, 5.0) == [ticket]


def test_the_end_of_a_load_counts_once_and_that_of_an_unknown_order_never() -> None:
    floor = Floor()
    engine = floor.add("a")
    floor.ask()
    order = only_order(floor)
    floor.dispatcher.load_finished(LoadOrder(engine, "m", "", "", 0.0), LoadEnd.DONE, 1.0)
    assert engine.running.loading == "m"
    floor.dispatcher.load_finished(order, LoadEnd.DONE, 4.0)
    floor.dispatcher.load_finished(order, LoadEnd.FAILED, 5.0)
    assert engine.is_warm("m")
    assert floor.dispatcher.loads.count_of == {}


def test_a_ticket_that_finds_the_queue_full_orders_no_load() -> None:
    floor = Floor(limit=0)
    engine = floor.add("a")
    with pytest.raises(Exception, match="queue"):
        floor.ask()
    assert (engine.running.loading, floor.dispatcher.has_news) == ("", False)


def test_an_engine_out_of_service_loads_no_model() -> None:
    floor = Floor()
    floor.fleet.set_health(floor.add("a"), Health.DRAINING)
    floor.ask()
    assert orders(floor) == []


def test_a_stated_size_of_memory_holds_until_a_model_had_to_go() -> None:
    engine = Engine("a", "http://a", known=Known(memory_bytes=24 * GB))
    assert room_bytes(engine) == 20 * GB
    engine.learned.full_bytes = 16 * GB
    assert room_bytes(engine) == 16 * GB - 1
    engine.learned.proven_bytes = 18 * GB
    assert room_bytes(engine) == 18 * GB


def test_a_model_that_runs_by_another_name_is_not_unloaded() -> None:
    floor = Floor()
    engine = floor.add("a", "mno", loaded="m", slots=4)
    twins = dict(engine.known.models)
    twins["twin"] = replace(twins["m"], key="twin", id="twin")
    engine.known.models = twins
    engine.known.find_warm()
    engine.running.of_model["twin"] = 1
    assert is_running(engine, "m")
    assert not is_running(engine, "n")


def test_other_options_wait_no_longer_than_a_minute_beside_steady_traffic() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m", slots=2)
    engine.running.loaded_as["m"] = ""
    _, running = floor.ask(now=0.0)
    odd, none = floor.ask(load_options='{"num_ctx": 8192}', now=0.5)
    assert none is None
    for second in range(1, 62):
        _, after = floor.ask(now=float(second))
        assert running is not None
        floor.dispatcher.release(running)
        step = floor.dispatcher.step(second + 0.1)
        running = after or next((each for each in step.leases), None)
        if step.loads:
            break
    assert [(order.model, order.load_options) for order in step.loads] == [("m", odd.load_options)]
    assert engine.limit == 0, "what runs ends first, and nothing new begins meanwhile"
    (order,) = step.loads
    floor.dispatcher.load_finished(order, LoadEnd.DONE, 70.0)
    assert odd in [lease.ticket for lease in floor.dispatcher.serve(70.0).leases]


def test_a_model_that_expired_during_a_load_has_not_been_evicted() -> None:
    floor = Floor()
    engine = floor.add("a", "mn", loaded="m", slots=4)
    floor.dispatcher.note_listing(engine, 0.0)
    floor.ask("n", now=30.0)
    (order,) = floor.dispatcher.serve(30.0).loads
    floor.load(engine, "n")
    floor.dispatcher.note_listing(engine, 33.0)
    assert engine.learned.full_bytes == float("inf")
    floor.dispatcher.load_finished(order, LoadEnd.DONE, 33.0)
