"""Which engines may serve a lane, which policy chooses among them, and which lanes no engine can serve any more."""

from __future__ import annotations

from hive.fleet.engines import Fleet
from hive.scheduling.best import Best
from hive.scheduling.lanes import Lane, Policy
from hive.scheduling.policies import AnyEngine, Situation, Turns, why_only
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import Ticket

GONE_AFTER = 10.0
"""Seconds for which no engine lists a model or has the route, until the tickets that wait for it are refused."""


class LaneSurvey:
    """Keeps the engines and the policies of lanes. A lane is surveyed again when the fleet's shape has changed."""

    def __init__(self, fleet: Fleet, queue: TicketQueue, situation: Situation) -> None:
        self._fleet = fleet
        self._queue = queue
        self._situation = situation
        self._policies: dict[tuple[str, bool], Policy] = {}
        """The policies, by name and by whether their tickets take a slot. Frontends with the same policy share it."""
        self._gone_since: dict[Lane, float] = {}

    def survey(self, lane: Lane, ticket: Ticket) -> None:
        """Find the engines that may serve a lane: those in service; doubtful ones only where there are no others."""
        having = ticket.frontend.admitted(self._fleet.having(lane.model))
        accepting = [engine for engine in having if ticket.accepts(engine)]
        lane.engines = [engine for engine in accepting if engine.takes_work] or [
            engine for engine in accepting if engine.is_last_resort
        ]
        lane.only = why_only(having)
        lane.policy = self._policy(ticket)
        lane.shape = self._fleet.shape

    def forgive(self, ticket: Ticket) -> Lane:
        """Let the engines that failed a ticket have it again, for no others are left; return the ticket's new lane."""
        ticket.excluded.clear()
        lane = self._queue.lane(ticket)
        if lane.shape != self._fleet.shape:
            self.survey(lane, ticket)
        return lane

    def forgive_all(self) -> list[Lane]:
        """Move the waiting tickets whose other engines are all gone; return the lanes that they wait in now."""
        queue, moved = self._queue, []
        for lane in [lane for lanes in queue.by_model.values() for lane in lanes if lane.excludes]:
            self.survey(lane, lane.head())
            if not lane.engines:
                for ticket in lane.tickets():
                    forgiven = self.forgive(ticket)
                    queue.move(ticket, forgiven)
                    moved.append(forgiven)
        return moved

    def take_gone(self, now: float) -> list[Ticket]:
        """Forget the tickets whose model, or whose route for it, no engine has had for a while; return them."""
        lanes = [lane for lanes in self._queue.by_model.values() for lane in lanes if not self._is_served(lane)]
        self._gone_since = {lane: self._gone_since.get(lane, now) for lane in lanes}
        over = [lane for lane, since in self._gone_since.items() if now - since >= GONE_AFTER]
        tickets = [ticket for lane in over for ticket in lane.tickets()]
        for ticket in tickets:
            self._queue.remove(ticket)
        return tickets

    def _is_served(self, lane: Lane) -> bool:
        """Does any engine of the frontend list the model and have the route, whatever its health?"""
        ticket = lane.head()
        having = ticket.frontend.admitted(self._fleet.having(lane.model))
        return any(engine.route_for(ticket.task, ticket.dialect) for engine in having)

    def _policy(self, ticket: Ticket) -> Policy:
        name, takes_slot = ticket.frontend.policy, ticket.takes_slot
        policy = self._policies.get((name, takes_slot))
        if policy is None:
            policy = self._policies[name, takes_slot] = _make(name, takes_slot, self._situation)
        return policy


def _make(name: str, takes_slot: bool, situation: Situation) -> Policy:
    if not takes_slot:
        return AnyEngine(name, situation)
    return Best(situation) if name == Best.name else Turns(name, situation)
