"""What must hold whatever happens, and the story that is told when it does not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hive.fleet.engines import IN_SERVICE, Engine
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.lanes import wish_of
from hive.scheduling.loads import AGEING
from hive.scheduling.tickets import Lease, Ticket

from .clock import Clock

LINES = 400
"""The story's last lines are kept."""
STARVED = AGEING + 30.0
"""Seconds for which no ticket for a model may be served, while an engine that could serve it is idle."""


class Broken(AssertionError):  # noqa: N818 - the fact
    """Something that must hold does not."""


@dataclass
class Audit:
    """Watches one simulated hub."""

    clock: Clock
    seed: int
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    answers: dict[int, str] = field(default_factory=dict)
    """How each request ended, by its number."""
    held: set[Lease] = field(default_factory=set)
    _granted_at: dict[str, float] = field(default_factory=dict)
    """By model."""
    _idle_since: dict[Engine, float] = field(default_factory=dict)

    def tell(self, line: str) -> None:
        """Add a line to the story."""
        self.lines.append(f"{self.clock.now:9.3f}  {line}")

    def demand(self, holds: bool, sentence: str) -> None:
        """Break off when something does not hold."""
        if not holds:
            self.tell(f"BROKEN: {sentence}")
            raise Broken(f"seed {self.seed}: {sentence}\n" + "\n".join(self.lines))

    def answered(self, number: int, how: str) -> None:
        """A client got its answer, or left."""
        before = self.answers.get(number)
        self.demand(before is None, f"request {number} was answered twice: {before}, then {how}")
        self.answers[number] = how

    def granted(self, lease: Lease, waiting: Iterable[Ticket], before: int) -> None:
        """A lease was granted; `before` is the most that ran on its engine when it was."""
        engine, ticket = lease.engine, lease.ticket
        self.demand(lease not in self.held, f"a lease was granted twice, for {ticket.number}")
        self.held.add(lease)
        self._granted_at[ticket.model] = lease.granted_at
        self.demand(lease.running <= max(before, 1), f"{lease.running} of {before} slots taken on {engine.node}")
        self.demand(
            engine.health in IN_SERVICE or engine.health.value == "doubtful", f"{engine.node} is {engine.health}"
        )
        self.demand(engine not in ticket.excluded, f"{engine.node} had failed ticket {ticket.number}")
        older = [each.number for each in waiting if each.lane == ticket.lane and each.order < ticket.order]
        self.demand(not older, f"ticket {ticket.number} overtook {older}")

    def released(self, lease: Lease) -> None:
        """A lease was given back."""
        self.demand(lease in self.held, f"a lease was given back twice, for {lease.ticket.number}")
        self.held.discard(lease)

    def check(self, dispatcher: Dispatcher, engines: Iterable[Engine], now: float) -> None:
        """Compare the dispatcher's sums with the leases, and look for tickets that starve."""
        for engine in engines:
            held = sum(lease.engine is engine for lease in self.held)
            self.demand(
                engine.running.count == held,
                f"{engine.node} counts {engine.running.count} running, {held} leases are held",
            )
            self.demand(
                sum(engine.running.of_model.values()) == held,
                f"{engine.node} counts {engine.running.of_model} by model",
            )
            is_idle = not engine.running.count and not engine.running.loading and engine.health in IN_SERVICE
            if not is_idle or engine.running.rests_until > now:
                self._idle_since.pop(engine, None)
            else:
                self._idle_since.setdefault(engine, now)
        idle = [engine for engine, since in self._idle_since.items() if now - since > 5.0]
        if idle:
            for ticket in dispatcher.waiting():
                begun_at = dispatcher.loads.begun_at.get(wish_of(ticket.lane), 0.0)
                served_at = max(ticket.since, self._granted_at.get(ticket.model, 0.0), begun_at)
                if now - served_at > STARVED and ticket.model not in dispatcher.loads.count_of:
                    useful = [each.node for each in idle if ticket.model in each.known.models and ticket.accepts(each)]
                    failed = [each for each in idle if dispatcher.loads.has_failed(each, ticket, now)]
                    self.demand(not useful or bool(failed), f"ticket {ticket.number} starves beside {useful}")

    def check_end(self, dispatcher: Dispatcher, requests: int) -> None:
        """After all faults and requests are over nothing may be left."""
        missing = [number for number in range(requests) if number not in self.answers]
        self.demand(not missing, f"requests {missing} were never answered")
        self.demand(dispatcher.waiting_count == 0, f"{dispatcher.waiting_count} tickets still wait")
        self.demand(not self.held, f"{len(self.held)} leases were never given back")
        self.demand(not dispatcher.loads.orders, f"loads never ended: {dispatcher.loads.orders}")
