"""The requests that wait, run or have ended, as the management API shows them: without a word of their texts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from heapq import nlargest
from itertools import islice

import msgspec

from hive.config import PolicyName
from hive.errors import NOT_FOUND, Fault
from hive.fleet.model_names import canonical
from hive.hub.core import Hub
from hive.hub.exchange import Exchange
from hive.hub.key_cases import Keys
from hive.hub.progress import Stage
from hive.hub.records import Record, timestamp
from hive.scheduling.tickets import Decision, Lease, LoadOrder, Ticket
from hive.scheduling.waits import why_not, why_waiting
from hive.surfaces.management.request_routes import (
    MOST,
    CandidateView,
    DecisionView,
    EndedDetail,
    EndedView,
    LoadView,
    QueueView,
    RequestFilter,
    RequestList,
    RunningDetail,
    RunningView,
    TicketView,
    WaitingModel,
    WaitingNode,
    WaitView,
    Which,
)


class RequestViews:
    """Answers from memory what the management API asks about requests."""

    def __init__(self, hub: Hub, keys: Keys) -> None:
        self._hub = hub
        self._keys = keys

    def queue(self) -> QueueView:
        """Return what waits."""
        hub = self._hub
        tickets = [_ticket(exchange) for _, exchange in self._waiting()]
        by_model: dict[str, list[TicketView]] = {}
        for ticket in tickets:
            by_model.setdefault(ticket.model, []).append(ticket)
        models = [self._model(model, waiting) for model, waiting in by_model.items()]
        return QueueView(
            waiting=hub.queue.waiting_count,
            limit=hub.queue.limit,
            served_per_second=round(hub.queue.served_per_second, 3) or None,
            models=sorted(models, key=lambda model: -model.oldest_wait_s),
            tickets=tickets[:MOST],
            loads=[self._load(order) for order in hub.loader.running],
        )

    def _waiting(self) -> list[tuple[Ticket, Exchange]]:
        """Return the tickets in the queue with their exchanges, in the order in which they came."""
        held = ((exchange.ticket, exchange) for exchange in self._hub.register.running)
        waiting = [(ticket, exchange) for ticket, exchange in held if ticket is not None and ticket.is_waiting]
        return sorted(waiting, key=lambda pair: pair[0].order)

    def _model(self, model: str, tickets: list[TicketView]) -> WaitingModel:
        engines = self._hub.fleet.having(model)
        return WaitingModel(
            model=model,
            waiting=len(tickets),
            oldest_wait_s=max(ticket.waited_s for ticket in tickets),
            nodes=list(dict.fromkeys(engine.node for engine in engines)),
            loading_on=list(dict.fromkeys(engine.node for engine in engines if engine.running.loading == model)),
        )

    def _load(self, order: LoadOrder) -> LoadView:
        engine = order.engine
        seconds = max(self._hub.now() - order.ordered_at, 0.0)
        return LoadView(engine.node, engine.id or None, order.model, order.reason, order.unload, round(seconds, 3))

    def listed(self, wanted: RequestFilter) -> RequestList:
        """Return what runs and what has ended, the newest first. Fault: NOT_FOUND."""
        self._check_names(wanted)
        running: list[Exchange] = []
        if wanted.state is not Which.ENDED:
            matching = (each for each in self._hub.register.running if _matches(each.record, wanted))
            if wanted.state is Which.QUEUED:
                matching = (each for each in matching if each.progress().stage is Stage.QUEUED)
            running = nlargest(wanted.limit, matching, key=lambda each: each.began_at)
        ended: Iterator[Record] = iter(())
        if wanted.state in (Which.ENDED, Which.ALL):
            ended = (record for record, _ in self._hub.register.past() if _matches(record, wanted))
        return RequestList(
            time=timestamp(time.time()),
            running=[_running(each) for each in running],
            ended=[_ended(record) for record in islice(ended, wanted.limit)],
        )

    def _check_names(self, wanted: RequestFilter) -> None:
        """Raise `Fault` for a name that the hub does not know: a list for a misspelt name would be empty."""
        hub = self._hub
        records = [*(each.record for each in hub.register.running), *(record for record, _ in hub.register.history)]
        nodes = {*(engine.node for engine in hub.fleet.engines), *hub.joining.nodes}
        keys = {key.name for key in self._keys.listed(revoked=True)}
        if wanted.node and wanted.node not in nodes.union(record.node for record in records):
            raise Fault(NOT_FOUND, f"there is no node '{wanted.node}'")
        if wanted.key and wanted.key not in keys.union(record.key for record in records):
            raise Fault(NOT_FOUND, f"there is no key '{wanted.key}'")
        model = canonical(wanted.model) if wanted.model else ""
        is_known = not model or hub.fleet.having(model) or model in {record.model for record in records}
        if not is_known and hub.roster.has_looked:
            raise Fault(NOT_FOUND, f"there is no model '{wanted.model}'")

    def one(self, request_id: str) -> RunningDetail | EndedDetail:
        """Return all that is known of a request. Fault: NOT_FOUND."""
        exchange = self._hub.register.find(request_id)
        if exchange is None:
            return _ended_detail(*self._hub.register.find_past(request_id))
        decisions = [_decision(lease.decision) for lease in exchange.leases]
        return RunningDetail(**asdict(_running(exchange)), decisions=decisions, waits=self._wait(exchange))

    def cancel(self, request_id: str) -> EndedDetail:
        """End a request, with an error for its client. Fault: NOT_FOUND, CONFLICT."""
        return _ended_detail(*self._hub.request_cases.cancel(request_id))

    def _wait(self, exchange: Exchange) -> WaitView | None:
        ticket = exchange.ticket
        if ticket is None or not ticket.is_waiting:
            return None
        now, engines = self._hub.now(), self._hub.fleet.having(ticket.model)
        ahead = sum(each.model == ticket.model and each.order < ticket.order for each, _ in self._waiting())
        nodes = [
            WaitingNode(
                node=each.node,
                engine=each.id or None,
                status=each.health.value,
                running=each.running.count,
                slots=each.slots,
                reason=why_not(each, ticket, now),
            )
            for each in engines
        ]
        return WaitView(why_waiting(ticket, engines, now), ahead, nodes)


def _matches(record: Record, wanted: RequestFilter) -> bool:
    return (
        (wanted.model is None or record.model == (canonical(wanted.model) if wanted.model else ""))
        and (wanted.node is None or record.node == wanted.node)
        and (wanted.key is None or record.key == wanted.key)
    )


def _ticket(exchange: Exchange) -> TicketView:
    record = exchange.record
    waited = round(exchange.progress().queued, 3)
    return TicketView(record.request_id, record.model, record.operation, record.key, waited, record.attempts)


def _running(exchange: Exchange) -> RunningView:
    record, progress = exchange.record, exchange.progress()
    return RunningView(
        request_id=record.request_id,
        operation=record.operation,
        key=record.key,
        model=record.model,
        state=progress.stage.value,
        node=record.node,
        attempts=record.attempts,
        queued_ms=round(progress.queued * 1000, 2),
        first_byte_ms=None if progress.first_byte is None else round(progress.first_byte * 1000, 2),
        age_ms=round(progress.age * 1000, 2),
        bytes_out=progress.bytes_out,
    )


def _ended_detail(record: Record, leases: Sequence[Lease]) -> EndedDetail:
    return EndedDetail(**asdict(_ended(record)), decisions=[_decision(lease.decision) for lease in leases])


def _ended(record: Record) -> EndedView:
    known = msgspec.structs.asdict(record)
    del known["event"]
    for name in ("queued_ms", "first_byte_ms", "total_ms"):
        known[name] = None if known[name] is None else round(known[name], 2)
    return EndedView(**known)


def _decision(decision: Decision) -> DecisionView:
    """Return the view of a decision. The field for the compared number depends on the policy."""
    is_expected = decision.policy == PolicyName.BEST
    candidates = [
        CandidateView(
            each.node,
            each.engine,
            expected_ms=round(each.seconds * 1000, 3) if is_expected and each.seconds is not None else None,
            weight=None if is_expected else each.seconds,
        )
        for each in decision.candidates
    ]
    return DecisionView(
        decision.policy,
        decision.reason,
        decision.node,
        decision.engine,
        decision.running,
        candidates,
        decision.failure,
        decision.waited_for,
    )
