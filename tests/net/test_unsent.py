"""The bytes that wait for a client, and how long the client has taken none of them."""

from __future__ import annotations

import asyncio

from hive.net.unsent import Unsent


class Waiting(asyncio.Transport):
    """A transport in which so many bytes wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting

    def get_write_buffer_size(self) -> int:
        return self.waiting


def test_a_client_that_takes_nothing_for_as_long_as_may_be_is_stalled() -> None:
    transport = Waiting(100)
    unsent = Unsent(transport)
    assert unsent
    assert [unsent.is_stalled(1000, now, 60.0) for now in (0.0, 1.0, 60.9, 61.0)] == [False, False, False, True]
    transport.waiting = 99
    assert not unsent.is_stalled(1000, 62.0, 60.0)


def test_bytes_that_leave_while_others_come_are_taken() -> None:
    unsent = Unsent(Waiting(100))
    assert not any(unsent.is_stalled(1000 + now, float(now), 60.0) for now in range(0, 600, 30))


def test_a_client_without_waiting_bytes_is_not_stalled() -> None:
    unsent = Unsent(Waiting(0))
    assert not unsent
    assert not any(unsent.is_stalled(1000, now, 60.0) for now in (0.0, 100.0, 200.0))
