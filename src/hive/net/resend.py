"""Sends a request again if its connection had died before the engine got the request. Only this module does so.

An idle connection may be dead without a sign: its server closed it in this very moment, or its machine is gone. A
request on such a connection is lost, and nothing has run. So the request goes out on a fresh connection, and no engine
is blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from hive.errors import Fault
from hive.net.link import Connection, Sink
from hive.net.pending_dial import PendingDial

MAX_RESENDS = 3
"""How many times one request may be sent again."""

C = TypeVar("C", bound=Connection)


class Resend(Generic[C]):
    """One request that moves from dead connections to fresh ones."""

    __slots__ = ("_count", "_dial", "_dialing", "_sink")

    def __init__(self, dial: Callable[[], Coroutine[Any, Any, C]], sink: Sink) -> None:
        self._dial = dial
        self._sink = sink
        self._count = 0
        self._dialing: PendingDial[C] | None = None

    @property
    def is_allowed(self) -> bool:
        """May the request be sent once more?"""
        return self._count < MAX_RESENDS

    def start(self, send: Callable[[C], None]) -> None:
        """Dial, then call `send` with the new connection."""
        self._count += 1

        def then(connection: C) -> None:
            self._dialing = None
            self._sink.on_moved(connection)
            send(connection)

        self._dialing = PendingDial(self._dial, then, self._give_up)

    def cancel(self) -> None:
        """Stop: do not send the request again."""
        dialing, self._dialing = self._dialing, None
        if dialing is not None:
            dialing.cancel()

    def _give_up(self, fault: Fault) -> None:
        self._dialing = None
        self._sink.on_failure(fault.kind, fault.message)
