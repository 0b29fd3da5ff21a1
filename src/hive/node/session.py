"""One session with the hub: its control socket, and as many data sockets as the hub wants.

A session begins with a dial and ends with its control socket. Its data sockets and their exchanges end with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from hive.node.data_socket import DataSocket, Held
from hive.node.dialing import Dialer, DialError
from hive.node.engine_server import EngineServer
from hive.node.hub_socket import HubControlSocket, Turn
from hive.node.local_engines import Engines
from hive.node.machine_watch import MachineWatch
from hive.wire.link_control import HeartbeatDue, NodeEvent
from hive.wire.link_dial import Refused, redial_seconds
from hive.wire.link_messages import Bye, Hello, Links, Refresh, ReportedEngine, Welcome
from hive.wire.link_rules import CLOSE_SECONDS, CloseCode
from hive.wire.link_socket import Closed

TICK_SECONDS = 0.5
MAX_DIALING = 16
"""The most data sockets that are dialed at the same time."""
STEADY_SECONDS = 10.0
"""A socket or session that lasted so many seconds was a good one. After it the next dial comes soon."""

_log = logging.getLogger(__name__)


class Session:
    """One session. Call `run`, and `leave` to end it in good order."""

    def __init__(
        self, dialer: Dialer, engines: Engines, machine: MachineWatch, on_welcome: Callable[[Welcome], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dialer = dialer
        self._engines = engines
        self._machine = machine
        self._on_welcome = on_welcome
        self._turn = Turn()
        self._held = Held()
        self._control: HubControlSocket | None = None
        self._welcome: Welcome | None = None
        self._closed: asyncio.Future[Closed] = self._loop.create_future()
        self._data: set[DataSocket] = set()
        """The data sockets whose connections are not lost."""
        self._untried: dict[DataSocket, float] = {}
        """The data sockets without an exchange so far, and when each was opened."""
        self._dialing: set[asyncio.Task[bool]] = set()
        self._want = 0
        self._failures = 0
        """How many data sockets in a row were lost unused or not opened."""
        self._filling: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._is_idle = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Session {self._welcome.node if self._welcome else 'greeting'} {len(self._data)}/{self._want}>"

    async def run(self, hello: Callable[[], Hello]) -> Closed:
        """Dial, then serve until the control socket ends. Return how it ended. Raises `DialError` or `Refused`."""
        control = HubControlSocket(self._dialer.begin(), self._turn, hello(), self)
        self._engines.on_change = control.report_soon
        ticker: asyncio.TimerHandle | None = None

        def tick() -> None:
            nonlocal ticker
            ticker = self._loop.call_later(TICK_SECONDS, tick)
            self._tick()

        try:
            self._control = control
            await self._dialer.open(control)
            tick()
            return await self._closed
        finally:
            if ticker is not None:
                ticker.cancel()
            self._engines.on_change = lambda: None
            self._drop()

    @property
    def running(self) -> int:
        """Return how many exchanges run now."""
        return sum(socket.is_busy for socket in self._data)

    async def leave(self, timeout: float) -> None:
        """Ask for no more exchanges, give the running ones `timeout` seconds to end, then close everything."""
        control = self._control
        if self._welcome is None or control is None or control.link is None:
            return
        self._is_leaving = True
        control.link.say_draining()
        control.flush()
        self._is_idle.clear()
        try:
            async with asyncio.timeout(timeout):
                while self.running and not self._closed.done():
                    self._is_idle.clear()
                    await self._is_idle.wait()
        except TimeoutError:
            _log.warning("%d exchanges have not ended within %g s", self.running, timeout)
        control.close(CloseCode.GOING_AWAY, "the agent stops")
        for socket in self._data:
            socket.close(CloseCode.GOING_AWAY, "the agent stops")
        await asyncio.wait([control.lost, *(socket.lost for socket in self._data)], timeout=CLOSE_SECONDS)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._control is not None:
            self._control.tick(now)
        for socket in list(self._data):
            if socket.lost.done():
                self._data.discard(socket)
                self._untried.pop(socket, None)
                continue
            socket.tick(now)
            if socket.is_open and now - self._untried.get(socket, now) >= STEADY_SECONDS:
                self._note_use(socket)

    def _drop(self) -> None:
        """End the session at once: drop every socket."""
        self._is_leaving = True
        self._is_idle.set()
        if self._filling is not None:
            self._filling.cancel()
        for task in self._dialing:
            task.cancel()
        for socket in self._data:
            socket.drop()
        self._data.clear()
        if self._control is not None:
            self._control.write_now()
            self._control.abort()

    # --- the control socket ---

    def on_control(self, event: NodeEvent | Closed) -> None:
        """Act on a message of the hub."""
        if isinstance(event, HeartbeatDue):
            assert self._control is not None
            assert self._control.link is not None
            self._control.link.heartbeat(self._machine.machine, self._engines.beats())
        elif isinstance(event, Closed):
            self._end(event)
        elif isinstance(event, Welcome):
            self._welcome = event
            self._want = event.links
            self._on_welcome(event)
            self._fill()
        elif isinstance(event, Links):
            self._want = event.want
            self._fill()
        elif isinstance(event, Refresh):
            self._engines.refresh(event.engine)
        elif isinstance(event, Bye):
            self._is_leaving = True
            _log.info("the hub says bye: %s", event.reason)

    def _end(self, closed: Closed) -> None:
        self._is_leaving = True
        if not self._closed.done():
            self._closed.set_result(closed)

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return all engines as they are now."""
        return self._engines.report()

    # --- data sockets ---

    def engine(self, name: str) -> EngineServer | None:
        """Return the engine of this id."""
        return self._engines.get(name)

    def on_spare(self, socket: DataSocket) -> None:
        """Note that an exchange has ended: it may have been the last one, or its socket may be one too many."""
        self._is_idle.set()
        self._note_use(socket)
        if not self._is_leaving and len(self._data) > self._want:
            self._trim()

    def on_data_closed(self, socket: DataSocket, closed: Closed) -> None:
        """Note that a data socket is closed, and dial another one if the hub wants it."""
        self._is_idle.set()
        if closed.code == CloseCode.SESSION_OVER:
            self._end(closed)
        else:
            self._fill_later()

    def _note_use(self, socket: DataSocket) -> None:
        """Start the count of failures again: a data socket has carried an exchange or lived for a while."""
        if self._untried.pop(socket, None) is not None:
            self._failures = 0

    def _open_sockets(self) -> list[DataSocket]:
        return [socket for socket in self._data if socket.is_open]

    def _fill(self) -> None:
        """Dial missing data sockets, unless a retry is due later; or close spares that are too many."""
        if self._is_leaving or self._welcome is None:
            return
        missing = self._want - len(self._open_sockets()) - len(self._dialing)
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
        surplus = len(open_sockets) - self._want
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
            self._data.add(socket)
            if socket.is_open:
                self._untried[socket] = self._loop.time()
            return True
        self._fill_later()
        return False
