"""The sockets of the agent's double: those it dials to a hub, and those it connects to an engine for an exchange."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from hive.wire import link_rules as link
from hive.wire.link_data import NodeData, NodeState
from hive.wire.link_dial import Dial, Refused
from hive.wire.link_machine import LinkMachine
from hive.wire.link_messages import EndCode, EndError, Open
from hive.wire.link_socket import Closed, LinkSocket
from hive.wire.responses import GarbledAnswer, ResponseReader

_MAX_HEAD_BYTES = 1 << 20


class NodeSocket(asyncio.Protocol):
    """One connection to a hub. It speaks HTTP until it is open; then a machine (`hive.wire`) reads and writes it."""

    def __init__(
        self, dial: Dial, make: Callable[[LinkSocket, float], LinkMachine[Any]], on_event: Callable[[Any], None]
    ) -> None:
        self._dial = dial
        self._make = make
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self.machine: LinkMachine[Any] | None = None
        self.transport: asyncio.Transport | None = None
        self.on_pause: Callable[[bool], None] = lambda is_paused: None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is open; fails with `Refused`."""
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._dial.request)

    def data_received(self, data: bytes) -> None:
        if self.machine is None:
            try:
                socket = self._dial.receive(data, self._loop.time())
            except Refused as refused:
                self._refuse(refused)
                return
            if socket is None:
                return
            self.machine = self._make(socket, self._loop.time())
            self.opened.set_result(None)
            data = b""
        self.handle(self.machine.receive(data, self._loop.time()))

    def eof_received(self) -> bool:
        if self.machine is not None:
            self.handle(self.machine.receive_eof(self._loop.time()))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.machine is not None:
            self.handle(self.machine.receive_eof(self._loop.time()))
        elif not self.opened.done():
            self._refuse(Refused(0, "the connection ended before an answer came"))
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        self.on_pause(True)

    def resume_writing(self) -> None:
        self.on_pause(False)

    def handle(self, events: Sequence[Any]) -> None:
        """Handle the machine's events, then send what the machine has to send."""
        for event in events:
            self._on_event(event)
        self.flush()

    def flush(self) -> None:
        """Send what the machine has to send."""
        if self.machine is None or self.transport is None or self.transport.is_closing():
            return
        data = self.machine.socket.take_output()
        if data:
            self.transport.write(data)
        if self.machine.socket.is_finished:
            self.transport.close()

    def tick(self) -> None:
        """Tell the machine the time."""
        if self.machine is not None:
            self.handle(self.machine.tick(self._loop.time()))

    def abort(self) -> None:
        """Drop the connection without a close message."""
        if self.transport is not None:
            self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        if not self.opened.done():
            self.opened.set_exception(refused)
        self.abort()


async def dial(
    hub: str,
    key: str,
    make: Callable[[LinkSocket, float], LinkMachine[Any]],
    on_event: Callable[[Any], None],
    context: ssl.SSLContext | None = None,
) -> NodeSocket:
    """Return an open socket to a hub. Raises `Refused` or `OSError`."""
    parts = urlsplit(hub)
    loop = asyncio.get_running_loop()
    secure = (context or ssl.create_default_context()) if parts.scheme == "https" else None
    _, socket = await loop.create_connection(
        lambda: NodeSocket(Dial(hub, key, "hive.testing"), make, on_event),
        parts.hostname or "", parts.port or (443 if secure else 80), ssl=secure,
    )  # fmt: skip
    await socket.opened
    return socket


class Serving:
    """A data socket. Each exchange has a connection of its own to its engine."""

    def __init__(self, session: str, urls: dict[str, str], credential: bytes) -> None:
        self._session = session
        self._urls = urls
        self._credential = credential
        self._loop = asyncio.get_running_loop()
        self._engine: DoubleEngineSocket | None = None
        self._accepting: asyncio.TimerHandle | None = None
        self.is_deaf = False
        """Does the socket accept exchanges and then do nothing with them?"""
        self.socket: NodeSocket
        self.reader = ResponseReader(_MAX_HEAD_BYTES)

    @property
    def machine(self) -> NodeData:
        """Return the machine, once the socket is open."""
        machine = self.socket.machine
        assert isinstance(machine, NodeData)
        return machine

    def make(self, socket: LinkSocket, now: float) -> NodeData:
        """Return the machine for the socket that has just opened."""
        return NodeData(socket, self._session, now)

    def take(self, event: object) -> None:
        """Handle an event of the machine."""
        if self.is_deaf:
            return
        if isinstance(event, Open):
            self._begin(event)
        elif isinstance(event, bytes):
            if self._engine is not None:
                self._engine.write(event)
        else:  # a cancel, or the socket has ended
            self._drop()
            if isinstance(event, Closed):
                self.socket.flush()

    def _begin(self, opened: Open) -> None:
        url = self._urls.get(opened.engine)
        if url is None:
            self.machine.end(opened.id, EndError(EndCode.ENGINE_UNKNOWN, f"no engine {opened.engine}"))
            return
        self._accepting = self._loop.call_later(link.ACCEPT_HOLD_SECONDS, self._accept, opened.id)
        host = b"Host: %b\r\n" % urlsplit(url).netloc.encode()
        self._engine = engine = DoubleEngineSocket(self, opened.id, host + self._credential)
        self.socket.on_pause = engine.pause
        engine.connecting = self._loop.create_task(engine.connect(url))

    def _accept(self, exchange: str) -> None:
        self.machine.accept(exchange)
        self.socket.flush()

    def answer(self, engine: DoubleEngineSocket, data: bytes) -> None:
        """Pass on bytes of an engine's answer."""
        if engine is self._engine:
            self.machine.answer(engine.exchange, data)
            self.socket.flush()

    def end(self, engine: DoubleEngineSocket, error: EndError | None) -> None:
        """End the exchange that uses this connection to an engine."""
        if engine is self._engine and self.machine.state is not NodeState.CLOSED:
            self.machine.end(engine.exchange, error)
            self.socket.flush()
            self._drop()

    def _drop(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        engine, self._engine = self._engine, None
        self.socket.on_pause = lambda is_paused: None
        if engine is not None:
            engine.abort()


class DoubleEngineSocket(asyncio.Protocol):
    """The connection to an engine for one exchange."""

    def __init__(self, owner: Serving, exchange: str, lines: bytes) -> None:
        """Make the connection. `lines` replace the Host line of the request, which is its second line."""
        self.exchange = exchange
        self.connecting: asyncio.Task[None]
        self._owner = owner
        self._lines = lines
        if not owner.reader.is_complete or not owner.reader.can_be_reused:
            owner.reader = ResponseReader(_MAX_HEAD_BYTES)
        self._reader = owner.reader
        self._reader.begin()
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []
        self._is_over = False

    async def connect(self, url: str) -> None:
        """Connect and send the bytes that waited. If the engine cannot be reached, end the exchange."""
        parts = urlsplit(url)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, parts.hostname or "", parts.port or 80)
        except OSError as error:
            self._end(EndError(EndCode.ENGINE_UNREACHABLE, error.strerror or "no connection"))

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if self._lines:
            line, _, rest = data.partition(b"\r\n")
            data, self._lines = line + b"\r\n" + self._lines + rest.partition(b"\r\n")[2], b""
        if self._transport is None:
            self._held.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def pause(self, is_paused: bool) -> None:
        """Stop or resume reading from the engine, as fast as the hub takes the answer."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if is_paused else self._transport.resume_reading)()

    def abort(self) -> None:
        """Drop the connection, so that the engine stops."""
        self._is_over = True
        self.connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._is_over:
            self._transport.abort()
            return
        for data in self._held:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except GarbledAnswer as garbled:
            self._end(EndError(EndCode.ENGINE_GARBLED, str(garbled)))
            return
        self._owner.answer(self, data)
        if self._reader.is_complete:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._reader.end_of_connection()
        except GarbledAnswer:
            self._end(EndError(EndCode.ENGINE_BROKE_OFF, "the engine broke the connection off"))
        else:
            self._end(None if exc is None else EndError(EndCode.ENGINE_BROKE_OFF, "the engine reset the connection"))

    def _end(self, error: EndError | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._owner.end(self, error)
