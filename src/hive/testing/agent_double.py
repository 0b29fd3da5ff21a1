"""A double of the agent, in a thread of its own. It joins a hub and relays to engines; a test can make it misbehave."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from hive.testing.agent_sockets import NodeSocket, Serving, dial
from hive.testing.engine_looks import EngineLooks
from hive.wire.link_control import HeartbeatDue, NodeControl
from hive.wire.link_dial import Refused
from hive.wire.link_messages import (
    Bye,
    EngineBeat,
    Gpu,
    Hello,
    Links,
    MachineState,
    Refresh,
    Welcome,
)
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import Closed, LinkSocket

_CALL_TIMEOUT = 10.0
_LOOK_INTERVAL = 1.0
_TICK = 0.1
_REDIAL = 0.1
_SOON = 0.1
"""Seconds until the double looks at its engines again when the hub asks for that: as soon as the hub's own probes."""

T = TypeVar("T")

MACHINE = MachineState(
    0.25, 64_000_000_000, 16_000_000_000, 500_000_000_000, (Gpu("Test GPU", 24_000_000_000, 0, 0.5),)
)


class AgentDouble:
    """One node. It belongs to one event loop; from other threads use `ThreadedAgent`."""

    def __init__(
        self,
        hub: str,
        key: str,
        engines: Mapping[str, str],
        *,
        slots: int | None = None,
        labels: Mapping[str, str] | None = None,
        credential: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Make an agent. `engines` holds URLs by engine id."""
        self._hub = hub
        self._key = key
        self._context = context
        self._labels = dict(labels or {})
        self._credential = f"Authorization: Bearer {credential}\r\n".encode() if credential else b""
        self.instance = secrets.token_hex(8)
        self.engines = EngineLooks(engines, slots, self._credential)
        self.beats = True
        """Does the double send heartbeats?"""
        self.is_deaf = False
        """Does the double accept exchanges and then do nothing with them?"""
        self.redials = True
        self.closes: list[tuple[int, str]] = []
        """How its control sockets ended: the close code or the status of a refusal, and the reason."""
        self.byes: list[str] = []
        """The reasons in the `bye` messages of hubs."""
        self.want = 0
        self.control: NodeSocket | None = None
        self.data: set[Serving] = set()
        self._session = ""
        self._may_dial = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialing = 0

    def start(self) -> None:
        """Join the hub, and join again whenever the connection is lost."""
        for coroutine in (self._run(), self._tick(), self._look_for_ever()):
            self._spawn(coroutine)

    async def stop(self) -> None:
        """Leave the hub in good order."""
        self.redials = False
        sockets = [self.control, *(serving.socket for serving in self.data)]
        for socket in sockets:
            if socket is not None and socket.machine is not None:
                socket.machine.close(CloseCode.GOING_AWAY, "the agent stops")
                socket.flush()
        open_ones = [socket.lost for socket in sockets if socket is not None]
        if open_ones:
            await asyncio.wait(open_ones, timeout=1)
        self.kill()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.engines.close()
        await asyncio.sleep(0)

    def kill(self) -> None:
        """Break every connection at once, as when the machine dies. Join again afterwards if `redials` is set."""
        for socket in [self.control, *(serving.socket for serving in self.data)]:
            if socket is not None:
                socket.abort()

    def drain(self) -> None:
        """Ask the hub to send no new work."""
        if self.control is not None and isinstance(self.control.machine, NodeControl):
            self.control.machine.say_draining()
            self.control.flush()

    async def report(self, *, look: bool = True) -> None:
        """Look at the engines and send a report."""
        if look:
            await self.engines.look()
        if self.control is not None and isinstance(self.control.machine, NodeControl) and self._session:
            self.control.machine.report(self.engines.report())
            self.control.flush()

    async def _refresh(self) -> None:
        await asyncio.sleep(_SOON)
        await self.report()

    def _spawn(self, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        await self.engines.look()
        while self.redials:
            try:
                self.control = await dial(self._hub, self._key, self._make_control, self._take, self._context)
                await self.control.lost
            except Refused as refused:
                self.closes.append((refused.status, str(refused)))
            except OSError as error:
                self.closes.append((0, str(error)))
            self.control = None
            self._session = ""
            for serving in list(self.data):
                serving.socket.abort()
            await asyncio.sleep(_REDIAL)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for socket in [self.control, *(serving.socket for serving in self.data)]:
                if socket is not None:
                    socket.tick()
            self._fill()

    def _make_control(self, socket: LinkSocket, now: float) -> NodeControl:
        hello = Hello(self.instance, "hive.testing 1", "Testing 1.0", self._labels, self.engines.report(), MACHINE)
        return NodeControl(socket, hello, now)

    def _take(self, event: object) -> None:
        if isinstance(event, Welcome):
            self._session = event.session
            self._may_dial = True
            self.want = event.links
            self._fill()
        elif isinstance(event, Links):
            self.want = event.want
            self._fill()
        elif isinstance(event, Refresh):
            self._spawn(self._refresh())
        elif isinstance(event, Bye):
            self._may_dial = False
            self.byes.append(event.reason)
        elif isinstance(event, HeartbeatDue):
            self._beat()
        elif isinstance(event, Closed):
            self.closes.append((event.code, event.reason))

    def _beat(self) -> None:
        assert self.control is not None
        if self.beats and isinstance(self.control.machine, NodeControl):
            alive = {each.id: EngineBeat(each.is_alive and not each.is_silent) for each in self.engines.report()}
            self.control.machine.heartbeat(MACHINE, alive)

    def _fill(self) -> None:
        """Dial the data sockets that are missing, and close spare sockets that are too many."""
        if not self._session or not self._may_dial:
            return
        for _ in range(self.want - len(self.data) - self._dialing):
            self._dialing += 1
            self._spawn(self._dial_data(self._session))
        for serving in list(self.data)[self.want :]:
            if not serving.machine.exchange or serving.machine.state.value == "spare":
                serving.machine.close(CloseCode.NORMAL, "a spare too many")
                serving.socket.flush()

    async def _dial_data(self, session: str) -> None:
        serving = Serving(session, self.engines.urls, self._credential)
        try:
            serving.socket = await dial(self._hub, self._key, serving.make, serving.take, self._context)
        except (Refused, OSError):
            return
        finally:
            self._dialing -= 1
        serving.is_deaf = self.is_deaf
        self.data.add(serving)
        serving.socket.flush()
        await serving.socket.lost
        self.data.discard(serving)

    def make_deaf(self) -> None:
        """Accept exchanges from now on, but do nothing with them."""
        self.is_deaf = True
        for serving in self.data:
            serving.is_deaf = True

    # --- the engines ---

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            before = self.engines.report()
            await self.engines.look()
            if self.engines.report() != before:
                await self.report(look=False)


class ThreadedAgent:
    """A running agent. Its methods may be called from any thread."""

    def __init__(self, agent: AgentDouble, loop: asyncio.AbstractEventLoop) -> None:
        self._agent = agent
        self._loop = loop

    def call(self, function: Callable[[AgentDouble], T]) -> T:
        """Call a function with the agent inside its event loop; return the function's result."""

        async def call() -> T:
            return function(self._agent)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_CALL_TIMEOUT)

    def report(self) -> None:
        """Look at the engines now and send a report to the hub."""
        asyncio.run_coroutine_threadsafe(self._agent.report(), self._loop).result(_CALL_TIMEOUT)

    @property
    def closes(self) -> list[tuple[int, str]]:
        """Return how its control sockets have ended so far."""
        return self.call(lambda agent: list(agent.closes))


@contextmanager
def run_agent(hub: str, key: str, engines: Mapping[str, str], **more: object) -> Iterator[ThreadedAgent]:
    """Run an agent while the block runs. `more` holds further arguments of `AgentDouble`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="agent", daemon=True)
    thread.start()

    async def start() -> AgentDouble:
        agent = AgentDouble(hub, key, engines, **more)  # type: ignore[arg-type]
        agent.start()
        return agent

    try:
        agent = asyncio.run_coroutine_threadsafe(start(), loop).result(_CALL_TIMEOUT)
        try:
            yield ThreadedAgent(agent, loop)
        finally:
            asyncio.run_coroutine_threadsafe(agent.stop(), loop).result(_CALL_TIMEOUT)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
