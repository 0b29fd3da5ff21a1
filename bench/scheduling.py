"""The cost of a scheduler's decision, in CPU microseconds, from one node to a thousand. It needs no engine.

    python bench/scheduling.py

A decision is the scheduler's work for one ended exchange or one new ticket. It may take 100 us at most with 1,000 nodes
and 10,000 waiting tickets, and a few us for a ticket that a small fleet serves at once.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Callable

from hive.dialects.measures import Measured
from hive.dialects.tasks import CHAT, Dialect
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport, LoadedModel, Model
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.tickets import Lease, Ticket

MOST = 100.0
"""Microseconds."""
ROUNDS = 5
GB = 1_000_000_000


def build(nodes: int, models: int, each: int, loaded: int, limit: int = 20_000) -> Dispatcher:
    """Return a dispatcher over Ollamas.

    Each lists `each` of the models, some of them in memory, and all are measured.
    """
    rng = random.Random(1)
    fleet = Fleet()
    dispatcher = Dispatcher(fleet, limit, rng=rng)
    names = [f"model-{number}" for number in range(models)]
    for number in range(nodes):
        engine = Engine(f"n{number}", f"http://n{number}", configured_slots=2, health=Health.READY)
        fleet.engines.append(engine)
        mine = rng.sample(names, each)
        listed = tuple(Model(name, name, "", 5 * GB, "", b"{}", b"{}") for name in mine)
        held = tuple(LoadedModel(name, "", b"{}") for name in mine[:loaded])
        fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.33.0", listed, held))
        for name in mine[:loaded]:
            lease = Lease(engine, Ticket(name, CHAT, Dialect.OLLAMA, 1e9), "")
            dispatcher.estimates.note_served(lease, Measured(first_byte=rng.uniform(0.1, 1)), 2.0)
    return dispatcher


def at_once(dispatcher: Dispatcher, models: int, count: int = 5_000) -> float:
    """Return the microseconds to serve a ticket at once and to give its slot back."""
    tickets = [Ticket(f"model-{number % models}", CHAT, Dialect.OLLAMA, 1e9) for number in range(count)]
    began = time.thread_time()
    for ticket in tickets:
        lease = dispatcher.offer(ticket, 1.0)
        if lease is not None:
            dispatcher.release(lease)
    return (time.thread_time() - began) / count * 1e6


def under_pressure(dispatcher: Dispatcher, models: int, waiting: int, count: int = 2_000) -> tuple[float, ...]:
    """Fill all slots and the queue; return microseconds for a new ticket, an ended exchange, the worst, and a step."""
    held: deque[Lease] = deque()
    number, now = 0, 1.0

    def come() -> None:
        nonlocal number
        lease = dispatcher.offer(Ticket(f"model-{number % models}", CHAT, Dialect.OLLAMA, 1e9), now)
        number += 1
        if lease is not None:
            held.append(lease)

    while dispatcher.waiting_count < waiting:
        come()
    held.extend(dispatcher.serve(now).leases)
    came, ended, worst = 0.0, 0.0, 0.0
    for _ in range(min(count, len(held))):
        now += 0.001
        began = time.thread_time()
        dispatcher.release(held.popleft())
        held.extend(dispatcher.serve(now).leases)
        middle = time.thread_time()
        come()
        end = time.thread_time()
        ended += middle - began
        came += end - middle
        worst = max(worst, middle - began)
    began = time.thread_time()
    dispatcher.step(now + 0.5)
    stepped = time.thread_time() - began
    rounds = min(count, number)
    return came / rounds * 1e6, ended / rounds * 1e6, worst * 1e6, stepped * 1e6


def best_of(measure: Callable[[], float]) -> float:
    """Return the least value of some rounds, which is the cost without the noise of other programs."""
    return min(measure() for _ in range(ROUNDS))


def main() -> int:
    """Print the table; return 1 when a decision takes too long."""
    print(f"{'served at once':42}{'us':>8}")
    for nodes in (1, 4, 16, 100, 1_000):
        dispatcher = build(nodes, 1, 1, 1)
        print(f"  {nodes:5} nodes, one model{'':19}{best_of(lambda d=dispatcher: at_once(d, 1)):8.1f}")  # type: ignore[misc]
    slow = 0
    print(f"\n{'10,000 wait':42}{'comes':>8}{'ends':>8}{'worst':>8}{'step':>8}")
    for nodes, models, each, loaded in ((100, 50, 10, 2), (1_000, 200, 20, 3), (1_000, 1, 1, 1), (1_000, 1_000, 50, 3)):
        came, ended, worst, step = under_pressure(build(nodes, models, each, loaded), models, 10_000)
        slow += max(came, ended) > MOST
        what = f"{nodes} nodes, {models} models, {each} on each"
        print(f"  {what:40}{came:8.1f}{ended:8.1f}{worst:8.0f}{step:8.0f}")
    print(f"\n{'SLOWER THAN' if slow else 'within'} {MOST:g} us a decision")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
