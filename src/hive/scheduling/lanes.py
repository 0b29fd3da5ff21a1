"""A lane holds the waiting tickets that the same engines accept; a policy chooses among the engines of a lane.

Only the first ticket of a lane matters: if no engine can serve it, none can serve those behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from heapq import heapify, heappop
from typing import Protocol

import msgspec

from hive.fleet.engines import Engine
from hive.scheduling.tickets import LaneKey, OrderKey, Ticket

Entry = tuple[OrderKey, int, Ticket]
"""The ticket's key, its mark when it came into the lane, and the ticket."""
FEW_ENTRIES = 64
"""A heap may always hold this many entries of tickets that have left."""

Wish = tuple[str, str, frozenset[int], frozenset[str] | None]
"""What an engine must have in memory for a ticket, and which engines may not serve it.

In this order: the model, the load options, the engines that failed the ticket, the nodes of its frontend.
"""


def wish_of(key: LaneKey) -> Wish:
    """Return the wish of a lane's tickets; lanes that differ in task or dialect alone share it."""
    return key[0], key[5], key[6], key[4].nodes


class Action(Enum):
    """What to do with a ticket."""

    SERVE = "serve"
    LOAD = "load"
    """An engine is to load the ticket's model; the ticket waits."""
    WAIT = "wait"


class Choice(msgspec.Struct, frozen=True):
    """The decision of a policy. `compared` are the engines that it weighed, each with its weight."""

    action: Action
    engine: Engine | None = None
    reason: str = ""
    compared: Sequence[tuple[Engine, float]] = ()
    unload: tuple[str, ...] = ()
    """Models to unload before a load."""
    declines: bool = False
    """Is a free slot left unused, because waiting seems better?"""


class Policy(Protocol):
    """Chooses an engine for one ticket at a time; the engines in `lane.engines` are in service and accept it."""

    name: str

    def choose(self, lane: Lane, ticket: Ticket, now: float, freed: Sequence[Engine] = ()) -> Choice:
        """Return what to do with the ticket now; `freed` came free just now. Changes only the policy's own memory."""


class Lane:
    """The waiting tickets that the same engines accept, in the order of their keys."""

    __slots__ = (
        "count",
        "engines",
        "entries",
        "is_declining",
        "is_on_rota",
        "key",
        "model",
        "only",
        "policy",
        "shape",
        "takes_slot",
    )

    def __init__(self, key: LaneKey, takes_slot: bool) -> None:
        self.key = key
        self.model = key[0]
        self.takes_slot = takes_slot
        self.entries: list[Entry] = []
        """A heap; the entry of a ticket that has left stays until it comes to the top."""
        self.count = 0
        """How many tickets wait in the lane."""
        self.policy: Policy
        """Chooses for its tickets: the policy of their frontend. Set by the first survey."""
        self.engines: list[Engine] = []
        """The engines that may serve its tickets, slots aside; true while `shape` is the fleet's."""
        self.only = ""
        """Why there is only one such engine, in a few words."""
        self.shape = -1
        self.is_declining = False
        """Was a free slot left unused, because waiting seemed better?"""
        self.is_on_rota = False
        """Is it among the lanes that are considered again in turn?"""

    @property
    def excludes(self) -> bool:
        """Have engines failed its tickets?"""
        return bool(self.key[6])

    def tickets(self) -> list[Ticket]:
        """Return the tickets that wait in the lane, in the order of their keys."""
        return [ticket for _, mark, ticket in sorted(self.entries, key=_place) if ticket.mark == mark]

    def head(self) -> Ticket:
        """Return the ticket that is served first; the lane must not be empty."""
        entries = self.entries
        while entries[0][2].mark != entries[0][1]:
            heappop(entries)
        return entries[0][2]

    def tidy(self) -> None:
        """Drop the entries of tickets that have left, once they are the greater part."""
        if len(self.entries) > FEW_ENTRIES + 2 * self.count:
            self.entries = [entry for entry in self.entries if entry[2].mark == entry[1]]
            heapify(self.entries)


def _place(entry: Entry) -> tuple[OrderKey, int]:
    return entry[0], entry[1]
