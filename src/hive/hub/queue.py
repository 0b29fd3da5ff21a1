"""The shell around the dispatcher: exchanges wait here for a lease, and whatever happens the slot comes back."""

from __future__ import annotations

import asyncio

from hive import errors
from hive.errors import Fault
from hive.scheduling.dispatcher import Dispatcher, QueueFull
from hive.scheduling.tickets import Lease, Ticket

_RETRY_AFTER = (("Retry-After", "5"),)


class Queue:
    """Turns the dispatcher's decisions into leases for those who wait."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[Ticket, asyncio.Future[Lease]] = {}

    @property
    def waiting_count(self) -> int:
        """How many tickets wait."""
        return self._dispatcher.waiting_count

    def try_lease(self, ticket: Ticket) -> Lease | None:
        """Return a slot if there is one; else the ticket waits, for `wait`. Raises `Fault` (queue_full)."""
        try:
            return self._dispatcher.offer(ticket, self._loop.time())
        except QueueFull:
            raise Fault(errors.QUEUE_FULL, "the queue is full; try again soon", _RETRY_AFTER) from None

    async def wait(self, ticket: Ticket) -> Lease:
        """Return a slot for a ticket that waits. Raises `Fault` (queue_timeout, no_node)."""
        waiter: asyncio.Future[Lease] = self._loop.create_future()
        self._waiters[ticket] = waiter
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # granted in the very moment of the departure
            raise
        finally:
            self._waiters.pop(ticket, None)

    def forget(self, ticket: Ticket) -> None:
        """Let a ticket wait no longer; nothing for one that was served."""
        self._dispatcher.cancel(ticket)

    def release(self, lease: Lease) -> None:
        """Give a slot back and serve who waits for it."""
        self._dispatcher.release(lease)
        if self._dispatcher.waiting_count:
            self.serve()

    def serve(self) -> None:
        """Serve what can be served: call it when an engine or a slot came free."""
        for lease in self._dispatcher.serve(self._loop.time()):
            self._grant(lease)

    def tick(self) -> None:
        """Let time pass: serve what can be served, refuse what waited too long."""
        if not self._dispatcher.waiting_count:
            return
        step = self._dispatcher.step(self._loop.time())
        for lease in step.leases:
            self._grant(lease)
        for ticket in step.expired:
            self._refuse(
                ticket, Fault(errors.QUEUE_TIMEOUT, "no slot came free in time; try again later", _RETRY_AFTER)
            )
        for ticket in step.hopeless:
            self._refuse(ticket, Fault(errors.NO_NODE, f"no node with the model {ticket.model!r} is up", _RETRY_AFTER))

    def _grant(self, lease: Lease) -> None:
        waiter = self._waiters.get(lease.ticket)
        if waiter is None or waiter.done():
            self._dispatcher.release(lease)
        else:
            waiter.set_result(lease)

    def _refuse(self, ticket: Ticket, fault: Fault) -> None:
        waiter = self._waiters.get(ticket)
        if waiter is not None and not waiter.done():
            waiter.set_exception(fault)
