"""Tasks beside everything else: each is known until its end, and all end together."""

from __future__ import annotations

import asyncio

from hive.hub.background import Background


def test_a_task_is_known_until_its_end_and_is_awaited_at_the_end_of_all() -> None:
    told: list[str] = []

    async def short() -> None:
        told.append("short")

    async def endless() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            told.append("ended")

    async def run() -> None:
        background = Background()
        await background.spawn(short())
        background.spawn(endless())
        assert len(background) == 1
        await asyncio.sleep(0)
        await background.end()
        assert len(background) == 0

    asyncio.run(run())
    assert told == ["short", "ended"]


def test_a_task_that_fails_keeps_no_other_from_its_end() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        background = Background()
        background.spawn(fail())
        other = background.spawn(asyncio.sleep(60, None))
        await background.end()
        assert other.cancelled()

    asyncio.run(run())
