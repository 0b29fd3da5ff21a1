"""How long an attempt may be silent: which silence is excused, and which silence ends the attempt.

These are pure rules, asked at each tick. `hive.fleet.health` says how long an engine that gives signs of life may take.
This module looks at one request. Is its first byte late by all measurements? Does the request wait inside its engine,
behind another request?
"""

from __future__ import annotations

import msgspec

from hive import errors
from hive.errors import Fault
from hive.fleet.health import DOUBTFUL_AFTER, DOWN_AFTER, SILENT_ON_SUSPECT, silence_limit
from hive.scheduling.estimates import Estimates
from hive.scheduling.tickets import Lease

OVERDUE = 10.0
"""A first byte is overdue after this many times the expected seconds."""
LONG_INSIDE = 2.0
"""Seconds without a byte before which no request counts as waiting inside its engine."""
LATE = 4.0
"""A request counts as waiting inside after this many times the expected seconds, while other answers flow."""
COLD_TOKEN = 0.02
"""Seconds for each token of a prompt that an engine does not remember: many engines may take as long."""
COLD_TIMES = 2.0
"""The same as a factor of the slowest pace that was measured of late."""
ENOUGH_MEASURED = 3
"""The number of measurements from which on there is an expectation."""


class AttemptSilence(msgspec.Struct, frozen=True):
    """An attempt from which no byte has come since `last_byte_at`, by the hub's clock."""

    lease: Lease
    last_byte_at: float
    has_begun: bool = False
    """Has the first byte of the answer come?"""
    has_tools: bool = False
    """May the engine hold its answer back until a tool call is whole?"""
    streams: bool = True
    """Does the answer come piece by piece? If not, its first byte may come only at its end."""

    def is_overdue(self, estimates: Estimates, now: float) -> bool:
        """Is the first byte far too late by all measurements, and has no other answer of the engine moved since?"""
        newest = max(self.last_byte_at, self.lease.engine.signs.last_answer_byte)
        silence = now - newest
        return silence >= DOUBTFUL_AFTER and silence > self._late_after(estimates, OVERDUE)

    def fault(self, estimates: Estimates, now: float, *, has_elsewhere: bool) -> Fault | None:
        """Return why the attempt must end; None while it may go on. `has_elsewhere`: may another engine serve it?"""
        silence = now - self.last_byte_at
        if not self.has_begun and self._waits_inside(estimates, now):
            return Fault(errors.NODE_BUSY, f"the request has waited inside for {silence:.0f} s, behind another one")
        if silence < self._limit(estimates, now, has_elsewhere=has_elsewhere):
            return None
        if self.has_begun:
            return Fault(errors.NODE_SILENT, f"it fell silent for {silence:.0f} s inside its answer")
        return Fault(errors.NODE_SILENT, f"it has sent nothing for {silence:.0f} s")

    def _limit(self, estimates: Estimates, now: float, *, has_elsewhere: bool) -> float:
        """Return the seconds of silence that end the attempt."""
        engine, patience = self.lease.engine, self.lease.ticket.frontend.patience
        limit = silence_limit(engine.signs, now, patience, has_begun=self.has_begun, has_tools=self.has_tools)
        if self.has_begun:
            return limit
        if limit == 0.0:
            return 0.0 if has_elsewhere else DOWN_AFTER
        if has_elsewhere and engine.is_last_resort and self.is_overdue(estimates, now):
            return SILENT_ON_SUSPECT
        return limit

    def _waits_inside(self, estimates: Estimates, now: float) -> bool:
        """Does the request wait in the engine's own queue? Yes if it is late while other answers flow."""
        lease, silence = self.lease, now - self.last_byte_at
        if silence < LONG_INSIDE or lease.of_model <= lease.engine.learned.proven:
            return False
        do_others_flow = now - lease.engine.signs.last_stream_byte < LONG_INSIDE
        return do_others_flow and silence > self._late_after(estimates, LATE)

    def _late_after(self, estimates: Estimates, times: float) -> float:
        """Return the seconds after which the first byte is late; infinite where too little is known.

        The measured prompts may have been in the engine's memory. This prompt may have to be read from its first word.
        """
        ticket, engine = self.lease.ticket, self.lease.engine
        pace = engine.learned.paces.get(ticket.model)
        if pace is None or pace.is_rough or pace.prompt.count < ENOUGH_MEASURED:
            return float("inf")
        if self.has_tools or not self.streams or not engine.is_warm(ticket.model, ticket.load_options):
            return float("inf")
        expected = estimates.first_byte(engine, ticket.model, ticket.size, self.lease.running)
        return max(times * expected, ticket.size * max(COLD_TOKEN, COLD_TIMES * pace.slowest))
