"""The joined link: a node's data sockets as one pool for its engines. The pool follows its use.

A node dials as many sockets as the hub asks for (`links`). The pool first asks for few. It asks for more with use, up
to what the slots allow, and for fewer when many were idle for a while. So the hub has room for thousands of nodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from hive import errors
from hive.errors import Fault
from hive.net.joined_data import JoinedConnection
from hive.wire.link_rules import SPARE_LINKS, CloseCode, links_for
from hive.wire.link_socket import Closed

FEW_IDLE = 2
"""If it has fewer spares than this, the pool asks for more."""
SHRINK_SECONDS = 60.0
NEW_SHARE = 0.3
"""The weight of a new measurement in a smoothed value."""
ASK_AGAIN_SECONDS = 5.0
"""If a node has dialed fewer sockets than it was asked for, it is asked again after this time."""


class JoinedPool:
    """The data sockets of one node, for all its sessions. The spare that was used last is used first."""

    def __init__(self, node: str, connect_timeout: float, note: Callable[[Closed], None]) -> None:
        """Make an empty pool. `note` is called for each socket that was closed by the node or lost."""
        self.node = node
        self.want = 0
        """How many sockets the node was asked for."""
        self._connect_timeout = connect_timeout
        self._note = note
        self._ask_node: Callable[[int], None] | None = None
        self._slots: dict[JoinedLink, int] = {}
        self._asked_at = 0.0
        self._all: set[JoinedConnection] = set()
        self._idle: list[JoinedConnection] = []
        self._waiters: deque[asyncio.Future[JoinedConnection]] = deque()
        self._peak = 0
        self._peak_since = 0.0
        self.round_trip = 0.0
        """Seconds to the node and back, smoothed; 0 while it is not known."""
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<JoinedPool {self.node} {len(self._idle)} idle of {len(self._all)}, wants {self.want}>"

    def __len__(self) -> int:
        return len(self._all)

    @property
    def spares(self) -> int:
        """Return how many sockets wait for an exchange."""
        return len(self._idle)

    @property
    def limit(self) -> int:
        """Return how many sockets the node's slots allow."""
        return links_for(sum(self._slots.values()))

    @property
    def is_full(self) -> bool:
        """Has the node dialed all the sockets that it was asked for?"""
        return len(self._all) >= self.want

    def open(self, ask_node: Callable[[int], None]) -> Sequence[JoinedConnection]:
        """Begin a session with `want` sockets; `ask_node` asks for another number.

        Return the old session's sockets, to be shut.
        """
        left, self._all, self._idle = list(self._all), set(), []
        self._ask_node = ask_node
        self._peak, self._peak_since = len(self._waiters), self._loop.time()
        self._asked_at = self._peak_since
        self.want = min(self.limit, SPARE_LINKS)
        return left

    def drop(self, code: CloseCode, reason: str) -> None:
        """End the session: close its sockets, fail their exchanges and the waiting ones."""
        self._ask_node = None
        self.want = 0
        dropped, self._all, self._idle = self._all, set(), []
        waiters, self._waiters = self._waiters, deque()
        for connection in dropped:
            connection.shut(code, reason)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(Fault(errors.NODE_UNREACHABLE, f"node {self.node!r} has left"))

    def expect(self, link: JoinedLink, slots: int) -> None:
        """Prepare for `slots` exchanges on an engine at the same time. With 0 the pool forgets the engine's link."""
        self._slots[link] = slots
        if not slots:
            del self._slots[link]
        if self._ask_node is not None and self.want < min(self.limit, SPARE_LINKS):
            self._ask(min(self.limit, SPARE_LINKS))

    def tick(self, now: float) -> None:
        """Ask again for sockets that are missing, and give up sockets that were idle for a while."""
        if len(self._all) < self.want and now - self._asked_at > ASK_AGAIN_SECONDS:
            self._ask(self.want)
        if now - self._peak_since < SHRINK_SECONDS:
            return
        wanted = min(self.limit, self._peak + SPARE_LINKS)
        self._peak, self._peak_since = self._busy, now
        if wanted < self.want:
            self._ask(wanted)

    def add(self, connection: JoinedConnection) -> None:
        """Add a socket that the node has dialed."""
        self._all.add(connection)
        self.put_back(connection)

    def put_back(self, connection: JoinedConnection) -> None:
        """Make a socket a spare: for the exchange that waits longest, or for a later one."""
        if connection not in self._all or not connection.is_spare:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def note_round_trip(self, seconds: float) -> None:
        """Learn from an exchange that the node accepted after `seconds`."""
        share = NEW_SHARE if self.round_trip else 1.0
        self.round_trip += (seconds - self.round_trip) * share

    def forget(self, connection: JoinedConnection, closed: Closed) -> None:
        """Remove a socket that is closed."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._note(closed)

    def take_idle(self, engine: str) -> JoinedConnection | None:
        """Return the spare that was used last, for an exchange on this engine; None when there is no spare."""
        found: JoinedConnection | None = None
        while self._idle and found is None:
            connection = self._idle.pop()
            if connection.is_spare:
                connection.engine = engine
                found = connection
        if len(self._idle) < FEW_IDLE:
            self._grow()
        return found

    async def wait(self, engine: str) -> JoinedConnection:
        """Return a spare once there is one. Raises `Fault`: node_unreachable, or node_busy when none comes in time."""
        connection = self.take_idle(engine)
        if connection is not None:
            return connection
        if self._ask_node is None:
            raise Fault(errors.NODE_UNREACHABLE, f"node {self.node!r} has left")
        waiter: asyncio.Future[JoinedConnection] = self._loop.create_future()
        self._waiters.append(waiter)
        self._grow()
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await waiter
        except TimeoutError:
            self._leave(waiter)
            reason = f"node {self.node!r} has no free connection and dialed none within {self._connect_timeout:g} s"
            raise Fault(errors.NODE_BUSY, reason) from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        finally:
            del waiter  # it may hold a fault, whose traceback holds this frame
        connection.engine = engine
        return connection

    def _leave(self, waiter: asyncio.Future[JoinedConnection]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.put_back(waiter.result())  # the spare came in the same moment in which the exchange was cancelled

    @property
    def _busy(self) -> int:
        return len(self._all) - len(self._idle) + len(self._waiters)

    def _grow(self) -> None:
        busy = self._busy
        if busy > self._peak:
            self._peak = busy
        wanted = busy + SPARE_LINKS
        if wanted > self.want < self.limit and self._ask_node is not None:
            self._ask(min(self.limit, max(wanted, 2 * self.want)))

    def _ask(self, want: int) -> None:
        self.want = want
        self._asked_at = self._loop.time()
        if self._ask_node is not None:
            self._ask_node(want)


class JoinedLink:
    """The link to one engine of a joined node."""

    base_path = b""
    credential = b""
    """The hub sends no credential: the node adds the engine's own."""

    def __init__(self, pool: JoinedPool, engine: str) -> None:
        self._pool = pool
        self._engine = engine
        self.host_field = engine.encode()

    def __repr__(self) -> str:
        return f"<JoinedLink {self._pool.node} {self._engine}>"

    def take_idle(self) -> JoinedConnection | None:
        """Return a spare, if there is one."""
        return self._pool.take_idle(self._engine)

    async def dial(self) -> JoinedConnection:
        """Return a spare that becomes free or that the node dials now.

        Raises `Fault`: node_unreachable or node_busy.
        """
        return await self._pool.wait(self._engine)

    def expect(self, slots: int) -> None:
        """Prepare the pool for `slots` exchanges at the same time."""
        self._pool.expect(self, slots)

    def close(self) -> None:
        """Expect no more exchanges."""
        self._pool.expect(self, 0)
