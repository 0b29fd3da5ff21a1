"""Tickets that wait: in order of arrival within a lane, found by model, forgotten or expired in O(log n).

A lane holds tickets that the same engines accept, so only its head matters. Heaps are never searched: what left
keeps its entry until it comes to the top, or until such entries are the greater part.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from hive.fleet.engines import Engine
from hive.scheduling.tickets import LaneKey, Ticket

_FEW_ENTRIES = 64
_MANY_LANES = 4096

_Entry = tuple[float, int, Ticket]
"""What it is sorted by, the ticket's mark at the time, the ticket."""


Wish = tuple[str, str, frozenset[int]]
"""What an engine must have in memory for a ticket, and which engines will not do: model, options, excluded ones."""


def wish_of(key: LaneKey) -> Wish:
    """Return what the tickets of a lane wish for, whatever their route."""
    return key[0], key[5], key[6]


class Lane:
    """The tickets that the same engines accept, the oldest first."""

    __slots__ = (
        "count",
        "engines",
        "entries",
        "is_declining",
        "is_on_rota",
        "key",
        "model",
        "only",
        "shape",
        "takes_slot",
    )

    def __init__(self, key: LaneKey, takes_slot: bool) -> None:
        self.key = key
        self.model = key[0]
        self.takes_slot = takes_slot
        self.entries: list[_Entry] = []
        self.count = 0
        self.engines: list[Engine] = []
        """Engines that may serve it, slots aside; true while `shape` is the fleet's."""
        self.only = ""
        """What to say of its only engine: why it is that one."""
        self.shape = -1
        self.is_declining = False
        """Was a free slot left unused, because waiting seemed better?"""
        self.is_on_rota = False
        """Is it among the lanes that are looked at again in turn?"""

    @property
    def excludes(self) -> bool:
        """Have engines failed its tickets?"""
        return bool(self.key[6])

    def tickets(self) -> list[Ticket]:
        """Return what waits in it, in no order."""
        return [ticket for _, mark, ticket in self.entries if ticket.mark == mark]

    def head(self) -> Ticket:
        """Return the oldest ticket of a lane that is not empty."""
        entries = self.entries
        while entries[0][2].mark != entries[0][1]:
            heappop(entries)
        return entries[0][2]


class TicketQueue:
    """All tickets that wait, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.lanes: dict[LaneKey, Lane] = {}
        """Empty ones too: they remember their engines."""
        self.by_model: dict[str, list[Lane]] = {}
        """The lanes in which tickets wait."""
        self.waiting_of: dict[str, int] = {}
        """How many tickets that need a slot wait for a model."""
        self.pressed_since: dict[str, float] = {}
        """When the first of those came since whom somebody has always been waiting for a model."""
        self.served_at: dict[Wish, float] = {}
        """When somebody who waited for the same was last served; forgotten when nobody waits for the model any more."""
        self._deadlines: list[_Entry] = []
        self._lane_of: dict[int, Lane] = {}
        """By mark."""
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
        """Let a ticket wait in its lane, at the place of its number."""
        self._last_mark += 1
        ticket.mark = self._last_mark
        self._lane_of[ticket.mark] = lane
        heappush(lane.entries, (ticket.number, ticket.mark, ticket))
        heappush(self._deadlines, (ticket.deadline, ticket.mark, ticket))
        if not lane.count:
            self.by_model.setdefault(lane.model, []).append(lane)
            self.pressed_since.setdefault(lane.model, ticket.since)
        lane.count += 1
        self.count += 1
        if lane.takes_slot:
            self.waiting_of[lane.model] = self.waiting_of.get(lane.model, 0) + 1

    def remove(self, ticket: Ticket) -> bool:
        """Forget a ticket; False when it does not wait."""
        if not ticket.mark:
            return False
        lane = self._lane_of.pop(ticket.mark)
        ticket.mark = 0
        lane.count -= 1
        self.count -= 1
        if lane.takes_slot:
            self._uncount(lane.model)
        if not lane.count:
            lane.entries.clear()
            lane.is_declining = False
            self.by_model[lane.model].remove(lane)
            if not self.by_model[lane.model]:
                del self.by_model[lane.model]
                self.served_at = {wish: at for wish, at in self.served_at.items() if wish[0] != lane.model}
                del self.pressed_since[lane.model]
        elif len(lane.entries) > _FEW_ENTRIES + 2 * lane.count:
            lane.entries = _live(lane.entries)
        if len(self._deadlines) > _FEW_ENTRIES + 2 * self.count:
            self._deadlines = _live(self._deadlines)
        return True

    def move(self, ticket: Ticket, lane: Lane) -> None:
        """Let a ticket that waits wait in another lane of its model."""
        left = ticket.mark
        self.push(ticket, lane)  # first, so that somebody waits for the model all the time
        came, ticket.mark = ticket.mark, left
        self.remove(ticket)
        ticket.mark = came

    def take_expired(self, now: float) -> list[Ticket]:
        """Forget the tickets whose deadline has passed; return them, the earliest first."""
        late: list[Ticket] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, mark, ticket = heappop(self._deadlines)
            if ticket.mark == mark:
                self.remove(ticket)
                late.append(ticket)
        return late

    def __iter__(self) -> Iterator[Ticket]:
        """Yield all tickets, lane by lane, each lane in order."""
        for lanes in self.by_model.values():
            for lane in lanes:
                yield from (entry[2] for entry in sorted(lane.entries, key=_order) if entry[2].mark == entry[1])

    def _uncount(self, model: str) -> None:
        left = self.waiting_of[model] - 1
        if left:
            self.waiting_of[model] = left
        else:
            del self.waiting_of[model]


def _order(entry: _Entry) -> tuple[float, int]:
    return entry[0], entry[1]


def _live(entries: list[_Entry]) -> list[_Entry]:
    kept = [entry for entry in entries if entry[2].mark == entry[1]]
    heapify(kept)
    return kept
