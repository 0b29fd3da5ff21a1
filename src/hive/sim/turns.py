"""Makes requests wait for their turn: the machine's decisions as futures, its times as timers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hive.sim.machine import Job, SimMachine


class LoadFailed(Exception):  # noqa: N818 - the fact, in the words the client gets
    """The model's runner ended while it loaded."""


class Pulse:
    """Wakes whoever waits for the engine's state to change."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Something has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Returns when the condition holds; looks at every change."""
        while not is_true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)


class SimTurns:
    """Drives one machine; the only one that changes it."""

    def __init__(self, machine: SimMachine, pulse: Pulse) -> None:
        self.machine = machine
        self._pulse = pulse
        self._futures: dict[Job, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, job: Job) -> AsyncIterator[None]:
        """A slot for the length of the block; QueueFull or LoadFailed instead of one."""
        loop = asyncio.get_running_loop()
        self.machine.submit(job)
        turn = self._futures[job] = loop.create_future()
        try:
            self.pump()
            await turn
            yield
        finally:
            self._futures.pop(job, None)
            self.machine.leave(job, loop.time())
            self.pump()

    def unload(self, model: str) -> None:
        """The model leaves memory when nobody uses it."""
        self.machine.unload(model, asyncio.get_running_loop().time())
        self.pump()

    def pump(self) -> None:
        """Lets the machine decide, tells those concerned, and comes back when it is time."""
        loop = asyncio.get_running_loop()
        step = self.machine.step(loop.time())
        for job in step.granted:
            if (turn := self._futures.get(job)) and not turn.done():
                turn.set_result(None)
        for job in step.failed:
            if (turn := self._futures.get(job)) and not turn.done():
                turn.set_exception(LoadFailed())
        if self._timer:
            self._timer.cancel()
        self._timer = loop.call_at(step.next_at, self.pump) if math.isfinite(step.next_at) else None
        self._pulse.beat()

    def stop(self) -> None:
        """Forgets the timer."""
        if self._timer:
            self._timer.cancel()
