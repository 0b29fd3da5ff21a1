"""The wait for a slot: who is let in, who leaves, and what is told of a load that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hive.sim.machine import Job, QueueFull, SimMachine
from hive.sim.turns import LoadFailed, Pulse, SimTurns


def with_turns(test: Callable[[SimTurns], Awaitable[None]], *, load_time: float = 0.0, max_queue: int = 9) -> None:
    """Run a test with the turns of a machine of one slot."""

    async def run() -> None:
        turns = SimTurns(SimMachine(1, 1, max_queue, load_time, 300.0), Pulse())
        try:
            async with asyncio.timeout(10):
                await test(turns)
        finally:
            turns.stop()

    asyncio.run(run())


def job(name: str = "a", **more: object) -> Job:
    return Job(name, 4096, **more)  # type: ignore[arg-type]


async def turn() -> None:
    await asyncio.sleep(0)


def test_one_job_after_the_other_holds_the_slot() -> None:
    seen = []

    async def hold(turns: SimTurns, number: int) -> None:
        async with turns.slot(job()):
            seen.append(number)
            await turn()
            assert turns.machine.running == 1
            seen.append(number)

    async def test(turns: SimTurns) -> None:
        await asyncio.gather(*(hold(turns, number) for number in range(3)))
        assert turns.machine.running == 0

    with_turns(test)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_a_job_waits_for_its_load() -> None:
    async def test(turns: SimTurns) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with turns.slot(job()):
            assert loop.time() - began >= 0.05

    with_turns(test, load_time=0.05)


def test_a_block_that_fails_gives_its_slot_back() -> None:
    async def test(turns: SimTurns) -> None:
        with pytest.raises(ZeroDivisionError):
            async with turns.slot(job()):
                _ = 1 // 0
        async with turns.slot(job()):
            pass

    with_turns(test)


def test_a_job_that_is_cancelled_while_it_waits_is_forgotten() -> None:
    async def test(turns: SimTurns) -> None:
        async def hold() -> None:
            async with turns.slot(job()):
                raise AssertionError("it was cancelled")

        async with turns.slot(job()):
            waiting = asyncio.create_task(hold())
            await turn()
            assert turns.machine.waiting == 1
            waiting.cancel()
            await asyncio.wait([waiting])
            assert turns.machine.waiting == 0

    with_turns(test)


def test_a_full_queue_is_told() -> None:
    async def test(turns: SimTurns) -> None:
        async def wait() -> None:
            async with turns.slot(job("b")):
                pass

        async with turns.slot(job()):
            waiting = asyncio.create_task(wait())
            await turn()
            with pytest.raises(QueueFull):
                await wait()
        await waiting

    with_turns(test, max_queue=1)


def test_a_load_that_fails_is_told_to_its_job() -> None:
    async def test(turns: SimTurns) -> None:
        with pytest.raises(LoadFailed):
            async with turns.slot(job(load_fails=True)):
                pass
        async with turns.slot(job()):
            pass

    with_turns(test)


def test_a_model_leaves_memory_when_it_is_told_to() -> None:
    async def test(turns: SimTurns) -> None:
        async with turns.slot(job()):
            pass
        assert "a" in turns.machine.runners
        turns.unload("a")
        assert "a" not in turns.machine.runners

    with_turns(test)


def test_a_pulse_wakes_those_for_whom_it_has_become_true() -> None:
    async def run() -> None:
        pulse, facts = Pulse(), set()
        first = asyncio.create_task(pulse.until(lambda: "a" in facts))
        second = asyncio.create_task(pulse.until(lambda: "b" in facts))
        await turn()
        facts.add("a")
        pulse.beat()
        await first
        assert not second.done()
        facts.add("b")
        pulse.beat()
        await second

    asyncio.run(run())


def test_a_pulse_is_not_waited_for_when_it_is_true_already() -> None:
    asyncio.run(Pulse().until(lambda: True))
