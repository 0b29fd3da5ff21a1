"""The policies side by side: the same machines and the same requests, without faults, at several loads."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

from .audit import Audit
from .clock import Clock
from .exchange import Request
from .hub import Rules, SimulatedHub
from .machine import CROWD, Kit, Machine, Network

SPEEDS = (1, 2, 4, 8)
PREFILL, DECODE = 250.0, 12.0
"""Tokens a second of the slowest machine."""
SLOTS = 2
MEMORY = 24e9
MODEL_BYTES = (4e9, 5e9, 5e9, 8e9, 8e9, 9e9, 13e9, 14e9)
"""Together 66 GB: no machine holds half of them."""
POPULARITY = (8, 6, 4, 3, 2, 2, 1, 1)
LOAD_RATE = 1e9
PROMPT, OUTPUT = 600.0, 180.0
"""Tokens of a request, in the mean."""
BURST_EVERY, BURST_LENGTH, BURST_RATE = 60.0, 10.0, 3.0
"""Each minute has ten seconds in which three times as many requests come as in the other fifty."""
WARM_UP = 300.0
SETTLE = 900.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one policy did at one load. Times in seconds to the first byte."""

    policy: str
    load: float
    p50: float
    p95: float
    mean: float
    requests: int
    refused: int
    loads: int


def capacity() -> float:
    """Return the requests a second that all machines could serve if every model were in memory everywhere."""
    crowd = 1 + CROWD * (SLOTS - 1)
    each = [SLOTS / ((PROMPT / (PREFILL * speed) + OUTPUT / (DECODE * speed)) * crowd) for speed in SPEEDS]
    return sum(each)


def measure(policy: str, load: float, seed: int, seconds: float = 3600.0) -> Figures:
    """Run one policy at one load: a share of `capacity`."""
    clock = Clock()
    audit = Audit(clock, seed)
    hub = SimulatedHub(clock, Rules(policy=policy, slots=SLOTS, queue_limit=100_000), audit, random.Random(seed + 1))
    rng = random.Random(seed)
    sizes = {f"m{place}": size for place, size in enumerate(MODEL_BYTES)}
    for speed in SPEEDS:
        kit = Kit(f"x{speed}", PREFILL * speed, DECODE * speed, MEMORY, parallel=SLOTS, load_rate=LOAD_RATE, chunk=2.0)
        hub.add(Machine(kit, dict(sizes), clock, Network(clock, rng, kit.latency)))
    asked = _ask(rng, hub, load, seconds)
    clock.run(WARM_UP + seconds + SETTLE)
    times = sorted(
        end.first_byte_at - end.began_at
        for end in hub.ended
        if end.first_byte_at is not None and end.request.number in asked
    )
    refused = len(asked) - len(times)
    waits = times + [float("inf")] * refused
    loads = sum(machine.loads for machine in hub.machines.values())
    mean = sum(times) / max(len(times), 1)
    return Figures(policy, load, _share(waits, 0.5), _share(waits, 0.95), mean, len(asked), refused, loads)


def _ask(rng: random.Random, hub: SimulatedHub, load: float, seconds: float) -> set[int]:
    """Schedule the requests; return the numbers of those that count."""
    quiet = BURST_EVERY / (BURST_EVERY + (BURST_RATE - 1) * BURST_LENGTH)
    base = load * capacity() * quiet
    when, number, counted = 5.0, 0, set()
    while when < WARM_UP + seconds:
        is_burst = when % BURST_EVERY < BURST_LENGTH
        when += rng.expovariate(base * (BURST_RATE if is_burst else 1.0))
        model = rng.choices([f"m{place}" for place in range(len(MODEL_BYTES))], POPULARITY)[0]
        prompt = max(1, int(rng.expovariate(1 / PROMPT)))
        output = max(1, int(rng.expovariate(1 / OUTPUT)))
        request = Request(number, model, prompt, output)
        hub.clock.at(when, partial(hub.ask, request))
        if when >= WARM_UP:
            counted.add(number)
        number += 1
    return counted


def _share(values: list[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")
