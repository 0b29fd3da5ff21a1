"""The history of an engine, made for assertions: counters and the last requests."""

from __future__ import annotations

from collections import deque

import msgspec

from hive.sim.wire import Headers, SimRequest

_SPOKEN = frozenset({"messages", "prompt", "input", "system", "suffix"})
_BODY_SHOWN_BYTES = 256 * 1024


class SeenRequest(msgspec.Struct):
    """One request as it arrived, without its prompt or messages."""

    number: int
    method: str
    path: str
    query: str
    headers: Headers
    body_bytes: int
    body_sha256: str
    body: dict[str, object] | None
    """The top level of a JSON object, without messages, prompt and similar fields. None for any other body."""
    faults: list[str] = []
    status: int = 0
    """The status that was sent; 0 until the head is sent."""
    outcome: str = "open"
    """`open`, `finished`, `cancelled` (the client left) or `cut` (a fault ended it)."""


class SimState(msgspec.Struct, frozen=True):
    """The state of the engine at one moment."""

    url: str
    control_url: str
    """The control port's URL; it answers whatever fault is set."""
    received: dict[str, int]
    """The number of requests by path, without control requests."""
    running: int
    """The number of requests that hold a slot."""
    waiting: int
    """The number of requests that wait for a slot or a load."""
    finished: int
    """The number of requests that held a slot and were fully answered."""
    cancelled: int
    """The number of requests whose client left before the end of the answer."""
    cut: int
    """The number of requests that a fault ended."""
    tokens: int
    loads: int
    loads_aborted: int
    loads_failed: int
    unloads: int
    loaded: list[str]
    connections_open: int
    connections_total: int
    faults: list[str]
    requests: list[SeenRequest]
    """The last requests, oldest first."""


class Ledger:
    """The counters. Only the engine writes them."""

    def __init__(self, remember: int) -> None:
        self.received: dict[str, int] = {}
        self.finished = 0
        self.cancelled = 0
        self.cut = 0
        self.tokens = 0
        self.connections_open = 0
        self.connections_total = 0
        self.requests: deque[SeenRequest] = deque(maxlen=remember)
        self._number = 0

    def note(self, request: SimRequest) -> SeenRequest:
        """Record a request that arrives; return the record."""
        path, _, query = request.target.partition("?")
        self.received[path] = self.received.get(path, 0) + 1
        self._number += 1
        seen = SeenRequest(
            self._number, request.method, path, query, request.headers, len(request.body), request.digest(),
            _shown(request.body),
        )  # fmt: skip
        self.requests.append(seen)
        return seen


def _shown(body: bytearray) -> dict[str, object] | None:
    if not body or len(body) > _BODY_SHOWN_BYTES:
        return None
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: msgspec.json.decode(value) for name, value in fields.items() if name not in _SPOKEN}
    except msgspec.DecodeError:
        return None
