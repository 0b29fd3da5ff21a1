"""A simulated machine: an engine that schedules as Ollama does, and the network between it and the hub.

The engine loads one model at a time, evicts idle ones to make room, runs so many requests of a model at once and lets
others wait inside without a word. It crashes, freezes, slows down; its network delays and holds back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hive.dialects.measures import Measured

from .clock import Act, Clock

BUSY = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
DIED = b'{"error":"llama runner process has terminated: exit status 2"}'
CROWD = 0.35
"""What each other request adds to the time of one."""


@dataclass(slots=True)
class Kit:
    """What a machine is: speeds in tokens a second, sizes in bytes."""

    name: str
    prefill: float
    decode: float
    memory: float
    parallel: int = 1
    load_rate: float = 1e9
    latency: float = 0.005
    max_queue: int = 512
    has_agent: bool = False
    chunk: float = 1.0
    """Seconds between two pieces of an answer."""


class Caller:
    """What the hub hears of one request; each method is one message."""

    def on_piece(self, number: int) -> None:
        """A piece of the answer arrived."""

    def on_end(self, pieces: int, measured: Measured) -> None:
        """The answer is whole, with so many pieces."""

    def on_refusal(self, status: int, body: bytes) -> None:
        """The engine refused."""

    def on_broken(self) -> None:
        """The connection broke."""

    def on_unreachable(self) -> None:
        """There was no way to the engine."""


@dataclass(slots=True, eq=False)
class Job:
    """One request inside an engine; without output it only loads."""

    model: str
    prompt: int
    output: int
    caller: Caller
    came_at: float = 0.0
    load_seconds: float = 0.0
    pieces: int = 0
    is_gone: bool = False


class Network:
    """The way between the hub and one machine: in order, late, sometimes held back."""

    def __init__(self, clock: Clock, rng: random.Random, latency: float) -> None:
        self._clock = clock
        self._rng = rng
        self.latency = latency
        self.extra = 0.0
        self.held_until = 0.0
        """Nothing arrives before; connections live on, as TCP's do."""
        self._last = {"up": 0.0, "down": 0.0}

    @property
    def is_cut(self) -> bool:
        """Would a new connection be in vain now?"""
        return self.held_until > self._clock.now

    def send(self, way: str, act: Act) -> None:
        """Have something happen at the other end."""
        delay = (self.latency + self.extra) * self._rng.uniform(0.9, 1.3)
        arrival = max(self._clock.now + delay, self._last[way], self.held_until)
        self._last[way] = arrival
        self._clock.at(arrival, act)


@dataclass(slots=True, eq=False)
class Machine:
    """One engine. `sizes` are the bytes of the models it lists."""

    kit: Kit
    sizes: dict[str, float]
    clock: Clock
    network: Network
    loaded: dict[str, int] = field(default_factory=dict)
    """Models in memory, with how many run on each."""
    inside: dict[str, deque[Job]] = field(default_factory=dict)
    pending: deque[Job] = field(default_factory=deque)
    jobs: dict[Job, None] = field(default_factory=dict)
    loading: Job | None = None
    is_down: bool = False
    frozen_until: float = 0.0
    runner_frozen_until: float = 0.0
    slowness: float = 1.0
    fails_next: int = 0
    """So many requests die in their runner."""
    loads: int = 0
    evictions_of_busy: int = 0
    most_running: int = 0
    _life: int = 0

    def crash(self, *, silently: bool = False) -> None:
        """Lose everything; connections break, unless the power is gone too."""
        self._life += 1
        self.is_down = True
        self.loaded.clear()
        self.inside.clear()
        self.pending.clear()
        self.loading = None
        for job in list(self.jobs):
            if not silently and not job.is_gone:
                self._tell(job, job.caller.on_broken)
            job.is_gone = True
        self.jobs.clear()

    def restart(self) -> None:
        """Come back, empty."""
        self.is_down = False
        self.frozen_until = self.runner_frozen_until = 0.0

    @property
    def is_frozen(self) -> bool:
        """Does the whole engine stand still?"""
        return self.frozen_until > self.clock.now

    def submit(self, job: Job) -> None:
        """Take a request in."""
        if self.is_down:
            job.is_gone = True
            self.network.send("down", job.caller.on_broken)
            return
        self._later(0.0, lambda: self._take(job))

    def unload(self, model: str) -> None:
        """Forget a model at once, unless an exchange uses it."""
        self._later(0.0, lambda: self._unload(model))

    def _unload(self, model: str) -> None:
        if self.loaded.get(model) == 0 and not self.inside.get(model):
            del self.loaded[model]

    def leave(self, job: Job) -> None:
        """A request's client is gone: it ends, and takes the load with it that it began."""
        if job.is_gone or job not in self.jobs:
            job.is_gone = True
            return
        self._later(0.0, lambda: self._drop(job))

    def _take(self, job: Job) -> None:
        if job.is_gone:
            return
        job.came_at = self.clock.now
        if job.model not in self.sizes:
            self._refuse(job, 404, b'{"error":"model \'%b\' not found"}' % job.model.encode())
        elif job.model in self.loaded:
            self.jobs[job] = None
            self._admit(job)
        elif len(self.pending) >= self.kit.max_queue:
            self._refuse(job, 503, BUSY)
        else:
            self.jobs[job] = None
            self.pending.append(job)
            self._load_next()

    def _drop(self, job: Job) -> None:
        if job.is_gone:
            return
        job.is_gone = True
        self.jobs.pop(job, None)
        if job is self.loading:
            self.loading = None
            self.pending.remove(job)
        elif job in self.pending:
            self.pending.remove(job)
        elif job in self.inside.get(job.model, ()):
            self.inside[job.model].remove(job)
        elif job.model in self.loaded:
            self._free(job.model)
        self._load_next()

    def _load_next(self) -> None:
        while self.pending and self.loading is None:
            job = self.pending[0]
            if job.model in self.loaded:
                self.pending.popleft()
                self._admit(job)
                continue
            if not self._make_room(self.sizes[job.model]):
                return
            self.loading = job
            self.loads += 1
            self._later(self.sizes[job.model] / self.kit.load_rate * self.slowness, partial(self._loaded, job))

    def _make_room(self, size: float) -> bool:
        while self.loaded and sum(self.sizes[model] for model in self.loaded) + size > self.kit.memory:
            idle = [model for model, running in self.loaded.items() if not running and not self.inside.get(model)]
            if not idle:
                self.evictions_of_busy += 1
                return False
            del self.loaded[idle[0]]
        return True

    def _loaded(self, job: Job) -> None:
        if self.loading is not job:
            return
        self.loading = None
        self.pending.popleft()
        self.loaded[job.model] = 0
        job.load_seconds = self.clock.now - job.came_at
        self._admit(job)
        self._load_next()

    def _admit(self, job: Job) -> None:
        if not job.output:
            self._end(job, Measured(load_seconds=job.load_seconds))
        elif self.loaded[job.model] < self.kit.parallel:
            self._begin(job)
        else:
            self.inside.setdefault(job.model, deque()).append(job)

    def _begin(self, job: Job) -> None:
        self.loaded[job.model] += 1
        running = sum(self.loaded.values())
        self.most_running = max(self.most_running, running)
        if self.fails_next:
            self.fails_next -= 1
            self._free(job.model)
            self._refuse(job, 500, DIED)
            self._load_next()
            return
        factor = self.slowness * (1 + CROWD * (running - 1))
        prompt = 0.02 + job.prompt / self.kit.prefill * factor
        decode = job.output / self.kit.decode * factor
        waited = self.clock.now - job.came_at
        measured = Measured(
            prompt_tokens=job.prompt,
            prompt_seconds=prompt,
            output_tokens=job.output,
            decode_seconds=decode,
            load_seconds=job.load_seconds,
            total_seconds=waited + prompt + decode,
        )
        self._later(prompt, lambda: self._speak(job, decode, measured), by_runner=True)

    def _speak(self, job: Job, left: float, measured: Measured) -> None:
        if job.is_gone:
            return
        number, job.pieces = job.pieces, job.pieces + 1
        self._tell(job, lambda: job.caller.on_piece(number))
        chunk = self.kit.chunk
        if left > chunk:
            self._later(chunk, lambda: self._speak(job, left - chunk, measured), by_runner=True)
        else:
            self._later(left, lambda: self._finish(job, measured), by_runner=True)

    def _finish(self, job: Job, measured: Measured) -> None:
        if not job.is_gone:
            self._free(job.model)
            self._end(job, measured)
            self._load_next()

    def _end(self, job: Job, measured: Measured) -> None:
        job.is_gone = True
        self.jobs.pop(job, None)
        pieces = job.pieces
        self._tell(job, lambda: job.caller.on_end(pieces, measured))

    def _free(self, model: str) -> None:
        self.loaded[model] -= 1
        waiting = self.inside.get(model)
        if waiting:
            self._begin(waiting.popleft())

    def _refuse(self, job: Job, status: int, body: bytes) -> None:
        job.is_gone = True
        self.jobs.pop(job, None)
        self._tell(job, lambda: job.caller.on_refusal(status, body))

    def _tell(self, job: Job, act: Act) -> None:
        self.network.send("down", act)

    def _later(self, delay: float, act: Callable[[], None], *, by_runner: bool = False) -> None:
        """Do something in this life, once it neither stands still nor its runner."""
        life = self._life

        def do() -> None:
            if life != self._life:
                return
            stands_until = max(self.frozen_until, self.runner_frozen_until if by_runner else 0.0)
            if stands_until > self.clock.now:
                self.clock.at(stands_until, do)
            else:
                act()

        self.clock.after(delay, do)
