"""What goes wrong in a simulated world, and when: drawn from the seed before it begins."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hive.fleet.engines import Engine

from .hub import SimulatedHub
from .machine import Machine


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `at` and `seconds` are the world's time."""

    kind: str
    at: float
    seconds: float
    place: int
    """Which machine."""
    amount: float


Strike = Callable[[Fault, SimulatedHub, Engine, Machine], None]


def draw_faults(rng: random.Random, machines: int, span: float) -> list[Fault]:
    """Return the faults of one world: none in every eighth, else up to twelve."""
    if rng.random() < 0.125:
        return []
    return sorted(
        (
            Fault(rng.choice(list(STRIKES)), rng.uniform(5, span), rng.choice((1, 4, 8, 20, 60)), place, rng.random())
            for place in (rng.randrange(machines) for _ in range(rng.randint(1, 12)))
        ),
        key=lambda fault: fault.at,
    )


def schedule(faults: list[Fault], hub: SimulatedHub) -> None:
    """Have the faults happen in their time."""
    machines = list(hub.machines.items())
    for fault in faults:
        engine, machine = machines[fault.place]
        hub.clock.at(fault.at, partial(_strike, fault, hub, engine, machine))


def _strike(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    hub.audit.tell(f"FAULT {fault.kind} on {machine.kit.name} for {fault.seconds:g} s")
    STRIKES[fault.kind](fault, hub, engine, machine)


def _crash(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.crash(silently=fault.amount < 0.3)
    hub.clock.after(fault.seconds, machine.restart)


def _freeze(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.frozen_until = hub.clock.now + fault.seconds


def _freeze_runner(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.runner_frozen_until = hub.clock.now + fault.seconds


def _slow(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.slowness = 1 + 9 * fault.amount

    def recover() -> None:
        machine.slowness = 1.0

    hub.clock.after(fault.seconds, recover)


def _drop(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.network.held_until = max(machine.network.held_until, hub.clock.now + fault.seconds)


def _delay(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.network.extra = 3 * fault.amount

    def recover() -> None:
        machine.network.extra = 0.0

    hub.clock.after(fault.seconds, recover)


def _repeat_heartbeats(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    if machine.kit.has_agent:
        for delay in (0.0, 0.0, fault.amount * 10):
            hub.clock.after(delay, lambda: hub.receive(lambda: hub.hear_heartbeat(engine, False)))


def _step_clock(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    hub.clock_step += fault.seconds


def _stall_hub(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    hub.stalled_until = max(hub.stalled_until, hub.clock.now + min(fault.seconds, 20))


def _lose_model(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    """A model is deleted without the hub's knowledge; later it is there again."""
    if not machine.sizes:
        return
    model = sorted(machine.sizes)[int(fault.amount * len(machine.sizes))]
    if model not in machine.loaded and not machine.pending:
        size = machine.sizes.pop(model)

        def restore() -> None:
            machine.sizes[model] = size

        hub.clock.after(fault.seconds, restore)


def _kill_runner(fault: Fault, hub: SimulatedHub, engine: Engine, machine: Machine) -> None:
    machine.fails_next += 1 + int(3 * fault.amount)


STRIKES: dict[str, Strike] = {
    "crash": _crash,
    "freeze": _freeze,
    "freeze_runner": _freeze_runner,
    "slow": _slow,
    "drop": _drop,
    "delay": _delay,
    "repeat_heartbeats": _repeat_heartbeats,
    "step_clock": _step_clock,
    "stall_hub": _stall_hub,
    "lose_model": _lose_model,
    "kill_runner": _kill_runner,
}
