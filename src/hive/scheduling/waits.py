"""Why a ticket waits, in words for people: in one sentence, and engine by engine."""

from __future__ import annotations

from collections.abc import Sequence

from hive.dialects.tasks import ENGINE_ROUTES
from hive.fleet.engines import Engine
from hive.scheduling.tickets import Ticket

_DECLINED = "a faster engine is expected to be free sooner"


def why_waiting(ticket: Ticket, having: Sequence[Engine], now: float) -> str:
    """Return what a ticket waits for; `having` are the engines that list its model."""
    having = ticket.frontend.admitted(having)
    accepting = [engine for engine in having if ticket.accepts(engine)]
    if not having:
        return "no node lists its model any more"
    if not accepting:
        return "every node that has its model has failed it, or lacks the route"
    if not any(engine.takes_work or engine.is_last_resort for engine in accepting):
        return "no node that could serve it is in service"
    if any(engine.running.loading == ticket.model for engine in accepting):
        return "its model is being loaded"
    if ticket.declined_since is not None:
        return _DECLINED
    serving = [engine for engine in accepting if engine.takes_work]
    if serving and all(engine.running.rests_until > now for engine in serving):
        return "its engines rest after they were busy or failed"
    return "its engines are busy"


def why_not(engine: Engine, ticket: Ticket, now: float) -> str:
    """Return what keeps one engine, which lists the ticket's model, from serving the ticket."""
    model = ticket.model
    if engine in ticket.excluded:
        return "it failed this request"
    if not ticket.frontend.admits(engine):
        return "the frontend of this request does not use its node"
    if not ticket.accepts(engine):
        return f"it does not serve {ENGINE_ROUTES[ticket.task, ticket.dialect].path}"
    if not engine.takes_work and not engine.is_last_resort:
        return engine.error or f"it is {engine.health}"
    if engine.running.loading == model:
        return "it loads the model"
    if engine.running.loads_alone:
        return f"it loads {engine.running.loading}"
    if engine.running.rests_until > now:
        return f"it was busy or failed, and rests for {engine.running.rests_until - now:.1f} s"
    if engine.running.count >= engine.limit:
        return "its slots are taken"
    if engine.running.of_model.get(model, 0) >= engine.model_slots:
        return "its slots for this model are taken"
    if not engine.is_warm(model, ticket.load_options):
        return "the model is not in its memory, and a load is not worth it or would cost others theirs"
    return _DECLINED if ticket.declined_since is not None else "it has a free slot"
