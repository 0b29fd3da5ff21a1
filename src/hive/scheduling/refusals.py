"""The one form in which the queue refuses: 503, a stable code, a sentence with the reason, and when to come again."""

from __future__ import annotations

from collections.abc import Sequence

from hive import errors
from hive.dialects.tasks import ENGINE_ROUTES, Dialect, Task
from hive.errors import Fault
from hive.fleet.engines import Engine
from hive.scheduling.tickets import Ticket

LEAST_RETRY = 1
MOST_RETRY = 120
UNKNOWN_RETRY = 10
"""Seconds to say when nothing was served lately, so that no pace is known."""
_NAMED = 3
"""At most this many nodes are named in a sentence."""


def retry_after(waiting: int, served_per_second: float) -> int:
    """Return the whole seconds in which all waiting tickets would be served, at the pace measured of late."""
    if served_per_second <= 0:
        return UNKNOWN_RETRY
    return min(max(LEAST_RETRY, round(waiting / served_per_second)), MOST_RETRY)


def queue_full(limit: int, seconds: int) -> Fault:
    """Return the refusal of a ticket that finds the queue full."""
    return Fault(
        errors.QUEUE_FULL, f"the queue is full: {limit} requests wait already; try again later", _after(seconds)
    )


def too_late(ticket: Ticket, having: Sequence[Engine], now: float, seconds: int) -> Fault:
    """Return the refusal of a ticket whose deadline has passed; its sentence says what was missing.

    `having` are the engines that list the model.
    """
    waited = f"{max(now - ticket.since, 0):.0f} s"
    having = ticket.frontend.admitted(having)
    if having and not any(engine.route_for(ticket.task, ticket.dialect) for engine in having):
        return not_served(ticket.task, ticket.dialect, having)
    serving = [engine for engine in having if ticket.accepts(engine)]
    if any(engine.takes_work or engine.is_last_resort for engine in serving):
        return Fault(errors.QUEUE_TIMEOUT, f"no slot came free in {waited}; try again later", _after(seconds))
    reason = "; ".join(_state(engine) for engine in serving[:_NAMED]) if having else "no node has it any more"
    sentence = f"no node could serve the model {ticket.model!r} in {waited}: {reason}"
    return Fault(errors.NO_NODE, sentence, _after(seconds))


def not_served(task: Task, dialect: Dialect, having: Sequence[Engine]) -> Fault:
    """Return the refusal of a ticket when the engines that have its model all lack its route."""
    kinds = ", ".join(sorted({engine.known.kind.value for engine in having}))
    return Fault(
        errors.NOT_SERVED, f"no engine with this model serves {ENGINE_ROUTES[task, dialect].path} (it is on {kinds})"
    )


def _state(engine: Engine) -> str:
    return f"{engine.node} is {engine.health}" + (f" ({engine.error})" if engine.error else "")


def _after(seconds: int) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(seconds)),)
