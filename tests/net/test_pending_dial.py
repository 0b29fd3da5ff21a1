"""A dial for those that live by callbacks: it calls back once, or not at all after a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hive.errors import INTERNAL, NODE_BUSY, NODE_UNREACHABLE, Fault
from hive.net.pending_dial import PendingDial

from ..node.hub import run


def outcome_of(dial: Callable[[], Awaitable[str]], *, is_cancelled: bool = False) -> list[object]:
    """Return what a dial calls back with."""

    async def main() -> list[object]:
        told: list[object] = []
        pending: PendingDial[str] = PendingDial(dial, told.append, lambda fault: told.append(fault.kind))  # type: ignore[arg-type]
        if is_cancelled:
            await asyncio.sleep(0)
            pending.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        return told

    return run(main())


async def good() -> str:
    await asyncio.sleep(0)
    return "connection"


async def bad() -> str:
    raise Fault(NODE_BUSY, "no")


async def broken() -> str:
    raise RuntimeError("nobody has foreseen this")


def test_it_brings_the_connection_or_the_fault(caplog: pytest.LogCaptureFixture) -> None:
    assert outcome_of(good) == ["connection"]
    assert outcome_of(bad) == [NODE_BUSY]
    assert not caplog.records
    assert outcome_of(broken) == [NODE_UNREACHABLE]
    assert caplog.records[0].exc_info is not None


def test_after_a_cancellation_it_brings_nothing() -> None:
    assert outcome_of(good, is_cancelled=True) == []


def test_a_sending_that_breaks_is_told_and_its_connection_closed(caplog: pytest.LogCaptureFixture) -> None:
    class Opened:
        is_cancelled = False

        def cancel(self) -> None:
            self.is_cancelled = True

    async def main() -> tuple[list[object], bool]:
        told: list[object] = []
        opened = Opened()

        async def dial() -> Opened:
            return opened

        def send(_: Opened) -> None:
            raise ZeroDivisionError

        PendingDial(dial, send, lambda fault: told.append(fault.kind))  # type: ignore[type-var]
        for _ in range(3):
            await asyncio.sleep(0)
        return told, opened.is_cancelled

    assert run(main()) == ([INTERNAL], True)
    assert "ZeroDivisionError" in caplog.text
