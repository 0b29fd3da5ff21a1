"""What a turn of the event loop writes leaves at its end, in order, and never on a transport that closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from hive.net.outbox import Outbox


class Transport:
    """A transport that remembers what was written to it."""

    def __init__(self, log: list[tuple[str, bytes]], name: str) -> None:
        self._log = log
        self._name = name
        self.is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def write(self, data: bytes) -> None:
        self._log.append((self._name, bytes(data)))


def in_a_loop(test: Callable[[Outbox, Callable[[str], asyncio.Transport], list[tuple[str, bytes]]], None]) -> list:
    """Run a test within one turn of a loop; return what had been written when the turn was over."""
    log: list[tuple[str, bytes]] = []

    async def run() -> None:
        test(Outbox(), lambda name: cast(asyncio.Transport, Transport(log, name)), log)
        await asyncio.sleep(0)

    asyncio.run(run())
    return log


def test_nothing_is_written_before_the_turn_ends_and_then_all_in_order() -> None:
    def turn(outbox: Outbox, make: Callable[[str], asyncio.Transport], log: list[tuple[str, bytes]]) -> None:
        first, second = make("a"), make("b")
        outbox.write(first, b"1")
        outbox.write(second, b"2")
        outbox.write(first, memoryview(b"3"))
        assert log == []

    assert in_a_loop(turn) == [("a", b"1"), ("b", b"2"), ("a", b"3")]


def test_a_flush_writes_at_once_and_only_once() -> None:
    def turn(outbox: Outbox, make: Callable[[str], asyncio.Transport], log: list[tuple[str, bytes]]) -> None:
        outbox.write(make("a"), b"1")
        outbox.flush()
        assert log == [("a", b"1")]

    assert in_a_loop(turn) == [("a", b"1")]


def test_what_is_written_after_a_flush_leaves_at_the_end_of_the_turn_too() -> None:
    def turn(outbox: Outbox, make: Callable[[str], asyncio.Transport], log: list[tuple[str, bytes]]) -> None:
        transport = make("a")
        outbox.write(transport, b"1")
        outbox.flush()
        outbox.write(transport, b"2")

    assert in_a_loop(turn) == [("a", b"1"), ("a", b"2")]


def test_a_transport_that_closes_meanwhile_gets_nothing_and_the_others_all() -> None:
    def turn(outbox: Outbox, make: Callable[[str], asyncio.Transport], log: list[tuple[str, bytes]]) -> None:
        closing = make("a")
        outbox.write(closing, b"1")
        outbox.write(make("b"), b"2")
        cast(Transport, closing).is_closed = True

    assert in_a_loop(turn) == [("b", b"2")]
