"""One session with the hub: its control socket, and as many data sockets as the hub wants.

A session begins with a dial and ends with its control socket. Its data sockets and their exchanges end with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hive.node.data_sockets import DataSockets
from hive.node.dialing import Dialer
from hive.node.hub_socket import HubControlSocket, Turn
from hive.node.local_engines import Engines
from hive.node.machine_watch import MachineWatch
from hive.wire.link_control import HeartbeatDue, NodeEvent
from hive.wire.link_messages import Bye, Hello, Links, Refresh, ReportedEngine, Welcome
from hive.wire.link_rules import CLOSE_SECONDS, CloseCode
from hive.wire.link_socket import Closed

TICK_SECONDS = 0.5

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
        self._control: HubControlSocket | None = None
        self._welcome: Welcome | None = None
        self._closed: asyncio.Future[Closed] = self._loop.create_future()
        self.sockets = DataSockets(dialer, self._turn, engines, self._end)

    def __repr__(self) -> str:
        node = self._welcome.node if self._welcome else "greeting"
        return f"<Session {node} {len(self.sockets)}/{self.sockets.want}>"

    async def run(self, hello: Callable[[], Hello]) -> Closed:
        """Dial, then serve until the control socket ends. Return how it ended. Raises `DialError` or `Refused`."""
        control = HubControlSocket(self._dialer.begin(), self._turn, hello(), self)
        self._engines.on_change = control.report_soon
        ticker: asyncio.TimerHandle | None = None

        def tick() -> None:
            nonlocal ticker
            ticker = self._loop.call_later(TICK_SECONDS, tick)
            now = self._loop.time()
            control.tick(now)
            self.sockets.tick(now)

        try:
            self._control = control
            await self._dialer.open(control)
            tick()
            return await self._closed
        finally:
            if ticker is not None:
                ticker.cancel()
            self._engines.on_change = lambda: None
            self.sockets.drop()
            control.write_now()
            control.abort()

    async def leave(self, timeout: float) -> None:
        """Ask for no more exchanges, give the running ones `timeout` seconds to end, then close everything."""
        control = self._control
        if self._welcome is None or control is None or control.link is None:
            return
        self.sockets.leave()
        control.link.say_draining()
        control.flush()
        try:
            async with asyncio.timeout(timeout):
                await self.sockets.until_idle(self._closed.done)
        except TimeoutError:
            _log.warning("%d exchanges have not ended within %g s", self.sockets.running, timeout)
        control.close(CloseCode.GOING_AWAY, "the agent stops")
        for socket in self.sockets:
            socket.close(CloseCode.GOING_AWAY, "the agent stops")
        await asyncio.wait([control.lost, *(socket.lost for socket in self.sockets)], timeout=CLOSE_SECONDS)

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
            self._on_welcome(event)
            self.sockets.begin(event)
        elif isinstance(event, Links):
            self.sockets.keep(event.want)
        elif isinstance(event, Refresh):
            self._engines.refresh(event.engine)
        elif isinstance(event, Bye):
            self.sockets.leave()
            _log.info("the hub says bye: %s", event.reason)

    def _end(self, closed: Closed) -> None:
        self.sockets.leave()
        if not self._closed.done():
            self._closed.set_result(closed)

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return all engines as they are now."""
        return self._engines.report()
