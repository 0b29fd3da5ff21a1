"""A coroutine without a task: it starts and goes on in the call that lets it, and is cancelled where it waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest

from hive.hub.runner import Promise, Runner


class Steps:
    """A coroutine that waits for some things in turn, and what it went through."""

    def __init__(self, *waits: Awaitable[Any]) -> None:
        self.waits = waits
        self.seen: list[object] = []

    async def run(self) -> None:
        try:
            for wait in self.waits:
                self.seen.append(await wait)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.seen.append("over")


def started(coroutine: Coroutine[Any, None, None]) -> Runner:
    runner = Runner(coroutine)
    runner.start()
    return runner


def test_a_coroutine_that_waits_for_nothing_is_over_at_once() -> None:
    steps = Steps()
    assert started(steps.run()).is_over
    assert steps.seen == ["over"]


def test_a_promise_resumes_the_coroutine_in_the_call_that_keeps_it() -> None:
    promise = Promise[int]()
    steps = Steps(promise)
    runner = started(steps.run())
    assert (steps.seen, runner.is_over) == ([], False)
    promise.keep(7)
    assert (steps.seen, runner.is_over) == ([7, "over"], True)


def test_a_promise_that_is_kept_already_is_not_waited_for() -> None:
    promise = Promise[int]()
    promise.keep(7)
    steps = Steps(promise)
    assert started(steps.run()).is_over
    assert steps.seen == [7, "over"]


def test_only_the_first_value_of_a_promise_counts() -> None:
    promise = Promise[int]()
    promise.keep(1)
    promise.keep(2)
    assert promise.value == 1


def test_a_future_resumes_the_coroutine() -> None:
    async def run() -> None:
        future = asyncio.get_running_loop().create_future()
        steps = Steps(future)
        runner = started(steps.run())
        future.set_result("done")
        assert not runner.is_over
        await asyncio.sleep(0)
        assert steps.seen == ["done", "over"]

    asyncio.run(run())


def test_a_cancelled_runner_ends_where_it_waits_and_the_promise_resumes_nothing() -> None:
    promise = Promise[int]()
    steps = Steps(promise)
    runner = started(steps.run())
    runner.cancel()
    assert (steps.seen, runner.is_over) == (["cancelled", "over"], True)
    promise.keep(7)
    assert steps.seen == ["cancelled", "over"]


def test_cancelling_cancels_the_future_that_is_waited_for() -> None:
    async def run() -> None:
        future = asyncio.get_running_loop().create_future()
        steps = Steps(future)
        runner = started(steps.run())
        runner.cancel()
        assert future.cancelled()
        await asyncio.sleep(0)
        assert (steps.seen, runner.is_over) == (["cancelled", "over"], True)

    asyncio.run(run())


def test_a_runner_that_cancels_itself_is_cancelled_at_its_next_wait() -> None:
    seen = []

    async def work() -> None:
        runner.cancel()
        seen.append("goes on")
        try:
            await Promise[int]()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    runner = Runner(work())
    runner.start()
    assert (seen, runner.is_over) == (["goes on", "cancelled"], True)


def test_a_coroutine_may_wait_on_after_it_was_cancelled() -> None:
    first, promise = Promise[int](), Promise[int]()
    seen = []

    async def work() -> None:
        try:
            await first
        except asyncio.CancelledError:
            seen.append(await promise)

    runner = started(work())
    runner.cancel()
    first.keep(1)
    assert not runner.is_over, "what it no longer waits for does not resume it"
    promise.keep(7)
    assert (seen, runner.is_over) == ([7], True)


def test_cancelling_what_is_over_does_nothing() -> None:
    runner = started(Steps().run())
    runner.cancel()
    assert runner.is_over


def test_an_error_is_logged_and_ends_the_coroutine(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "hive.hub.runner"):
        assert started(work()).is_over
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
