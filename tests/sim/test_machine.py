"""The rules of the engine's scheduler as transcripts: which job gets a slot, and when."""

from __future__ import annotations

import math

import pytest

from hive.sim.machine import Job, QueueFull, SimMachine


def machine(**changes: float) -> SimMachine:
    settings = {"slots": 1, "max_loaded": 2, "max_queue": 2, "load_time": 1.0, "session": 300.0} | changes
    return SimMachine(**settings)  # type: ignore[arg-type]


def job(model: str = "a", num_ctx: int = 4096, **rest: object) -> Job:
    return Job(model, num_ctx, **rest)  # type: ignore[arg-type]


def loaded(model: str = "a", **changes: float) -> SimMachine:
    engine = machine(**changes)
    first = job(model)
    engine.submit(first)
    engine.step(0)
    engine.step(1)
    engine.leave(first, 1)
    return engine


def test_a_cold_model_is_granted_when_its_load_is_over() -> None:
    engine, first = machine(), job()
    engine.submit(first)
    step = engine.step(0)
    assert (step.granted, step.next_at) == ((), 1.0)
    assert engine.step(0.9).granted == ()
    assert engine.step(1.0).granted == (first,)
    assert (engine.loads, engine.running, engine.waiting) == (1, 1, 0)


def test_slots_bound_the_running_jobs_and_the_others_wait_in_order() -> None:
    engine = loaded(slots=2, max_queue=2)
    jobs = [job() for _ in range(4)]
    for each in jobs:
        engine.submit(each)
    assert engine.step(2).granted == (jobs[0], jobs[1])
    engine.leave(jobs[1], 3)
    assert engine.step(3).granted == (jobs[2],)
    engine.leave(jobs[0], 3)
    assert engine.step(3).granted == (jobs[3],)


def test_the_queue_is_bounded() -> None:
    engine = loaded(max_queue=1)
    engine.submit(job())
    engine.step(2)
    engine.submit(job())
    engine.step(2)
    with pytest.raises(QueueFull):
        engine.submit(job())


def test_the_first_job_runs_without_any_queue() -> None:
    engine = loaded(max_queue=0)
    engine.submit(job())
    assert len(engine.step(2).granted) == 1
    with pytest.raises(QueueFull):
        engine.submit(job())


def test_one_load_runs_at_a_time_and_no_job_passes_in_the_queue() -> None:
    engine, first, second = machine(), job("a"), job("b")
    engine.submit(first)
    engine.submit(second)
    engine.step(0)
    assert engine.step(1.0).granted == (first,)
    assert engine.step(1.5).granted == ()
    assert engine.step(2.0).granted == (second,)


def test_a_job_for_a_loaded_model_passes_the_queue() -> None:
    engine, cold, warm = loaded("a"), job("b"), job("a")
    engine.submit(cold)
    engine.step(2)
    engine.submit(warm)
    assert engine.step(2).granted == (warm,)


def test_an_idle_model_is_unloaded_to_make_room() -> None:
    engine = loaded("a", max_loaded=1)
    other = job("b")
    engine.submit(other)
    engine.step(2)
    assert engine.step(3).granted == (other,)
    assert (list(engine.runners), engine.unloads) == (["b"], 1)


def test_a_busy_model_is_unloaded_only_once_it_is_idle() -> None:
    engine = loaded("a", max_loaded=1)
    busy, other = job("a"), job("b")
    engine.submit(busy)
    engine.step(2)
    engine.submit(other)
    engine.step(2)
    assert list(engine.runners) == ["a"]
    engine.leave(busy, 5)
    engine.step(5)
    assert engine.step(6).granted == (other,)


def test_another_context_length_loads_the_model_again() -> None:
    engine = loaded("a")
    longer = job("a", 8192)
    assert not engine.has_loaded("a", 8192)
    engine.submit(longer)
    engine.step(2)
    assert engine.step(3).granted == (longer,)
    assert (engine.loads, engine.unloads) == (2, 1)


def test_a_job_that_leaves_aborts_its_load_and_the_next_job_begins_a_new_one() -> None:
    engine, first, second = machine(), job(), job()
    engine.submit(first)
    engine.submit(second)
    engine.step(0)
    engine.leave(first, 0.5)
    assert engine.loads_aborted == 1
    assert engine.step(0.5).next_at == 1.5
    assert engine.step(1.5).granted == (second,)


def test_a_job_that_left_the_queue_never_gets_a_slot() -> None:
    engine, first, second = loaded("a"), job(), job()
    engine.submit(first)
    engine.submit(second)
    engine.step(2)
    engine.leave(second, 2)
    engine.leave(first, 3)
    assert engine.step(3).granted == ()
    assert (engine.running, engine.waiting) == (0, 0)


def test_a_failed_load_fails_only_its_own_job() -> None:
    engine, first, second = machine(), job(load_fails=True), job()
    engine.submit(first)
    engine.submit(second)
    engine.step(0)
    step = engine.step(1)
    assert (step.failed, step.granted) == ((first,), ())
    assert engine.step(2).granted == (second,)
    assert (engine.loads, engine.loads_failed) == (1, 1)


@pytest.mark.parametrize(("keep_alive", "expires_at"), [(None, 302.0), (5.0, 7.0), (0.0, 2.0), (math.inf, math.inf)])
def test_an_idle_model_stays_for_the_keep_alive_of_its_last_request(
    keep_alive: float | None, expires_at: float
) -> None:
    engine, last = loaded("a"), job(keep_alive=keep_alive)
    engine.submit(last)
    engine.step(2)
    engine.leave(last, 2)
    assert engine.step(1.5).next_at == expires_at
    if math.isfinite(expires_at):
        engine.step(expires_at)
        assert not engine.runners


def test_unload_waits_for_the_last_request() -> None:
    engine, busy = loaded("a"), job()
    engine.submit(busy)
    engine.step(2)
    engine.unload("a", 2)
    engine.step(2)
    assert list(engine.runners) == ["a"]
    engine.leave(busy, 3)
    engine.step(3)
    assert not engine.runners
