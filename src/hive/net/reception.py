"""The state that all connections of clients share: limits, the outbox, bodies in memory, refusals held back."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import dataclass
from typing import Protocol

from hive.errors import BODY_MEMORY_FULL, Fault
from hive.net.outbox import Outbox
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead

MAX_HELD_REFUSALS = 1000


class Handler(Protocol):
    """Judges and answers the requests of one listener."""

    def judge(self, stream: ClientStream) -> None:
        """Decide from the head alone whether the request may go on. Raises `Fault`."""

    def begin(self, stream: ClientStream) -> None:
        """Answer a request whose body is whole (`stream.body`), or whose body streams from now on (`stream.intake`)."""

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body of the answer that tells a client of a fault."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much a client may send and how long it may take (bytes, seconds)."""

    max_head_bytes: int = 32 << 10
    max_body_bytes: int = 64 << 20
    max_bodies_bytes: int = 512 << 20
    head_timeout: float = 10
    body_timeout: float = 60
    keep_alive_timeout: float = 75
    send_timeout: float = 60
    linger_timeout: float = 2


class Visitor(Protocol):
    """A connection of a client, as the server sees it."""

    @property
    def is_busy(self) -> bool:
        """Is a request under way, or an answer that the client has not taken?"""

    def sweep(self, now: float) -> None:
        """Close the connection if something on it took too long."""

    def refuse_now(self, fault: Fault) -> None:
        """Send a refusal that was held back."""

    def close_if_idle(self) -> None:
        """Close the connection if nothing is under way on it."""

    def end(self) -> None:
        """Refuse a request that is still arriving, because the hub ends."""

    def abort(self) -> None:
        """Close the connection now."""


class Reception:
    """The state that the connections of all listeners share."""

    def __init__(self, limits: ServerLimits, outbox: Outbox) -> None:
        self.limits = limits
        self.outbox = outbox
        self.connections: set[Visitor] = set()
        self.held_body_bytes = 0
        """Bytes of request bodies in memory."""
        self.is_draining = False
        self.date_line = b""
        """The header line Date, as of the last sweep."""
        self._held_refusals = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._id_prefix = f"req_{secrets.token_hex(6)}"
        self._ids = itertools.count(1)

    def next_request_id(self) -> str:
        """Return an id that no other request of any hub has."""
        return f"{self._id_prefix}{next(self._ids):08x}"

    def hold(self, connection: Visitor, fault: Fault) -> bool:
        """Hold a refusal back for its delay; return False when too many are held already."""
        if self._held_refusals >= MAX_HELD_REFUSALS:
            return False
        self._held_refusals += 1
        self._loop.call_later(fault.delay, self._release, connection, fault)
        return True

    def _release(self, connection: Visitor, fault: Fault) -> None:
        self._held_refusals -= 1
        connection.refuse_now(fault)


class HeldBody:
    """The body of one connection's request, as it counts among all bodies in memory."""

    __slots__ = ("_bytes", "_reception")

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._bytes = 0

    def hold(self, size: int) -> None:
        """Count a body that has grown or was unpacked at its new size. Raises `Fault` when there is no room for it."""
        reception = self._reception
        reception.held_body_bytes += size - self._bytes
        self._bytes = size
        if reception.held_body_bytes > reception.limits.max_bodies_bytes:
            raise Fault(BODY_MEMORY_FULL, "too many large requests at once")

    def release(self) -> None:
        """Count the body no longer."""
        if self._bytes:
            self._reception.held_body_bytes -= self._bytes
            self._bytes = 0
