"""The part of the management API about requests: what waits, what runs, what has ended and why it went where it went.

A request can be found by its `X-Hive-Request-Id` from the moment its body has come until a thousand other requests have
ended after it, or the hub ends. Durations in the entry of a request are in milliseconds, as in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from fastapi import FastAPI, Query

from hive.fleet.model_names import MAX_NAME
from hive.hub.records import Outcome

MOST = 1_000
"""The most entries in a listing."""
USUAL = 100


class Which(StrEnum):
    """Which requests to list."""

    RUNNING = "running"
    QUEUED = "queued"
    """Running requests that wait for a slot."""
    ENDED = "ended"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """The filter of a listing of requests. None matches every value."""

    limit: int = USUAL
    """At most so many running requests, and at most so many ended requests."""
    state: Which = Which.ALL
    model: str | None = None
    """In any spelling; empty for requests whose model no engine had."""
    node: str | None = None
    """The node where a request runs, or ran last; empty for requests that reached no node."""
    key: str | None = None
    """The key's name; empty for requests without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningView:
    """A request under way. What is not known yet is empty or None."""

    request_id: str
    operation: str
    key: str
    model: str
    state: str
    """reading, queued, sent or answering."""
    node: str
    """The node of the present attempt, or of the last one."""
    attempts: int
    queued_ms: float
    first_byte_ms: float | None
    age_ms: float
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedView:
    """A request that has ended: what its line in the log says."""

    request_id: str
    operation: str
    key: str
    key_id: str
    """Which key of this name it was: the start of its digest, in hexadecimal."""
    model: str
    state: str = "ended"
    time: str
    """When it ended, RFC 3339."""
    outcome: Outcome
    status: int
    error: str
    detail: str
    """What the client was told, if the hub or a node was at fault."""
    node: str
    why: str
    attempts: int
    queued_ms: float
    first_byte_ms: float | None
    total_ms: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class CandidateView:
    """An engine that was considered for a request, and what it was compared by; neither where there was one only."""

    node: str
    engine: str | None
    expected_ms: float | None
    """Until the first byte, as `best` expected it."""
    weight: float | None
    """The number that another policy compared; the least is chosen."""


@dataclass(frozen=True, slots=True)
class DecisionView:
    """Why an attempt went where it went."""

    policy: str
    reason: str
    node: str
    engine: str | None
    running: int
    """How many requests ran on the engine then, this one included."""
    candidates: Sequence[CandidateView]
    failure: str
    """Why the attempt brought no whole answer; empty when it did."""
    waited_for: str
    """Why the request waited before this attempt, as it was when the wait began; empty when it did not wait."""


@dataclass(frozen=True, slots=True)
class WaitingNode:
    """A node that has the model of a request that waits, and what keeps it from serving the request."""

    node: str
    engine: str | None
    status: str
    running: int
    slots: int
    reason: str


@dataclass(frozen=True, slots=True)
class WaitView:
    """Why a request waits now."""

    reason: str
    ahead: int
    """How many requests wait for the same model and came before this one."""
    nodes: Sequence[WaitingNode]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDetail(RunningView):
    """All that is known of a request under way."""

    decisions: Sequence[DecisionView]
    """One for each attempt."""
    waits: WaitView | None
    """None for a request that does not wait in the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedDetail(EndedView):
    """All that is known of a request that has ended."""

    decisions: Sequence[DecisionView]


@dataclass(frozen=True, slots=True)
class RequestList:
    """The answer to a listing of requests, the newest first."""

    time: str
    """The hub's clock, RFC 3339."""
    running: Sequence[RunningView]
    ended: Sequence[EndedView]


@dataclass(frozen=True, slots=True)
class WaitingModel:
    """A model for which requests wait."""

    model: str
    waiting: int
    oldest_wait_s: float
    nodes: Sequence[str]
    loading_on: Sequence[str]


@dataclass(frozen=True, slots=True)
class TicketView:
    """A request that waits."""

    request_id: str
    model: str
    operation: str
    key: str
    waited_s: float
    attempts: int


@dataclass(frozen=True, slots=True)
class LoadView:
    """A load that the hub has ordered."""

    node: str
    engine: str | None
    model: str
    reason: str
    unload: Sequence[str]
    """Models that the engine unloads first, to make room."""
    seconds: float | None
    """Seconds since the hub ordered it."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """What waits."""

    waiting: int
    limit: int
    served_per_second: float | None
    """Of late; None while no request has been served."""
    models: Sequence[WaitingModel]
    """The model that has waited longest comes first."""
    tickets: Sequence[TicketView]
    """The oldest tickets, at most a thousand; the oldest comes first."""
    loads: Sequence[LoadView]


class RequestsView(Protocol):
    """What the management API asks the hub about requests; answered from memory."""

    def queue(self) -> QueueView:
        """Return what waits."""

    def listed(self, wanted: RequestFilter) -> RequestList:
        """Return what runs and what has ended. Fault: NOT_FOUND for an unknown node, key or model."""

    def one(self, request_id: str) -> RunningDetail | EndedDetail:
        """Return all that is known of a request. Fault: NOT_FOUND."""

    def cancel(self, request_id: str) -> EndedDetail:
        """End a request, with an error for its client. Fault: NOT_FOUND, CONFLICT."""


def serve_requests(app: FastAPI, prefix: str, view: RequestsView) -> None:
    """Give an application the routes about requests."""

    @app.get(f"{prefix}/queue")
    async def queue() -> QueueView:
        """Say what waits, for which models, and what is being loaded."""
        return view.queue()

    @app.get(f"{prefix}/requests")
    async def requests(
        limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL,
        state: Which = Which.ALL,
        model: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
        node: str | None = None,
        key: str | None = None,
    ) -> RequestList:
        """List the requests that run and the last thousand that have ended, the newest first."""
        return view.listed(RequestFilter(limit, state, model, node, key))

    @app.get(f"{prefix}/requests/{{request_id}}")
    async def request(request_id: str) -> RunningDetail | EndedDetail:
        """Say all of one request: why it waits, and for each attempt why it went where it went."""
        return view.one(request_id)

    @app.delete(f"{prefix}/requests/{{request_id}}")
    async def cancel(request_id: str) -> EndedDetail:
        """Cancel a request: its client gets the error `cancelled`, its slot is free at once, its engine stops."""
        return view.cancel(request_id)
