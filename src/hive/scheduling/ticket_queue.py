"""All tickets that wait: found by model, forgotten or expired in O(log n), in lanes ordered by key.

Heaps are never searched. The entry of a ticket that has left stays in a heap until it reaches the top, or until such
entries are the majority.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from hive.scheduling.lanes import FEW_ENTRIES, Lane, Wish
from hive.scheduling.order import Order, order_of
from hive.scheduling.tickets import UNORDERED, LaneKey, Ticket

_MANY_LANES = 4096

_Deadline = tuple[float, int, Ticket]
"""The ticket's deadline, its mark when it came into the queue, and the ticket."""


class TicketQueue:
    """The waiting tickets, at most `limit`; `order` makes their keys."""

    def __init__(self, limit: int, order: Order = order_of) -> None:
        self.limit = limit
        self.count = 0
        self.lanes: dict[LaneKey, Lane] = {}
        """Empty lanes too: a lane remembers its engines and its policy."""
        self.by_model: dict[str, list[Lane]] = {}
        """The lanes in which tickets wait."""
        self.waiting_of: dict[str, int] = {}
        """How many tickets that need a slot wait for a model."""
        self.pressed_since: dict[str, float] = {}
        """Since when tickets have waited for a model without a break: the arrival of the first of them."""
        self.served_at: dict[Wish, float] = {}
        """When a waiting ticket with the wish was last served; forgotten when no ticket waits for the model."""
        self._order = order
        self._deadlines: list[_Deadline] = []
        self._lane_of: dict[int, Lane] = {}
        """The lane of a waiting ticket, by the ticket's mark."""
        self._last_mark = 0

    def lane(self, ticket: Ticket) -> Lane:
        """Return the lane of a ticket."""
        key = ticket.lane
        lane = self.lanes.get(key)
        if lane is None:
            if len(self.lanes) >= _MANY_LANES:
                self.lanes = {each: kept for each, kept in self.lanes.items() if kept.count}
            lane = self.lanes[key] = Lane(key, ticket.takes_slot)
        return lane

    def push(self, ticket: Ticket, lane: Lane) -> None:
        """Let a ticket wait in its lane, at the place that its key says; a ticket without a key gets one."""
        if ticket.order is UNORDERED:
            ticket.order = self._order(ticket)
        self._last_mark += 1
        ticket.mark = self._last_mark
        self._lane_of[ticket.mark] = lane
        heappush(lane.entries, (ticket.order, ticket.mark, ticket))
        heappush(self._deadlines, (ticket.deadline, ticket.mark, ticket))
        if not lane.count:
            self.by_model.setdefault(lane.model, []).append(lane)
            self.pressed_since.setdefault(lane.model, ticket.since)
        lane.count += 1
        self.count += 1
        if lane.takes_slot:
            self.waiting_of[lane.model] = self.waiting_of.get(lane.model, 0) + 1

    def remove(self, ticket: Ticket) -> bool:
        """Forget a ticket; return False when it does not wait."""
        if not ticket.mark:
            return False
        lane = self._lane_of.pop(ticket.mark)
        ticket.mark = 0
        self._leave(lane)
        return True

    def _leave(self, lane: Lane) -> None:
        """Count a ticket of a lane no longer. Its entries in the heaps are stale already: its mark is another one."""
        lane.count -= 1
        self.count -= 1
        if lane.takes_slot:
            self._uncount(lane.model)
        if not lane.count:
            self._close(lane)
        else:
            lane.tidy()
        if len(self._deadlines) > FEW_ENTRIES + 2 * self.count:
            self._deadlines = [entry for entry in self._deadlines if entry[2].mark == entry[1]]
            heapify(self._deadlines)

    def move(self, ticket: Ticket, lane: Lane) -> None:
        """Let a waiting ticket wait in another lane of its model, or in its own lane at another place."""
        old_lane = self._lane_of.pop(ticket.mark)
        self.push(ticket, lane)  # first, so that the model always has a waiting ticket
        self._leave(old_lane)

    def rekey(self, ticket: Ticket) -> None:
        """Make the key of a ticket anew; a waiting ticket moves to the place that the new key says."""
        ticket.order = self._order(ticket)
        if ticket.mark:
            self.move(ticket, self._lane_of[ticket.mark])

    def take_expired(self, now: float) -> list[Ticket]:
        """Forget the tickets whose deadline has passed; return them, the earliest deadline first."""
        late: list[Ticket] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, mark, ticket = heappop(self._deadlines)
            if ticket.mark == mark:
                self.remove(ticket)
                late.append(ticket)
        return late

    def __iter__(self) -> Iterator[Ticket]:
        """Yield all tickets, lane by lane, each lane in the order of its keys."""
        for lanes in self.by_model.values():
            for lane in lanes:
                yield from lane.tickets()

    def _close(self, lane: Lane) -> None:
        """Empty a lane whose last ticket has left."""
        lane.entries.clear()
        lane.is_declining = False
        self.by_model[lane.model].remove(lane)
        if not self.by_model[lane.model]:
            del self.by_model[lane.model]
            self.served_at = {wish: at for wish, at in self.served_at.items() if wish[0] != lane.model}
            del self.pressed_since[lane.model]

    def _uncount(self, model: str) -> None:
        left = self.waiting_of[model] - 1
        if left:
            self.waiting_of[model] = left
        else:
            del self.waiting_of[model]
