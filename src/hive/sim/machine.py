"""The scheduler of a simulated engine: loaded models, their slots, the loads, and the queue inside the engine.

The rules are Ollama's (server/sched.go), as far as a client can see them:

* One load runs at a time.
* A request whose model is loaded passes the queue.
* The head of the queue waits until a runner is idle. Everything behind the head waits too.
* A request that leaves aborts the load that it began.
* Requests that wait for a slot of a loaded model are served in order.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field


class QueueFull(Exception):  # noqa: N818 - the fact, in the words the client gets
    """More requests wait than the engine allows."""


@dataclass(slots=True, eq=False)
class Job:
    """One request that wants a slot of a model."""

    model: str
    num_ctx: int
    keep_alive: float | None = None
    """Seconds. None keeps the runner's value."""
    load_fails: bool = False
    """Does the load fail if this job starts it?"""


@dataclass(slots=True, eq=False)
class SimRunner:
    """One model that is loaded, or that is being loaded (then `loader` is set)."""

    model: str
    num_ctx: int
    session: float
    ready_at: float
    loader: Job | None
    active: set[Job] = field(default_factory=set)
    waiting: deque[Job] = field(default_factory=deque)
    expires_at: float = math.inf

    @property
    def is_idle(self) -> bool:
        """Is no job running on the model or waiting for it?"""
        return not self.active and not self.waiting


@dataclass(frozen=True, slots=True)
class SimStep:
    """The decisions of a step: the jobs that got a slot, the jobs whose load failed, and when to step again."""

    granted: tuple[Job, ...]
    failed: tuple[Job, ...]
    next_at: float


@dataclass(slots=True)
class SimMachine:
    """The engine's scheduler. Change it with submit, leave and unload, then call `step`."""

    slots: int
    max_loaded: int
    max_queue: int
    load_time: float
    session: float
    runners: dict[str, SimRunner] = field(default_factory=dict)
    pending: deque[Job] = field(default_factory=deque)
    loads: int = 0
    loads_aborted: int = 0
    loads_failed: int = 0
    unloads: int = 0

    @property
    def running(self) -> int:
        """Return the number of jobs that hold a slot."""
        return sum(len(runner.active) for runner in self.runners.values())

    @property
    def waiting(self) -> int:
        """Return the number of jobs that wait for a slot or a load."""
        return len(self.pending) + sum(len(runner.waiting) for runner in self.runners.values())

    def preload(self, model: str, num_ctx: int) -> None:
        """Put the model into memory for good, as an engine that serves one model does."""
        self.runners[model] = SimRunner(model, num_ctx, math.inf, 0.0, None)

    def has_loaded(self, model: str, num_ctx: int) -> bool:
        """Would a job for this model run without a load?"""
        runner = self.runners.get(model)
        return runner is not None and runner.loader is None and runner.num_ctx == num_ctx

    def submit(self, job: Job) -> None:
        """Add a job. Raises QueueFull when too many wait already."""
        if self.has_loaded(job.model, job.num_ctx):
            runner = self.runners[job.model]
            if len(runner.active) >= self.slots and self.waiting >= self.max_queue:
                raise QueueFull
            runner.waiting.append(job)
        elif self.waiting >= max(self.max_queue, 1):
            raise QueueFull
        else:
            self.pending.append(job)

    def leave(self, job: Job, now: float) -> None:
        """Remove a job that is over or whose client left. If the job's own load is not done, abort the load."""
        if job in self.pending:
            self.pending.remove(job)
            return
        runner = self.runners.get(job.model)
        if runner is None:
            return
        if runner.loader is job:
            del self.runners[job.model]
            self.loads_aborted += 1
        elif job in runner.waiting:
            runner.waiting.remove(job)
        elif job in runner.active:
            runner.active.remove(job)
        if runner.is_idle:
            runner.expires_at = now + runner.session

    def unload(self, model: str, now: float) -> None:
        """Mark a model to be unloaded as soon as no job uses it."""
        if runner := self.runners.get(model):
            runner.session = 0.0
            if runner.is_idle:
                runner.expires_at = now

    def step(self, now: float) -> SimStep:
        """End loads, expire runners, start the next load and give out slots, as far as the time `now` allows."""
        failed = self._end_load(now)
        for runner in [r for r in self.runners.values() if r.is_idle and r.expires_at <= now]:
            self._drop(runner)
        while self._place_head(now):
            failed += self._end_load(now)
        granted = [job for runner in self.runners.values() for job in self._fill(runner, now)]
        return SimStep(tuple(granted), tuple(failed), self._next_at())

    def _end_load(self, now: float) -> list[Job]:
        for runner in self.runners.values():
            loader = runner.loader
            if loader is None or runner.ready_at > now:
                continue
            runner.loader = None
            if not loader.load_fails:
                self.loads += 1
                return []
            del self.runners[runner.model]
            self.loads_failed += 1
            return [loader]
        return []

    def _place_head(self, now: float) -> bool:
        """Move the head of the queue to its runner, or start its load. Return False when it must wait."""
        if not self.pending or any(runner.loader for runner in self.runners.values()):
            return False
        head = self.pending[0]
        runner = self.runners.get(head.model)
        if runner is not None and runner.num_ctx == head.num_ctx:
            self.pending.popleft()
            runner.waiting.append(head)
            return True
        if runner is None and len(self.runners) >= self.max_loaded:
            runner = min(self.runners.values(), key=lambda r: (not r.is_idle, r.session, r.model))
        if runner is not None and not runner.is_idle:
            runner.session = 0.0
            return False
        if runner is not None:
            self._drop(runner)
        self.pending.popleft()
        loading = SimRunner(head.model, head.num_ctx, self.session, now + self.load_time, head)
        loading.waiting.append(head)
        self.runners[head.model] = loading
        return True

    def _fill(self, runner: SimRunner, now: float) -> list[Job]:
        granted: list[Job] = []
        while runner.loader is None and runner.waiting and len(runner.active) < self.slots:
            job = runner.waiting.popleft()
            runner.active.add(job)
            if job.keep_alive is not None:
                runner.session = job.keep_alive
            runner.expires_at = now + runner.session
            granted.append(job)
        return granted

    def _drop(self, runner: SimRunner) -> None:
        del self.runners[runner.model]
        self.unloads += 1

    def _next_at(self) -> float:
        times = [math.inf]
        for runner in self.runners.values():
            if runner.loader is not None:
                times.append(runner.ready_at)
            elif runner.is_idle:
                times.append(runner.expires_at)
        return min(times)
