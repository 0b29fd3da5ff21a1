"""The order in which waiting tickets are served: each has a key, and the smallest key comes first.

A key is made when a ticket first waits, and a ticket that comes back keeps it. A ticket that is served at once has
none. When the facts change from which keys are made, `TicketQueue.rekey` moves the tickets that are concerned.
"""

from __future__ import annotations

from collections.abc import Callable

from hive.scheduling.tickets import OrderKey, Ticket

Order = Callable[[Ticket], OrderKey]
"""Makes the key of a ticket, from the ticket and its principal; two tickets never get the same key."""


def order_of(ticket: Ticket) -> OrderKey:
    """Return the key for first come, first served: all tickets have one rank, and the number of arrival decides."""
    return 0.0, ticket.number
