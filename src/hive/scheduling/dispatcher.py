"""The fleet's queue and its slots: pure, driven by `now`, the only writer of what runs where.

Tickets wait in order of arrival, indexed by model. `offer` serves a ticket at once when it can; `step` serves
those that wait and names those whose deadline has passed. Whoever gets a lease must `release` it, whatever
happens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hive.fleet.engines import Engine, Fleet
from hive.scheduling.policies import Policy, loaded_then_idle
from hive.scheduling.tickets import Lease, Ticket


class QueueFull(Exception):  # noqa: N818 - a state, not a mistake
    """As many tickets wait as may wait."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one `step` decided."""

    leases: list[Lease]
    expired: list[Ticket]
    """Their deadline has passed."""
    hopeless: list[Ticket]
    """No engine that could serve them has been ready for longer than `patience`."""


class Dispatcher:
    """All tickets and all leases of a hub."""

    def __init__(
        self,
        fleet: Fleet,
        queue_limit: int,
        *,
        patience: float = 10.0,
        policy: Policy = loaded_then_idle,
        rng: random.Random | None = None,
    ) -> None:
        self._fleet = fleet
        self._queue_limit = queue_limit
        self._patience = patience
        self._policy = policy
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._waiting: dict[tuple[str, bool], dict[int, Ticket]] = {}
        """By model and by whether a slot is needed."""
        self._last_number = 0
        self.waiting_count = 0

    def offer(self, ticket: Ticket, now: float) -> Lease | None:
        """Serve a new ticket, or let it wait (None). Raises `QueueFull`."""
        if ticket.number == 0:
            self._last_number += 1
            ticket.number = self._last_number
        if ticket.lane not in self._waiting:
            lease = self._serve(ticket, now)
            if lease is not None:
                return lease
        if self.waiting_count >= self._queue_limit:
            raise QueueFull
        queue = self._waiting.setdefault(ticket.lane, {})
        comes_back = bool(queue) and ticket.number < next(reversed(queue))
        queue[ticket.number] = ticket
        if comes_back:
            self._waiting[ticket.lane] = dict(sorted(queue.items()))
        self.waiting_count += 1
        return None

    def cancel(self, ticket: Ticket) -> None:
        """Forget a ticket that waits; nothing for one that does not."""
        queue = self._waiting.get(ticket.lane)
        if queue is None or queue.pop(ticket.number, None) is None:
            return
        self.waiting_count -= 1
        if not queue:
            del self._waiting[ticket.lane]

    def release(self, lease: Lease) -> None:
        """Give a slot back; once is enough, twice does no harm."""
        if lease.is_held:
            lease.is_held = False
            if lease.ticket.operation.takes_slot:
                lease.engine.running -= 1

    def serve(self, now: float) -> list[Lease]:
        """Serve all that can be served, oldest first."""
        leases: list[Lease] = []
        while lease := self._serve_oldest(now):
            leases.append(lease)
        return leases

    def step(self, now: float) -> Step:
        """Serve all that can be served, and give up what waited too long."""
        leases = self.serve(now)
        expired = [t for queue in self._waiting.values() for t in queue.values() if t.deadline <= now]
        for ticket in expired:
            self.cancel(ticket)
        hopeless = [t for queue in self._waiting.values() for t in queue.values() if self._is_hopeless(t, now)]
        for ticket in hopeless:
            self.cancel(ticket)
        return Step(leases, expired, hopeless)

    def waiting(self) -> Iterator[Ticket]:
        """Yield the tickets that wait, model by model."""
        for queue in self._waiting.values():
            yield from queue.values()

    def _is_hopeless(self, ticket: Ticket, now: float) -> bool:
        for engine in self._fleet.having(ticket.model):
            if engine.takes_work and ticket.accepts(engine):
                ticket.hopeless_since = None
                return False
        if ticket.hopeless_since is None:
            ticket.hopeless_since = now
        return now - ticket.hopeless_since >= self._patience

    def _serve_oldest(self, now: float) -> Lease | None:
        oldest: Ticket | None = None
        for (model, takes_slot), queue in self._waiting.items():
            if not any(self._is_open(engine, takes_slot, now) for engine in self._fleet.having(model)):
                continue
            first = next((ticket for ticket in queue.values() if self._eligible(ticket, now)), None)
            if first is not None and (oldest is None or first.number < oldest.number):
                oldest = first
        if oldest is None:
            return None
        self.cancel(oldest)
        return self._serve(oldest, now)

    @staticmethod
    def _is_open(engine: Engine, takes_slot: bool, now: float) -> bool:
        """Could it serve one more? A ticket that needs no slot passes a full engine."""
        return engine.takes_work and (engine.running < engine.slots or not takes_slot) and engine.rests_until <= now

    def _eligible(self, ticket: Ticket, now: float) -> list[Engine]:
        takes_slot = ticket.operation.takes_slot
        return [
            engine
            for engine in self._fleet.having(ticket.model)
            if self._is_open(engine, takes_slot, now)
            and engine not in ticket.excluded
            and engine.serves(ticket.operation)
        ]

    def _serve(self, ticket: Ticket, now: float) -> Lease | None:
        engines = self._eligible(ticket, now)
        if not engines:
            return None
        engine, reason = self._policy(ticket, engines, self._rng)
        if ticket.operation.takes_slot:
            engine.running += 1
        return Lease(engine, ticket, reason)
