"""The data sockets of one session: as many as the hub wants, dialed again when they are lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator

from hive.node.data_socket import DataSocket, Held
from hive.node.dialing import Dialer, DialError
from hive.node.engine_server import EngineServer
from hive.node.hub_socket import Turn
from hive.node.local_engines import Engines
from hive.wire.link_dial import Refused, redial_seconds
from hive.wire.link_messages import Welcome
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import Closed

MAX_DIALING = 16
"""The most data sockets that are dialed at the same time."""
STEADY_SECONDS = 10.0
"""A socket or session that lasted this many seconds was a good one. The next dial after it comes soon."""

_log = logging.getLogger(__name__)


class DataSockets:
    """Dials data sockets and closes spare ones, until the session ends."""

    def __init__(self, dialer: Dialer, turn: Turn, engines: Engines, on_over: Callable[[Closed], None]) -> None:
        """`on_over` is called when the hub closes a data socket because the session is over."""
        self._loop = asyncio.get_running_loop()
        self._dialer = dialer
        self._turn = turn
        self._engines = engines
        self._on_over = on_over
        self._held = Held()
        self._welcome: Welcome | None = None
        self.want = 0
        """How many the hub wants."""
        self._all: set[DataSocket] = set()
        """The data sockets whose connections are not lost."""
        self._untried: dict[DataSocket, float] = {}
        """The data sockets without an exchange so far, and when each was opened."""
        self._dialing: set[asyncio.Task[bool]] = set()
        self._failures = 0
        """How many data sockets in a row were lost unused or not opened."""
        self._filling: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._has_changed = asyncio.Event()
        """Set when an exchange or a socket has ended."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[DataSocket]:
        return iter(self._all)

    @property
    def running(self) -> int:
        """Return how many exchanges run now."""
        return sum(socket.is_busy for socket in self._all)

    def begin(self, welcome: Welcome) -> None:
        """Dial the first sockets: the hub has welcomed the node."""
        self._welcome = welcome
        self.keep(welcome.links)

    def keep(self, want: int) -> None:
        """Keep `want` sockets from now on."""
        self.want = want
        self._fill()

    def leave(self) -> None:
        """Dial no more sockets; what runs goes on."""
        self._is_leaving = True

    async def until_idle(self, is_over: Callable[[], bool]) -> None:
        """Wait until no exchange runs, or the session is over."""
        self._has_changed.clear()
        while self.running and not is_over():
            self._has_changed.clear()
            await self._has_changed.wait()

    def tick(self, now: float) -> None:
        """Do the work that is due, and forget sockets whose connections are lost."""
        for socket in list(self._all):
            if socket.lost.done():
                self._all.discard(socket)
                self._untried.pop(socket, None)
                continue
            socket.tick(now)
            if socket.is_open and now - self._untried.get(socket, now) >= STEADY_SECONDS:
                self._note_use(socket)

    def drop(self) -> None:
        """Drop every socket at once."""
        self._is_leaving = True
        self._has_changed.set()
        if self._filling is not None:
            self._filling.cancel()
        for task in self._dialing:
            task.cancel()
        for socket in self._all:
            socket.drop()
        self._all.clear()

    def engine(self, name: str) -> EngineServer | None:
        """Return the engine of this id."""
        return self._engines.get(name)

    def on_spare(self, socket: DataSocket) -> None:
        """Note that an exchange has ended: it may have been the last one, or its socket may be one too many."""
        self._has_changed.set()
        self._note_use(socket)
        if not self._is_leaving and len(self._all) > self.want:
            self._trim()

    def on_data_closed(self, socket: DataSocket, closed: Closed) -> None:
        """Note that a data socket is closed, and dial another one if the hub wants it."""
        self._has_changed.set()
        if closed.code == CloseCode.SESSION_OVER:
            self._on_over(closed)
        else:
            self._fill_later()

    def _note_use(self, socket: DataSocket) -> None:
        """Start the count of failures again: a data socket has carried an exchange or lived for a while."""
        if self._untried.pop(socket, None) is not None:
            self._failures = 0

    def _open_sockets(self) -> list[DataSocket]:
        return [socket for socket in self._all if socket.is_open]

    def _fill(self) -> None:
        """Dial missing data sockets, unless a retry is due later; or close spares that are too many."""
        if self._is_leaving or self._welcome is None:
            return
        missing = self.want - len(self._open_sockets()) - len(self._dialing)
        if missing < 0:
            self._trim()
        if self._filling is not None:
            return
        for _ in range(min(missing, MAX_DIALING - len(self._dialing))):
            task = self._loop.create_task(self._dial(self._welcome))
            self._dialing.add(task)
            task.add_done_callback(self._on_dialed)

    def _trim(self) -> None:
        open_sockets = self._open_sockets()
        surplus = len(open_sockets) - self.want
        spares = [socket for socket in open_sockets if not socket.is_busy]
        for socket in spares[: max(0, surplus)]:
            socket.close(CloseCode.NORMAL, "one too many")

    def _fill_later(self) -> None:
        if self._filling is None and not self._is_leaving:
            self._failures += 1
            delay = redial_seconds(self._failures, CloseCode.BROKE_OFF, random.random())  # noqa: S311 - no secret
            self._filling = self._loop.call_later(delay, self._fill_now)

    def _fill_now(self) -> None:
        self._filling = None
        self._fill()

    def _on_dialed(self, task: asyncio.Task[bool]) -> None:
        self._dialing.discard(task)
        if not task.cancelled() and task.result():
            self._fill()

    async def _dial(self, welcome: Welcome) -> bool:
        """Open one more data socket; return whether it opened."""
        socket = DataSocket(self._dialer.begin(), self._turn, welcome.session, welcome.ping_s, self, self._held)
        try:
            await self._dialer.open(socket)
        except (DialError, Refused) as error:
            if self._failures == 0:
                _log.warning("a data socket cannot be opened: %s; trying again", error)
        except Exception:
            _log.exception("dialing a data socket")
        else:
            self._all.add(socket)
            if socket.is_open:
                self._untried[socket] = self._loop.time()
            return True
        self._fill_later()
        return False
