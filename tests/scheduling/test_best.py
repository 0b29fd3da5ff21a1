"""The policy `best`: which engine it chooses, and when it waits or loads instead."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.engines import Engine, Health
from hive.scheduling.tickets import LoadOrder

from .fleets import GB, Floor


def chosen(floor: Floor, times: int, model: str = "m", now: float = 0.0) -> Counter[str]:
    """Return the nodes that serve so many tickets, each time from the same state."""
    nodes: Counter[str] = Counter()
    for _ in range(times):
        _, lease = floor.ask(model, now=now)
        assert lease is not None
        assert lease.reason
        assert len(lease.reason) < 60
        nodes[lease.engine.node] += 1
        floor.dispatcher.release(lease)
    return nodes


def busy(floor: Floor, engine: Engine, running: int = 1) -> None:
    engine.running.count, engine.running.of_model = running, {"m": running}


def test_best_takes_the_engine_that_is_expected_to_be_soonest() -> None:
    floor = Floor()
    for node, seconds in (("a", 0.4), ("b", 0.1), ("c", 0.2)):
        floor.teach(floor.add(node, loaded="m", slots=4), seconds=seconds)
    assert chosen(floor, 50) == {"b": 50}


def test_best_counts_the_round_trip() -> None:
    floor = Floor()
    near, far = floor.add("a", loaded="m", slots=4), floor.add("b", loaded="m", slots=4)
    floor.teach(near, seconds=0.2)
    floor.teach(far, seconds=0.1)
    far.known.round_trip = 0.3
    assert chosen(floor, 20) == {"a": 20}


def test_best_counts_the_exchanges_that_run_on_the_engine() -> None:
    floor = Floor()
    crowded, empty = floor.add("a", loaded="m", slots=8), floor.add("b", loaded="m", slots=8)
    floor.teach(crowded, seconds=0.1)
    floor.teach(empty, seconds=0.15)
    busy(floor, crowded, 5)
    assert chosen(floor, 20) == {"b": 20}


def test_a_long_prompt_goes_to_the_fast_engine_a_short_one_to_the_near_engine() -> None:
    floor = Floor()
    near, fast = floor.add("a", loaded="m", slots=4), floor.add("b", loaded="m", slots=4)
    floor.teach(near, seconds=0.4)
    floor.teach(fast, seconds=0.1)
    fast.known.round_trip = 0.2
    for tokens, node in ((10, "a"), (4_000, "b")):
        _, lease = floor.ask(prompt_tokens=tokens)
        assert lease is not None
        assert lease.engine.node == node
        floor.dispatcher.release(lease)


def test_a_new_engine_does_not_draw_all_requests() -> None:
    floor = Floor()
    for node in "ab":
        floor.teach(floor.add(node, loaded="m", slots=50), seconds=0.2)
    floor.add("new", loaded="m", slots=50)
    nodes: Counter[str] = Counter()
    for _ in range(20):
        _, lease = floor.ask()
        assert lease is not None
        nodes[lease.engine.node] += 1
    assert 1 <= nodes["new"] <= 7, "no more than its share, while its pace is unknown"


def test_an_engine_of_unknown_pace_is_measured_now_and_then() -> None:
    floor = Floor()
    for node, seconds in (("a", 0.1), ("b", 0.3), ("c", 0.3)):
        floor.teach(floor.add(node, loaded="m", slots=4), seconds=seconds)
    floor.add("new", loaded="m", slots=4)
    tries = chosen(floor, 1_000)["new"]
    assert 20 < tries < 100
    floor.teach(floor.fleet.engines[3], seconds=0.3)
    assert chosen(floor, 300)["new"] == 0


def test_a_hopelessly_slow_engine_is_not_measured() -> None:
    floor = Floor()
    fast, slow = floor.add("a", "mn", loaded="mn", slots=4), floor.add("b", "mn", loaded="mn", slots=4)
    for _ in range(9):
        for engine, seconds in ((fast, 0.1), (slow, 2.0)):
            floor.teach(engine, "n", seconds=seconds)
    floor.teach(fast, "m", seconds=0.1)
    assert chosen(floor, 300) == {"a": 300}


def test_an_engine_on_probation_gets_little() -> None:
    floor = Floor()
    proven, back = floor.add("a", loaded="m", slots=4), floor.add("b", loaded="m", slots=4)
    floor.teach(proven, seconds=0.3)
    floor.teach(back, seconds=0.1)
    floor.fleet.set_health(back, Health.PROBATION)
    leases = [floor.ask()[1] for _ in range(6)]
    nodes = Counter(lease.engine.node for lease in leases if lease is not None)
    assert nodes == {"a": 4, "b": 1}


def test_a_free_slot_of_a_slow_engine_is_declined_while_a_fast_one_is_free_sooner() -> None:
    floor = Floor()
    fast, slow = floor.add("fast", loaded="m"), floor.add("slow", loaded="m")
    floor.teach(fast, seconds=0.1, service=1.0)
    floor.teach(slow, seconds=8.0, service=30.0)
    _, lease = floor.ask()
    assert lease is not None
    assert lease.engine is fast
    waits, nothing = floor.ask(now=0.1)
    assert (nothing, slow.running.count) == (None, 0)
    floor.dispatcher.release(lease)
    (lease,) = floor.dispatcher.serve(0.9).leases
    assert (lease.ticket, lease.engine) == (waits, fast)


def test_a_free_slot_is_declined_for_no_longer_than_the_slow_engine_would_have_taken() -> None:
    floor = Floor()
    fast, slow = floor.add("fast", loaded="m"), floor.add("slow", loaded="m")
    floor.teach(fast, seconds=0.1, service=1.0)
    floor.teach(slow, seconds=8.0, service=30.0)
    floor.ask()
    waits, _ = floor.ask()
    for now in range(1, 8):
        assert floor.dispatcher.step(float(now)).leases == []
    (lease,) = floor.dispatcher.step(8.0).leases
    assert (lease.ticket, lease.engine) == (waits, slow)


def test_the_last_ticket_decides_whether_a_slow_engine_is_used() -> None:
    floor = Floor()
    fast, slow = floor.add("fast", loaded="m"), floor.add("slow", loaded="m")
    floor.teach(fast, seconds=0.1, service=1.0)
    floor.teach(slow, seconds=8.0, service=30.0)
    floor.ask()
    tickets = [floor.ask()[0] for _ in range(12)]
    (lease,) = floor.dispatcher.serve(0.1).leases
    assert (lease.ticket, lease.engine) == (tickets[0], slow), "the first in the queue, as ever"


def test_a_ticket_that_joins_a_lane_that_declines_a_slot_has_the_lane_considered_again() -> None:
    floor = Floor()
    fast, slow = floor.add("fast", loaded="m"), floor.add("slow", loaded="m")
    floor.teach(fast, seconds=0.1, service=1.0)
    floor.teach(slow, seconds=8.0, service=30.0)
    floor.ask()
    first, _ = floor.ask()
    assert floor.dispatcher.serve(0.0).leases == []
    assert not floor.dispatcher.has_news
    served = []
    for _ in range(12):
        floor.ask()
        assert floor.dispatcher.has_news or served
        served += [(lease.ticket, lease.engine) for lease in floor.dispatcher.serve(0.1).leases]
    assert served == [(first, slow)]


def test_a_warm_engine_comes_before_a_cold_one_even_if_it_runs_more() -> None:
    floor = Floor()
    warm = floor.add("warm", loaded="m", slots=8)
    floor.add("cold", slots=8)
    busy(floor, warm, 5)
    assert chosen(floor, 20) == {"warm": 20}


def test_a_short_wait_for_a_warm_engine_beats_a_load() -> None:
    floor = Floor()
    warm = floor.add("warm", loaded="m")
    floor.add("cold", size=20 * GB)
    floor.teach(warm, service=2.0)
    _, lease = floor.ask()
    floor.ask()
    assert floor.dispatcher.serve(0.0).loads == []
    assert lease is not None


def test_a_long_queue_is_worth_a_second_copy() -> None:
    floor = Floor()
    floor.teach(floor.add("warm", loaded="m"), service=10.0)
    cold = floor.add("cold")
    for _ in range(20):
        floor.ask()
    assert [each.engine for each in floor.dispatcher.step(0.5).loads] == [cold]


def pressed(floor: Floor, seconds: int, start: int = 0, pause: int = 0) -> list[LoadOrder]:
    """Keep an engine with one slot at work, a request a second, two always waiting; return what was loaded meanwhile.

    Every `pause` seconds no ticket waits for a moment, if it is not 0.
    """
    orders: list[LoadOrder] = []
    _, lease = floor.ask(now=float(start))
    for now in range(start, start + seconds):
        is_pause = pause > 0 and now % pause == 0
        while floor.dispatcher.waiting_count < 2 and not is_pause:
            floor.ask(now=float(now))
        assert lease is not None
        floor.dispatcher.release(lease)
        while is_pause and floor.dispatcher.waiting_count:
            (lease,) = floor.dispatcher.serve(float(now)).leases
            floor.dispatcher.release(lease)
        if is_pause:
            _, lease = floor.ask(now=float(now))
            continue
        step = floor.dispatcher.step(now + 1.0)
        orders += step.loads
        (lease,) = step.leases
    return orders


def one_warm_one_idle() -> Floor:
    floor = Floor()
    floor.teach(floor.add("warm", loaded="m"), service=1.0)
    floor.add("idle", size=20 * GB)
    return floor


def test_one_more_idle_engine_loads_a_model_after_tickets_waited_for_twice_the_load() -> None:
    """Though each of them waits far less than a load takes."""
    floor = one_warm_one_idle()
    seconds = floor.dispatcher.estimates.load(floor.fleet.engines[1], "m")
    assert seconds == pytest.approx(21)
    assert pressed(floor, 20) == []
    (order,) = pressed(one_warm_one_idle(), 80)
    assert (order.engine.node, order.model, order.unload) == ("idle", "m", ())


def test_the_time_begins_anew_after_a_moment_without_waiting_tickets() -> None:
    assert pressed(one_warm_one_idle(), 300, start=1, pause=20) == []


def test_an_engine_with_an_exchange_is_not_idle() -> None:
    """Though the model would fit beside what runs there."""
    for running, count in ((1, 0), (0, 1)):
        floor = one_warm_one_idle()
        other = floor.fleet.engines[1]
        other.known.memory_bytes, other.running.count, other.running.of_model = (
            100 * GB,
            running,
            dict.fromkeys("n" * running, 1),
        )
        assert len(pressed(floor, 80)) == count


def test_a_rarely_used_engine_is_taken_for_a_load_rather_than_a_busy_one() -> None:
    floor = Floor()
    hot, cool = floor.add("hot", "mn", loaded="n"), floor.add("cool", "mno", loaded="o")
    for step in range(200):
        _, lease = floor.ask("n", now=step * 0.5)
        assert lease is not None
        floor.dispatcher.release(lease)
        floor.dispatcher.step(step * 0.5)
    floor.ask("m", now=100.0)
    (order,) = floor.dispatcher.serve(100.0).loads
    assert order.engine is cool
    assert hot.is_warm("n")


def test_the_decision_names_the_engines_and_their_expected_seconds() -> None:
    floor = Floor()
    for node, seconds in (("a", 0.4), ("b", 0.1)):
        floor.teach(floor.add(node, loaded="m", slots=4), seconds=seconds)
    _, lease = floor.ask()
    assert lease is not None
    decision = lease.decision
    assert (decision.policy, decision.reason, decision.node) == ("best", "soonest first byte", "b")
    seconds = {each.node: each.seconds for each in decision.candidates}
    assert seconds == {"a": pytest.approx(0.4), "b": pytest.approx(0.1)}


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0.1, 0.2, 0.4, 3.0]), st.booleans()), min_size=2, max_size=6
    ),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=100)
def test_no_engine_that_is_clearly_sooner_is_passed_over(engines: list[tuple[int, float, bool]], seed: int) -> None:
    floor = Floor(seed=seed)
    for place, (running, seconds, is_loaded) in enumerate(engines):
        engine = floor.add(str(place), loaded="m" if is_loaded else "", slots=4)
        floor.teach(engine, seconds=seconds)
        busy(floor, engine, running) if running else None
    _, lease = floor.ask()
    if lease is None:
        return
    assert lease.engine.is_warm("m")
    assert lease.running <= 4
    expected = {each.node: each.seconds for each in lease.decision.candidates}
    assert expected[lease.engine.node] <= min(expected.values()) * 1.06


def test_a_second_exchange_goes_to_another_engine_than_an_ollama_with_one_slot() -> None:
    floor = Floor()
    fast, slow = floor.add("fast", loaded="m", slots=None), floor.add("slow", loaded="m", slots=None)
    for engine, seconds in ((fast, 0.1), (slow, 0.4)):
        floor.teach(engine, seconds=seconds, service=5.0)
        engine.learned.guess = 2.0
        engine.apply_slots()
    _, first = floor.ask()
    _, second = floor.ask()
    assert first is not None
    assert second is not None
    assert (first.engine, second.engine) == (fast, slow)
    assert floor.ask()[1] is not None, "no other engine is free, so it is tried"
