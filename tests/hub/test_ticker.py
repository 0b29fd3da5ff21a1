"""The tick: each part hears of it, also after another one failed, and a stall of the hub is told first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from hive.hub.ticker import Ticker


class Parts:
    """What a ticker tells, in order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[tuple[str, float]] = []

    def part(self, name: str) -> Callable[[float], None]:
        return lambda now: self.told.append((name, now))

    def fail(self, now: float) -> None:
        raise ZeroDivisionError

    def tick(self, *ticks: Callable[[float], None], elapsed: float) -> None:
        async def run() -> None:
            ticker = Ticker(lambda: self.now, ticks, self.part("stall"))
            self.now += elapsed
            ticker.start()
            ticker.stop()

        asyncio.run(run())


def test_every_part_hears_the_time() -> None:
    parts = Parts()
    parts.tick(parts.part("a"), parts.part("b"), elapsed=0.5)
    assert parts.told == [("a", 100.5), ("b", 100.5)]


def test_a_part_that_fails_is_logged_and_silences_no_other(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts()
    with caplog.at_level(logging.ERROR):
        parts.tick(parts.fail, parts.part("b"), elapsed=0.5)
    assert parts.told == [("b", 100.5)]
    assert "ZeroDivisionError" in caplog.text


def test_a_stall_is_told_before_any_part_is() -> None:
    parts = Parts()
    parts.tick(parts.part("a"), elapsed=20.0)
    assert parts.told == [("stall", 20.0), ("a", 120.0)]


def test_it_ticks_again_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.hub.ticker.TICK", 0.001)

    async def run() -> None:
        third = asyncio.Event()
        count = 0

        def tick(now: float) -> None:
            nonlocal count
            count += 1
            if count == 3:
                third.set()

        ticker = Ticker(asyncio.get_running_loop().time, [tick], lambda _: None)
        ticker.start()
        await asyncio.wait_for(third.wait(), 10)
        ticker.stop()

    asyncio.run(run())
