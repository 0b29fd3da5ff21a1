"""A hub that does what a test says, built on the machines of `hive.wire`; and an agent beside it, in the same loop."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from hive.config import Secret
from hive.errors import Fault
from hive.node.agent import Agent
from hive.node.agent_options import EngineAddress, NodeOptions, read_engine
from hive.node.machine_watch import NoGpus
from hive.wire.link_accept import accept_upgrade
from hive.wire.link_control import HubArrival, HubControl
from hive.wire.link_data import HubData
from hive.wire.link_messages import Accepted, Draining, Ended, Heartbeat, Hello, JoinData, Report
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side
from hive.wire.requests import RequestReader

KEY = "hk_worker"
SESSION = "session-of-a-scripted-hub"
PATIENCE = 10.0

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run a test in a loop of its own, for at most 40 seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(40):
            return await main

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(bounded())


async def until(is_true: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(timeout):
        while not is_true():  # noqa: ASYNC110 - what is waited for knows of no event
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    """What came back for one exchange."""

    raw: bytearray = field(default_factory=bytearray)
    accepted: bool = False
    ended: Ended | None = None
    pieces: list[bytes] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        return bytes(self.raw).partition(b"\r\n\r\n")[2]

    @property
    def error(self) -> str | None:
        assert self.ended is not None
        return self.ended.error.code if self.ended.error else None


class End(asyncio.Protocol):
    """The hub's end of one connection of the node."""

    def __init__(self, hub: ScriptedHub) -> None:
        self.hub = hub
        self.loop = asyncio.get_running_loop()
        self.reader: RequestReader | None = RequestReader(32768)
        self.machine: HubArrival | HubControl | HubData | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.answer = Answer()
        self.closed: Closed | None = None
        self.is_lost = False
        self.writes: list[bytes] = []
        """What was read, read by read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.hub.ends.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.machine is not None:
            self.take(self.machine.receive_eof(self.loop.time()))

    def data_received(self, data: bytes) -> None:
        self.writes.append(data)
        if self.reader is not None:
            self.greet(data)
            return
        assert self.machine is not None
        self.take(self.machine.receive(data, self.loop.time()))
        self.flush()

    def greet(self, data: bytes) -> None:
        assert self.reader is not None
        self.reader.feed(data)
        head = self.reader.head
        if head is None:
            return
        self.hub.heads.append(head)
        refusal = self.hub.refusals.pop(0) if self.hub.refusals else self.hub.refusal
        if refusal is not None:
            self.transport.write(refusal)
            self.transport.close()
            return
        try:
            upgrade = accept_upgrade(head)
        except Fault as fault:
            self.transport.write(refuse(fault.kind.status, fault.message))
            self.transport.close()
            return
        self.reader = None
        now = self.loop.time()
        self.machine = HubArrival(LinkSocket(Side.HUB, now), now)
        self.transport.write(upgrade.head)

    def take(self, events: list[Any]) -> None:
        for event in events:
            match event:
                case Hello():
                    self.on_hello(event)
                case JoinData():
                    self.on_join(event)
                case Report():
                    self.hub.reports.append(event)
                case Heartbeat():
                    self.hub.heartbeats.append(event)
                case Draining():
                    self.hub.is_draining = True
                case Accepted():
                    self.answer.accepted = True
                case Ended():
                    self.answer.ended = event
                case Closed():
                    self.closed = event
                case bytes():
                    self.answer.raw += event
                    self.answer.pieces.append(event)

    def on_hello(self, hello: Hello) -> None:
        assert self.machine is not None
        now = self.loop.time()
        control = self.machine = HubControl(self.machine.socket, now)
        self.hub.hellos.append(hello)
        self.hub.control_end = self
        if self.hub.turn_away is not None:
            control.close(*self.hub.turn_away)
        else:
            control.welcome("desk", SESSION, self.hub.links, now)

    def on_join(self, join: JoinData) -> None:
        assert self.machine is not None
        assert join.session == SESSION
        self.machine = HubData(self.machine.socket, self.loop.time())
        if self.hub.drops_data:
            self.transport.abort()

    @property
    def control(self) -> HubControl:
        assert isinstance(self.machine, HubControl)
        return self.machine

    @property
    def data(self) -> HubData:
        assert isinstance(self.machine, HubData)
        return self.machine

    @property
    def is_spare(self) -> bool:
        return isinstance(self.machine, HubData) and self.machine.state.value == "spare" and not self.is_lost

    def flush(self) -> None:
        if self.machine is None:
            return
        output = self.machine.socket.take_output()
        if output and not self.transport.is_closing():
            self.transport.write(output)
        if self.machine.socket.is_finished:
            self.transport.close()

    def open(self, request: bytes, engine: str, exchange: str | None = None) -> Answer:
        """Begin an exchange and send bytes of its request."""
        self.answer = Answer()
        self.data.open(exchange or f"r{next(self.hub.numbers)}", engine, self.loop.time())
        if request:
            self.data.send(request)
        self.flush()
        return self.answer

    def send(self, data: bytes) -> None:
        self.data.send(data)
        self.flush()

    def cancel(self) -> None:
        self.data.cancel(self.loop.time())
        self.flush()

    async def ask(self, request: bytes, engine: str) -> Answer:
        """Carry out a whole exchange."""
        answer = self.open(request, engine)
        await until(lambda: answer.ended or self.is_lost)
        return answer


def refuse(status: int, message: str, *more: str) -> bytes:
    """Return a refusal in the hub's form."""
    body = b'{"error":{"code":"x","message":"%b"}}' % message.encode()
    head = f"HTTP/1.1 {status} Refused\r\nX-Hive-Request-Id: 1\r\nContent-Length: {len(body)}\r\n"
    head += "Connection: close\r\n"
    return (head + "".join(f"{each}\r\n" for each in more) + "\r\n").encode() + body


class ScriptedHub:
    """Listens on a port of its own; what nodes say is kept."""

    def __init__(self, links: int = 3, tls: ssl.SSLContext | None = None) -> None:
        self.links = links
        self.tls = tls
        self.refusal: bytes | None = None
        self.refusals: list[bytes | None] = []
        """For the next dials; None lets one in."""
        self.turn_away: tuple[CloseCode, str] | None = None
        self.drops_data = False
        """Are data sockets accepted, and closed at once?"""
        self.ends: list[End] = []
        self.heads: list[Any] = []
        self.hellos: list[Hello] = []
        self.reports: list[Report] = []
        self.heartbeats: list[Heartbeat] = []
        self.is_draining = False
        self.control_end: End = None  # type: ignore[assignment]
        self.numbers = itertools.count(1)
        self.port = 0
        self.is_ticking = True
        self._ticker: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._ticker is not None
        self._ticker.cancel()
        await asyncio.wait([self._ticker])
        await self.vanish()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for end in self.ends:
                if end.machine is not None and not end.is_lost and self.is_ticking:
                    end.take(end.machine.tick(end.loop.time()))
                    end.flush()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: End(self), "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def vanish(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for end in self.ends:
            end.transport.abort()
        await until(lambda: all(end.is_lost for end in self.ends))

    @property
    def control(self) -> HubControl:
        return self.control_end.control

    def spares(self) -> list[End]:
        return [end for end in self.ends if end.is_spare]

    def data_ends(self) -> list[End]:
        return [end for end in self.ends if isinstance(end.machine, HubData) and not end.is_lost]

    async def joined(self, links: int | None = None) -> None:
        """Wait until the node has opened all its data sockets."""
        await until(lambda: len(self.spares()) >= (self.links if links is None else links))

    async def spare(self) -> End:
        await until(self.spares)
        return self.spares()[0]

    async def ask(self, request: bytes, engine: str) -> Answer:
        return await (await self.spare()).ask(request, engine)


def post(path: str, body: bytes = b"{}", *lines: str) -> bytes:
    """Return a request as a hub sends it."""
    head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n"
    more = "".join(f"{line}\r\n" for line in lines)
    return f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode()


def options(hub: str, *engines: str | EngineAddress, **more: Any) -> NodeOptions:
    addresses = tuple(read_engine(each) if isinstance(each, str) else each for each in engines)
    return NodeOptions(hub=hub, key=Secret(more.pop("key", KEY)), engines=addresses, **more)


@asynccontextmanager
async def agent(given: NodeOptions, environ: dict[str, str] | None = None) -> AsyncIterator[Agent]:
    """Run an agent for the length of the block."""
    one = Agent(given, environ or {}, NoGpus)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def joined(*engines: str, links: int = 3, **more: Any) -> AsyncIterator[ScriptedHub]:
    """A hub that an agent over these engines has joined."""
    async with ScriptedHub(links) as hub, agent(options(hub.url, *engines, **more)):
        await hub.joined()
        yield hub


async def gathered(count: int, make: Callable[[], Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*(make() for _ in range(count))))


def break_dial(port: int, number: int = 1) -> None:
    """Let one of the next connections to a port fail with an unexpected error."""
    loop = asyncio.get_running_loop()
    connect, numbers = loop.create_connection, itertools.count(1)

    async def create_connection(factory: Any, host: str, its_port: int, **more: Any) -> Any:
        if its_port == port and next(numbers) == number:
            raise RuntimeError("nobody has foreseen this")
        return await connect(factory, host, its_port, **more)

    loop.create_connection = create_connection  # type: ignore[assignment, method-assign]
