"""The shell around the dispatcher. Exchanges wait here for a lease, and every slot comes back, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine
from hive.scheduling.dispatcher import Dispatcher, Step
from hive.scheduling.failover import blamed_rest
from hive.scheduling.tickets import Lease, LoadEnd, LoadOrder, Ticket

MEASURE_PAUSE = 0.02
"""Seconds for which a measurement of an engine with a model is fresh."""


class Queue:
    """Turns the dispatcher's decisions into leases for the tickets that wait."""

    def __init__(self, dispatcher: Dispatcher, start_load: Callable[[LoadOrder], None]) -> None:
        self._dispatcher = dispatcher
        self.limit = dispatcher.queue.limit
        """How many tickets may wait."""
        self.estimates = dispatcher.estimates
        """How fast engines are expected to be."""
        self._start_load = start_load
        """Begins an exchange that loads a model. At its end it calls `load_finished`."""
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[Ticket, asyncio.Future[Lease]] = {}
        self._is_held = False

    @property
    def waiting_count(self) -> int:
        """Return how many tickets wait."""
        return self._dispatcher.waiting_count

    @property
    def served_per_second(self) -> float:
        """Return how many leases end in a second, of late; 0 if that is unknown."""
        return self._dispatcher.demand.serves_per_second

    def try_lease(self, ticket: Ticket) -> Lease | None:
        """Return a lease if a slot is free; otherwise None, and the ticket waits: call `wait`.

        Raises `Fault` (queue_full).
        """
        is_back = ticket.number
        lease = self._dispatcher.offer(ticket, self._loop.time())
        if is_back and lease is not None and self._dispatcher.waiting_count:
            self.serve()  # other tickets may take the slot that this one gave back
        return lease

    async def wait(self, ticket: Ticket) -> Lease:
        """Return a lease for a waiting ticket, once it gets one. Raises `Fault` (queue_timeout, no_node)."""
        waiter: asyncio.Future[Lease] = self._loop.create_future()
        self._waiters[ticket] = waiter
        if self._dispatcher.has_news:
            self.serve()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # the slot came in the moment of the cancellation
            raise
        finally:
            self._waiters.pop(ticket, None)
            del waiter  # it holds the fault, whose traceback holds this frame

    def forget(self, ticket: Ticket) -> None:
        """Remove a ticket from the queue. Does nothing for a ticket that has left the queue."""
        self._dispatcher.cancel(ticket)
        if self._dispatcher.has_news:  # the ticket's last slot, if the ticket had come back with one
            self.serve()

    def release(self, lease: Lease, *, comes_back: bool = False) -> None:
        """Give a slot back and serve the tickets that wait.

        With `comes_back` they are served after this ticket has returned.
        """
        self._dispatcher.release(lease)
        if self._dispatcher.waiting_count and not comes_back:
            self.serve()

    def note_busy(self, engine: Engine) -> None:
        """Note that an engine refused an exchange because it is busy."""
        self._dispatcher.note_busy(engine, self._loop.time())

    def note_inside(self, lease: Lease) -> None:
        """Note that an exchange waited inside its engine behind another one. Call it while the lease is held."""
        self._dispatcher.note_inside(lease, self._loop.time())

    def note_blamed(self, engine: Engine) -> None:
        """Note that an engine failed an exchange by its own fault. It rests: the more failures in a row, the longer."""
        engine.signs.blames += 1
        self.rest(engine, blamed_rest(engine.signs.blames))

    def rest(self, engine: Engine, seconds: float) -> None:
        """Give an engine no work for this many seconds."""
        self._dispatcher.rest(engine, self._loop.time() + seconds)

    def note_served(self, lease: Lease, measure: Callable[[], Measured]) -> None:
        """Note that an exchange was answered to its end. Call it while the lease is held.

        Of many answers in a short time not each is measured.
        """
        engine, now = lease.engine, self._loop.time()
        engine.signs.served += 1
        engine.signs.blames = engine.signs.busies = 0
        pace = engine.learned.paces.get(lease.ticket.model)
        if pace is None or now - pace.measured_at >= MEASURE_PAUSE:
            self._dispatcher.note_served(lease, measure(), now)

    def load_finished(self, order: LoadOrder, end: LoadEnd) -> None:
        """Note that a load is over, and serve the tickets that waited for it."""
        self._dispatcher.load_finished(order, end, self._loop.time())
        self.serve()

    def note_listing(self, engine: Engine) -> None:
        """Note that the fleet has learned which models an engine has loaded."""
        self._dispatcher.note_listing(engine, self._loop.time())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make no decision while the block runs. At its end all changes are seen together."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self.serve()

    def serve(self) -> None:
        """Serve the tickets that can be served. Call it when an engine or a slot became free."""
        if self._is_held:
            return
        self._act(self._dispatcher.serve(self._loop.time()))

    def tick(self) -> None:
        """Serve the tickets that can be served, and refuse those that waited too long."""
        self._act(self._dispatcher.step(self._loop.time()))

    def _act(self, step: Step) -> None:
        for lease in step.leases:
            waiter = self._waiters.get(lease.ticket)
            if waiter is None or waiter.done():
                self._dispatcher.release(lease)
            else:
                waiter.set_result(lease)
        for order in step.loads:
            self._start_load(order)
        for ticket, fault in step.refused:
            waiter = self._waiters.get(ticket)
            if waiter is not None and not waiter.done():
                waiter.set_exception(fault)
