"""A world drawn from a seed: machines, models, requests and faults; run to its end and judged."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import partial

from hive.config import PolicyName
from hive.fleet.health import Patience

from .audit import Audit
from .clock import Clock
from .exchange import Request
from .faults import Fault, draw_faults, schedule
from .hub import Rules, SimulatedHub
from .machine import Kit, Machine, Network

SPAN = 120.0
"""Seconds in which requests come and faults begin."""
AFTERMATH = 2_000.0
"""Seconds in which everything must have ended: longer than any deadline."""
POLICIES = (PolicyName.BEST, PolicyName.BEST, *PolicyName)
"""`best` counts three times."""

_WITHOUT_FAULT = {"ok", "client gone", "503 queue_full", "503 queue_timeout"}
"""How a request may end where nothing goes wrong; the machines may be too few."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a world ended."""

    seed: int
    policy: str
    requests: int
    answers: Counter[str]
    """How many requests ended how; of errors the first word."""
    faults: list[Fault]
    loads: int
    transitions: int
    story: list[str]


def run_world(seed: int) -> Outcome:
    """Run the world of a seed to its end. Raises `Broken`, with the story, when something does not hold."""
    rng = random.Random(seed)
    clock = Clock()
    audit = Audit(clock, seed)
    rules = Rules(
        policy=rng.choice(POLICIES),
        queue_limit=rng.choice((5, 50, 1000)),
        queue_timeout=rng.choice((20.0, 120.0, 600.0)),
        slots=rng.choice((None, None, 1, 3)),
        patience=Patience(),
    )
    hub = SimulatedHub(clock, rules, audit, rng)
    models = {f"m{place}": rng.uniform(1e9, 2e10) for place in range(rng.randint(1, 6))}
    for place in range(rng.randint(1, 5)):
        hub.add(_draw_machine(rng, clock, f"n{place}", models))
    faults = draw_faults(rng, len(hub.machines), SPAN)
    schedule(faults, hub)
    known = sorted({model for machine in hub.machines.values() for model in machine.sizes})
    requests = rng.randint(5, 80)
    for number in range(requests):
        clock.at(rng.uniform(4, SPAN), partial(hub.ask, _draw_request(rng, number, known)))
    clock.run(AFTERMATH)
    audit.check_end(hub.dispatcher, requests)
    for engine in hub.machines:
        signs = engine.signs
        audit.demand(signs.computing == 0 and signs.streams == 0, f"{engine.node} counts {signs}")
    if not faults:
        bad = {how for how in audit.answers.values() if how.split(":")[0] not in _WITHOUT_FAULT}
        audit.demand(not bad, f"without a fault, {bad}")
    answers = Counter(how.split(":")[0] for how in audit.answers.values())
    loads = sum(machine.loads for machine in hub.machines.values())
    return Outcome(seed, rules.policy, requests, answers, faults, loads, len(hub.transitions), list(audit.lines))


def _draw_machine(rng: random.Random, clock: Clock, name: str, models: dict[str, float]) -> Machine:
    speed = rng.choice((1, 1, 2, 4, 8))
    chosen = rng.sample(sorted(models), rng.randint(1, len(models)))
    kit = Kit(
        name,
        prefill=300.0 * speed,
        decode=10.0 * speed,
        memory=rng.choice((2e10, 3e10, 6e10)),
        parallel=rng.choice((1, 1, 2, 4)),
        load_rate=rng.choice((3e8, 1e9, 3e9)),
        latency=rng.choice((0.001, 0.02, 0.1)),
        max_queue=rng.choice((2, 512)),
        has_agent=rng.random() < 0.5,
    )
    return Machine(kit, {model: models[model] for model in chosen}, clock, Network(clock, rng, kit.latency))


def _draw_request(rng: random.Random, number: int, models: list[str]) -> Request:
    return Request(
        number,
        rng.choice(models),
        prompt=rng.choice((10, 200, 2000, 20000)),
        output=rng.choice((1, 20, 200, 600)),
        has_tools=rng.random() < 0.2,
        leaves_after=rng.uniform(0, 60) if rng.random() < 0.2 else None,
    )
