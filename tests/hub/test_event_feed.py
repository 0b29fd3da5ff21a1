"""Followers of the event log: woken together, told of gaps, and gone without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from hive.errors import OVERLOADED, Fault
from hive.hub.event_feed import BATCH, MAX_FOLLOWERS, EventFeed, News
from hive.hub.event_log import EventLog, Gap, Position
from hive.hub.events import EventKind, NodeGone
from hive.hub.records import Record

FOREVER = 60.0
Follower = AsyncGenerator[News | Gap, None]


class Scene:
    """A log that keeps 500 events, and its feed."""

    def __init__(self) -> None:
        self.log = EventLog(epoch="ab", kept=500)
        self.feed = EventFeed(self.log)
        self.may_follow = True

    def leave(self, *names: str) -> None:
        for name in names:
            self.log.append(EventKind.NODE_LEFT, name, NodeGone("gone"))

    def follow(self, number: int = 0, *, kinds: object = EventKind, quiet: float = FOREVER) -> Follower:
        may_follow = lambda: self.may_follow  # noqa: E731
        return self.feed.follow(Position("ab", number), frozenset(kinds), quiet, may_follow)  # type: ignore[call-overload]


def run(work: Callable[[Scene], Awaitable[None]]) -> None:
    async def scene() -> None:
        async with asyncio.timeout(20):
            await work(Scene())

    asyncio.run(scene())


async def news(follower: Follower) -> list[str]:
    """Return the subjects of the events that come next."""
    found = await anext(follower)
    assert isinstance(found, News)
    return [event.subject for event in found.events]


async def waiting(follower: Follower) -> asyncio.Task[list[str]]:
    """Return a task that waits for news, and has begun to wait."""
    task = asyncio.ensure_future(news(follower))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


def test_a_follower_gets_what_is_there_and_what_comes() -> None:
    async def work(scene: Scene) -> None:
        scene.leave("a", "b")
        async with aclosing(scene.follow(1)) as follower:
            assert await news(follower) == ["b"]
            task = await waiting(follower)
            scene.leave("c", "d")
            assert await task == ["c", "d"]

    run(work)


def test_two_followers_get_the_same() -> None:
    async def work(scene: Scene) -> None:
        async with aclosing(scene.follow()) as one, aclosing(scene.follow()) as other:
            tasks = [await waiting(one), await waiting(other)]
            scene.leave("a")
            assert await asyncio.gather(*tasks) == [["a"], ["a"]]
            assert scene.feed.followers == 2

    run(work)


def test_a_writer_schedules_one_thing_however_many_follow_and_however_much_it_writes() -> None:
    async def work(scene: Scene) -> None:
        followers = [scene.follow() for _ in range(50)]
        tasks = [await waiting(follower) for follower in followers]
        scheduled: list[object] = []
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon
        loop.call_soon = lambda *args, **more: scheduled.append(args) or call_soon(*args, **more)  # type: ignore
        scene.leave("a", "b", "c")
        scene.log.append_requests([Record()] * 20)
        loop.call_soon = call_soon  # type: ignore[method-assign]
        assert len(scheduled) == 1
        assert [len(each) for each in await asyncio.gather(*tasks)] == [23] * 50
        for follower in followers:
            await follower.aclose()
        assert scene.feed.followers == 0

    run(work)


def test_a_follower_that_waits_for_one_kind_is_not_told_of_others() -> None:
    async def work(scene: Scene) -> None:
        async with aclosing(scene.follow(kinds=[EventKind.NODE_LEFT])) as follower:
            scene.log.append_requests([Record()] * 3)
            task = await waiting(follower)
            scene.log.append_requests([Record()] * 3)
            scene.leave("a")
            found = await task
            assert found == ["a"]

    run(work)


@pytest.mark.parametrize("others", [0, 3])
def test_a_quiet_time_moves_the_place_of_a_follower(others: int) -> None:
    async def work(scene: Scene) -> None:
        scene.log.append_requests([Record()] * others)
        async with aclosing(scene.follow(kinds=[EventKind.NODE_LEFT], quiet=0.02)) as follower:
            for _ in range(3):
                assert await anext(follower) == News((), Position("ab", others))

    run(work)


def test_other_kinds_that_keep_coming_do_not_make_a_quiet_time_longer() -> None:
    async def work(scene: Scene) -> None:
        is_over = False

        async def write() -> None:
            while not is_over:
                scene.log.append_requests([Record()])
                await asyncio.sleep(0)

        writer = asyncio.ensure_future(write())
        async with aclosing(scene.follow(kinds=[EventKind.NODE_LEFT], quiet=0.05)) as follower:
            found = await anext(follower)
            assert isinstance(found, News | Gap)
        is_over = True
        await writer

    run(work)


def test_a_slow_follower_is_told_of_a_gap_and_goes_on_with_what_is_kept() -> None:
    async def work(scene: Scene) -> None:
        async with aclosing(scene.follow()) as follower:
            scene.leave("a")
            assert await news(follower) == ["a"]
            scene.log.append_requests([Record(request_id=str(number)) for number in range(700)])
            assert await anext(follower) == Gap(Position("ab", 1), Position("ab", 201))
            got = [subject for _ in range(5) for subject in await news(follower)]
            assert got == [str(number) for number in range(200, 700)]

    run(work)


def test_news_come_in_bounded_batches() -> None:
    async def work(scene: Scene) -> None:
        scene.log.append_requests([Record()] * (BATCH + 7))
        async with aclosing(scene.follow()) as follower:
            assert [len(await news(follower)) for _ in range(2)] == [BATCH, 7]

    run(work)


def test_a_position_of_another_epoch_is_a_gap_then_all_that_is_kept() -> None:
    async def work(scene: Scene) -> None:
        scene.leave("a")
        asked = Position("cd", 5)
        async with aclosing(scene.feed.follow(asked, frozenset(EventKind), FOREVER, lambda: True)) as follower:
            assert await anext(follower) == Gap(asked, Position("ab", 0))
            assert await news(follower) == ["a"]

    run(work)


def test_a_follower_that_is_cancelled_leaves_nothing() -> None:
    async def work(scene: Scene) -> None:
        follower, other = scene.follow(), scene.follow()
        task, patient = await waiting(follower), await waiting(other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scene.feed.followers == 1
        scene.leave("a")
        assert await patient == ["a"]
        await other.aclose()
        assert scene.feed.followers == 0

    run(work)


def test_a_follower_that_may_not_follow_any_more_ends_with_the_next_event() -> None:
    async def work(scene: Scene) -> None:
        follower = scene.follow(kinds=[EventKind.KEY_MADE])
        task = asyncio.ensure_future(anext(follower, None))
        await asyncio.sleep(0)
        scene.may_follow = False
        scene.leave("a")
        assert await task is None
        assert scene.feed.followers == 0

    run(work)


def test_there_is_room_for_a_bounded_number_of_followers() -> None:
    async def work(scene: Scene) -> None:
        followers = [scene.follow(quiet=0.0) for _ in range(MAX_FOLLOWERS)]
        for follower in followers:
            scene.feed.check_room()
            await anext(follower)
        with pytest.raises(Fault) as raised:
            scene.feed.check_room()
        assert raised.value.kind is OVERLOADED
        await followers.pop().aclose()
        scene.feed.check_room()
        for follower in followers:
            await follower.aclose()

    run(work)
