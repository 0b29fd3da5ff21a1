"""Makes requests wait for their turn. The machine's decisions become futures; its times become timers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hive.sim.machine import Job, SimMachine


class LoadFailed(Exception):  # noqa: N818 - the fact, in the words the client gets
    """The model's runner ended while it loaded."""


class Pulse:
    """Wakes the tasks that wait for a change of the engine's state."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Wake them: something has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until the condition holds. It is tested at every change."""
        while not is_true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)


class SimTurns:
    """Drives one machine. Nothing else changes that machine."""

    def __init__(self, machine: SimMachine, pulse: Pulse) -> None:
        self.machine = machine
        self._pulse = pulse
        self._futures: dict[Job, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, job: Job) -> AsyncIterator[None]:
        """Hold a slot while the block runs. Raises QueueFull or LoadFailed when the job gets no slot."""
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
        """Unload the model when no job uses it."""
        self.machine.unload(model, asyncio.get_running_loop().time())
        self.pump()

    def pump(self) -> None:
        """Let the machine decide, wake the jobs it decided about, and set a timer for the next decision."""
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
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()
