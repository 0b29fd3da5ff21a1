"""The exchanges of a hub: those that run, those that ended last, and the records of all."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator

from hive import errors
from hive.dialects.routes import Route
from hive.errors import Fault
from hive.hub.attempt import Attempt
from hive.hub.exchange import Exchange
from hive.hub.records import Record, Records, outcome_of
from hive.scheduling.tickets import Lease

_log = logging.getLogger(__name__)

HISTORY = 1_000
"""The most ended exchanges that are kept to be shown."""
_DRAIN_STEP = 0.05

PastExchange = tuple[Record, list[Lease]]
"""The record of an exchange that has ended, and the leases of its attempts."""


class ExchangeRegister:
    """Keeps the exchanges that run and the exchanges that ended last."""

    def __init__(self, records: Records, now: Callable[[], float]) -> None:
        self.records = records
        self._now = now
        self.running: set[Exchange] = set()
        self.history: deque[PastExchange] = deque(maxlen=HISTORY)
        """The exchanges that ended last, the oldest first."""

    def end(self, exchange: Exchange) -> None:
        """Account for an exchange that has ended."""
        self.running.discard(exchange)
        self.records.add(exchange.record)
        self.history.append((exchange.record, exchange.leases))

    def note_refusal(self, route: Route | None, request_id: str, fault: Fault, size: int) -> None:
        """Account for a request that was refused before it became an exchange. `size`: bytes of the answer's body."""
        record = Record(request_id=request_id, operation=route.name if route is not None else "none", key=fault.key)
        record.status, record.error, record.outcome = fault.kind.status, fault.kind.code, outcome_of(fault.kind)
        record.bytes_out = size
        self.records.add(record)

    def attempts(self) -> list[Attempt]:
        """Return the attempts under way."""
        attempts = (exchange.attempt for exchange in self.running)
        return [attempt for attempt in attempts if attempt is not None and attempt.is_running]

    def find(self, request_id: str) -> Exchange | None:
        """Return a running exchange by the id of its request."""
        return next((each for each in self.running if each.record.request_id == request_id), None)

    def past(self) -> Iterator[PastExchange]:
        """Return the exchanges that have ended, the last one first."""
        self.records.settle()  # settling gives each record its time
        return reversed(self.history)

    def find_past(self, request_id: str) -> PastExchange:
        """Return an exchange that has ended by the id of its request. Raises `Fault` (not_found)."""
        for past in self.past():
            if past[0].request_id == request_id:
                return past
        kept = f"kept are requests to engines, the last {HISTORY:,} since the hub started"
        raise Fault(errors.NOT_FOUND, f"there is no request '{request_id}': {kept}")

    def check_deadlines(self, now: float) -> None:
        """End the attempts whose engines are silent for too long."""
        for exchange in list(self.running):
            try:
                exchange.check_deadlines(now)
            except Exception:
                _log.exception("exchange %s: its deadlines", exchange.record.request_id)

    def give_up_all(self) -> None:
        """End every exchange now, each with an honest error."""
        for exchange in list(self.running):
            exchange.give_up(Fault(errors.DRAINING, "the hub is shutting down"))

    async def finish(self, timeout: float) -> None:
        """Wait for the exchanges that run; after `timeout` seconds give up those that still run."""
        deadline = self._now() + timeout
        while self.running and self._now() < deadline:  # noqa: ASYNC110 - an event would cost each exchange time
            await asyncio.sleep(_DRAIN_STEP)
        self.give_up_all()
        await asyncio.sleep(0)
