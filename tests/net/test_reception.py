"""What connections share: ids that stand once, bodies that count together, refusals that are held back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hive.errors import BODY_MEMORY_FULL, UNAUTHENTICATED, Fault
from hive.net import reception
from hive.net.outbox import Outbox
from hive.net.reception import HeldBody, Reception, ServerLimits


class Guest:
    """A connection that remembers the refusals that were released."""

    is_busy = False

    def __init__(self) -> None:
        self.refused: list[Fault] = []

    def refuse_now(self, fault: Fault) -> None:
        self.refused.append(fault)

    def sweep(self, now: float) -> None: ...

    def close_if_idle(self) -> None: ...

    def end(self) -> None: ...

    def abort(self) -> None: ...


def inside(work: Callable[[Reception], None], limits: ServerLimits | None = None) -> None:
    async def run() -> None:
        work(Reception(limits or ServerLimits(), Outbox()))

    asyncio.run(run())


def test_bodies_of_all_connections_count_together_until_they_are_released() -> None:
    def work(shared: Reception) -> None:
        one, other = HeldBody(shared), HeldBody(shared)
        one.hold(4)
        other.hold(5)
        one.hold(6)
        assert shared.held_body_bytes == 11
        one.release()
        one.release()
        assert shared.held_body_bytes == 5

    inside(work)


def test_a_body_for_which_there_is_no_room_is_refused() -> None:
    def work(shared: Reception) -> None:
        one, other = HeldBody(shared), HeldBody(shared)
        one.hold(8)
        with pytest.raises(Fault) as caught:
            other.hold(3)
        assert caught.value.kind is BODY_MEMORY_FULL
        other.release()
        assert shared.held_body_bytes == 8

    inside(work, ServerLimits(max_bodies_bytes=10))


def test_a_refusal_is_held_for_its_delay() -> None:
    async def run() -> None:
        guest, shared = Guest(), Reception(ServerLimits(), Outbox())
        fault = Fault(UNAUTHENTICATED, "no", delay=0.001)
        assert shared.hold(guest, fault)
        assert guest.refused == []
        while not guest.refused:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert guest.refused == [fault]

    asyncio.run(run())


def test_only_so_many_refusals_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_HELD_REFUSALS", 1)

    def work(shared: Reception) -> None:
        fault = Fault(UNAUTHENTICATED, "no", delay=60)
        assert shared.hold(Guest(), fault)
        assert not shared.hold(Guest(), fault)

    inside(work)


def test_no_two_requests_of_any_two_hubs_share_an_id() -> None:
    ids: list[str] = []
    inside(lambda shared: ids.extend(shared.next_request_id() for _ in range(100)))
    inside(lambda shared: ids.extend(shared.next_request_id() for _ in range(100)))
    assert len(set(ids)) == 200
