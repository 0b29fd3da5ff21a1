"""Many light nodes in one program, for the reconnect scenario.

They speak the real protocol; their engines do not exist.
    agents.py PORT KEYS           (the hub's port on 127.0.0.1; a file with one worker key a line)
Each node dials, joins, keeps as many data sockets as the hub asks for, sends heartbeats, and dials again as `hive node`
does. Each time that all nodes are ready, one line says when, on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from pathlib import Path

from hive.testing.agent_sockets import NodeSocket, dial
from hive.wire.link_control import HeartbeatDue, NodeControl
from hive.wire.link_data import NodeData
from hive.wire.link_dial import Refused, redial_seconds
from hive.wire.link_messages import (
    EndCode,
    EndError,
    EngineBeat,
    Hello,
    Links,
    MachineState,
    Open,
    ReportedEngine,
    Welcome,
    json_object,
)
from hive.wire.link_socket import Closed, LinkSocket

TICK = 0.5
STEADY_SECONDS = 10.0
LISTING = json_object(b'{"models":[{"name":"far:latest","model":"far:latest","size":1000000000,"digest":"00"}]}')


class Fleet:
    """All nodes, and how many of them are ready."""

    def __init__(self, hub: str, keys: list[str]) -> None:
        self.hub = hub
        self._nodes = [Node(self, key) for key in keys]
        self._was_ready = False

    async def run(self) -> None:
        """Keep all nodes joined, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for node in self._nodes:
                tasks.create_task(node.run())
            while True:
                await asyncio.sleep(TICK)
                for node in self._nodes:
                    node.tick()

    def note(self) -> None:
        """Note that a node is ready, or not any more. If now all are ready, print a line."""
        is_ready = all(node.is_ready for node in self._nodes)
        if is_ready and not self._was_ready:
            print(time.monotonic(), flush=True)
        self._was_ready = is_ready


class Node:
    """One node: a control socket and its data sockets."""

    def __init__(self, fleet: Fleet, key: str) -> None:
        self.is_ready = False
        self._fleet = fleet
        self._key = key
        self._engine = ReportedEngine("e", "ollama", "0.33.0", slots=4, tags=LISTING, ps=LISTING)
        self._hello = Hello(secrets.token_hex(8), "bench", engines=(self._engine,))
        self._control: NodeSocket | None = None
        self._data: set[NodeSocket] = set()
        self._why = 0
        self._session = ""
        self._want = 0
        self._filling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Join the hub, and join again whenever the connection is lost."""
        attempt = 0
        while True:
            began = time.monotonic()
            retry_after = await self._join()
            self._leave()
            attempt = 1 if time.monotonic() - began > STEADY_SECONDS else attempt + 1
            delay = redial_seconds(attempt, self._why, random.random())
            await asyncio.sleep(max(delay, retry_after))

    def tick(self) -> None:
        """Pass the time to the sockets."""
        for socket in (self._control, *self._data):
            if socket is not None:
                socket.tick()

    async def _join(self) -> float:
        """Run one session; return for how many seconds the hub wants no dial."""
        self._why = 0
        try:
            self._control = await dial(self._fleet.hub, self._key, self._make_control, self._take)
            await self._control.lost
        except Refused as refused:
            self._why = refused.status
            return refused.retry_after or 0.0
        except OSError:
            pass
        return 0.0

    def _leave(self) -> None:
        self.is_ready, self._session, self._want = False, "", 0
        for socket in self._data:
            socket.abort()
        self._fleet.note()

    def _make_control(self, socket: LinkSocket, now: float) -> NodeControl:
        return NodeControl(socket, self._hello, now)

    def _make_data(self, socket: LinkSocket, now: float) -> NodeData:
        return NodeData(socket, self._session, now)

    def _take(self, event: object) -> None:
        if isinstance(event, Welcome):
            self._session, self._want = event.session, event.links
        elif isinstance(event, Links):
            self._want = event.want
        elif isinstance(event, HeartbeatDue) and self._control is not None:
            assert isinstance(self._control.machine, NodeControl)
            self._control.machine.heartbeat(MachineState(), {self._engine.id: EngineBeat(True)})
        elif isinstance(event, Closed):
            self._why = event.code
        if self._session and (self._filling is None or self._filling.done()):
            self._filling = asyncio.get_running_loop().create_task(self._fill())

    async def _fill(self) -> None:
        """Dial the data sockets that are missing, one after the other."""
        session = self._session
        while self._session == session and len(self._data) < self._want:
            try:
                await self._dial_data()
            except (Refused, OSError):
                return
        if self._session == session and not self.is_ready:
            self.is_ready = True
            self._fleet.note()

    async def _dial_data(self) -> None:
        opened: list[NodeSocket] = []

        def take(event: object) -> None:
            if isinstance(event, Open):  # no client asks for its model; if one does, the hub tries elsewhere
                machine = opened[0].machine
                assert isinstance(machine, NodeData)
                machine.end(event.id, EndError(EndCode.ENGINE_UNREACHABLE, "a benchmark's node has no engine"))

        socket = await dial(self._fleet.hub, self._key, self._make_data, take)
        opened.append(socket)
        self._data.add(socket)
        socket.lost.add_done_callback(lambda _: self._data.discard(socket))


if __name__ == "__main__":
    fleet = Fleet(f"http://127.0.0.1:{sys.argv[1]}", Path(sys.argv[2]).read_text().split())
    asyncio.run(fleet.run())
