"""The simulated engine as programs use it: `async with SimulatedEngine(SimOptions(...)) as engine`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from hive.sim.connection import SimConnection, SimHandler
from hive.sim.control import ControlDesk
from hive.sim.faults import make_fault
from hive.sim.host import Host
from hive.sim.ledger import SimState
from hive.sim.options import SimOptions

BACKLOG = 2048


class SimulatedEngine:
    """One engine on a port of its own, with a second port for its control. Use it in one event loop."""

    def __init__(self, options: SimOptions | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.options = options or SimOptions()
        self.port = port
        """The port it listens on. With 0 the system chooses a port at the start."""
        self.control_port = 0
        self._address = host
        self._host = Host(self.options)
        self._host.on_refuse = self._refuse
        self._desk = ControlDesk(self._host)
        self._listener: asyncio.Server | None = None
        self._control: asyncio.Server | None = None
        self._relisten: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        faults = ", ".join(self._host.book.faults) or "no fault"
        return f"<SimulatedEngine {self.url} {self.options.kind}, {faults}>"

    @property
    def url(self) -> str:
        """Return the engine's URL."""
        return _url(self._address, self.port)

    @property
    def control_url(self) -> str:
        """Return the URL of the control port, which answers whatever fault is set."""
        return _url(self._address, self.control_port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        listener = _bind(self._address, self.port)
        try:
            control = _bind(self._address, 0)
        except OSError:
            listener.close()
            raise
        self.port, self.control_port = listener.getsockname()[1], control.getsockname()[1]
        self._host.urls = (self.url, self.control_url)
        self._listener = await self._serve(listener, self._host)
        self._control = await self._serve(control, self._desk)

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._relisten:
            with contextlib.suppress(asyncio.CancelledError):
                await self._relisten
        for server in (self._listener, self._control):
            if server:
                server.close()
        connections = (*self._host.connections, *self._desk.connections)
        self._host.stop()
        for connection in connections:
            connection.close()
            await connection.wait_closed()

    def set_fault(
        self,
        kind: str,
        argument: str | float | None = None,
        *,
        count: int | None = None,
        path: str | None = None,
    ) -> None:
        """Set a fault for all requests, for the next `count`, or for those with `path`. Raises OptionError."""
        now = asyncio.get_running_loop().time()
        self._host.set_fault(make_fault(kind, argument, count=count, path=path, now=now))

    def clear_faults(self) -> None:
        """Remove all faults. Requests that a fault holds go on."""
        self._host.clear_faults()

    def state(self) -> SimState:
        """Return counters and the last requests, as a copy."""
        return self._host.state()

    async def until(self, is_true: Callable[[SimState], bool]) -> SimState:
        """Return the first state for which the condition holds. Tests use it instead of a sleep."""
        await self._host.pulse.until(lambda: is_true(self.state()))
        return self.state()

    async def _serve(self, sock: socket.socket, handler: SimHandler) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: SimConnection(handler), sock=sock, backlog=BACKLOG)

    def _refuse(self, is_refusing: bool) -> None:
        if is_refusing:
            if self._listener:
                self._listener.close()
                self._listener = None
            return
        if self._listener is None:
            self._relisten = asyncio.get_running_loop().create_task(self._listen_again(_bind(self._address, self.port)))

    async def _listen_again(self, sock: socket.socket) -> None:
        self._listener = await self._serve(sock, self._host)


def _bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Clients can connect before the event loop accepts."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    sock.setblocking(False)
    return sock


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
