"""One socket to the hub, from its dial to its end: it connects a transport with a machine of `hive.wire`.

The two kinds of socket act on the messages: `HubControlSocket` here, `DataSocket` in `data_socket`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar, Generic, Protocol, TypeVar, cast

from hive.net.outbox import set_nodelay
from hive.wire.link_control import ControlState, NodeControl, NodeEvent
from hive.wire.link_dial import Dial, Refused
from hive.wire.link_machine import LinkMachine
from hive.wire.link_messages import Hello, ReportedEngine
from hive.wire.link_rules import MAX_CONTROL_BYTES, CloseCode
from hive.wire.link_socket import Closed, LinkSocket

_log = logging.getLogger(__name__)

E = TypeVar("E")


class Turn:
    """The sockets that will write at the end of this turn of the event loop.

    So the last bytes of an answer and its `ended` leave in one write, and the hub wakes once.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: list[_Writing] = []

    def add(self, socket: _Writing) -> None:
        """Let a socket write at the end of the turn."""
        if not self._sockets:
            self._loop.call_soon(self._write)
        self._sockets.append(socket)

    def _write(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            try:
                socket.write_now()
            except Exception:
                _log.exception("writing to %r", socket)
                socket.abort()


class _Writing(Protocol):
    def write_now(self) -> None:
        """Write what the socket has to write."""

    def abort(self) -> None:
        """Drop the connection at once."""


class HubSocket(asyncio.Protocol, Generic[E]):
    """A connection that becomes a WebSocket. `opened` is done when it is one, or fails with `Refused`."""

    max_unsent_bytes: ClassVar[int]
    """The most bytes that may wait for a hub that does not read."""

    def __init__(self, dial: Dial, turn: Turn) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._turn = turn
        self._is_in_turn = False
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._waiting_bytes = 0
        """How many bytes waited to be written at the last tick."""
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection has ended."""

    @property
    def link(self) -> LinkMachine[E] | None:
        """The machine, once the socket is open."""
        raise NotImplementedError

    def begin(self, socket: LinkSocket, now: float) -> LinkMachine[E]:
        """Make the machine. It is called when the socket has opened."""
        raise NotImplementedError

    def on_event(self, event: E | Closed) -> None:
        """Act on a message, or on the end of the socket."""
        raise NotImplementedError

    def settle(self) -> None:
        """Write the answers to the messages of one read."""
        self.flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_nodelay(transport)
        self._transport.write(self._dial.request)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        link = self.link
        if link is None:
            link = self._open(data, now)
            if link is None:
                return
            data = b""
        for event in link.receive(data, now):
            self.on_event(event)
        self.settle()

    def _open(self, data: bytes, now: float) -> LinkMachine[E] | None:
        try:
            socket = self._dial.receive(data, now)
        except Refused as refused:
            self._fail(refused)
            return None
        if socket is None:
            return None
        link = self.begin(socket, now)
        if not self.opened.done():
            self.opened.set_result(None)
        return link

    def _fail(self, refused: Refused) -> None:
        if not self.opened.done():
            self.opened.set_exception(refused)
        self.abort()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(None)

    def _end(self) -> None:
        link = self.link
        if link is not None:
            for event in link.receive_eof(self._loop.time()):
                self.on_event(event)
            return
        try:
            self._dial.receive_eof()
        except Refused as refused:
            if not self.opened.done():
                self.opened.set_exception(refused)

    def flush(self) -> None:
        """Write the machine's output at the end of this turn."""
        if not self._is_in_turn:
            self._is_in_turn = True
            self._turn.add(self)

    def write_now(self) -> None:
        """Write the machine's output now. Close the connection if the machine has finished."""
        self._is_in_turn = False
        link, transport = self.link, self._transport
        if link is None or transport is None or transport.is_closing():
            return
        output = link.socket.take_output()
        if output:
            transport.write(output)
        if link.socket.closed is not None and link.socket.is_finished:
            transport.close()

    def tick(self, now: float) -> None:
        """Pass the time to the machine; called twice a second."""
        link, transport = self.link, self._transport
        if link is None or transport is None:
            return
        waiting = transport.get_write_buffer_size()
        is_excused = self._is_paused or waiting < self._waiting_bytes
        self._waiting_bytes = waiting
        for event in link.tick(now, is_excused=is_excused):
            self.on_event(event)
        if waiting > self.max_unsent_bytes:
            _log.warning("the hub does not read: %d bytes wait for it in %r, which is dropped", waiting, self)
            transport.abort()
        elif waiting and link.socket.is_finished:
            transport.abort()  # the hub reads nothing any more, not even the reason
        else:
            self.flush()

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        if self._transport is not None and not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue to read."""
        if self._transport is not None and self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Send the code and the reason, and close when the hub has answered. No event follows."""
        link = self.link
        if link is None:
            self.abort()
            return
        self.resume_reading()
        link.close(code, reason)
        self.flush()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        if not self.opened.done():
            self.opened.cancel()


class SessionOwner(Protocol):
    """The owner of a control socket."""

    def on_control(self, event: NodeEvent | Closed) -> None:
        """Act on a message of the hub."""

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return all engines as they are now."""


class HubControlSocket(HubSocket[NodeEvent]):
    """The control socket. It says hello, then passes every event to its owner.

    A report is made when it can be sent. While an older one waits for a slow hub, changes are collected for the next
    one.
    """

    max_unsent_bytes = MAX_CONTROL_BYTES

    def __init__(self, dial: Dial, turn: Turn, hello: Hello, owner: SessionOwner) -> None:
        super().__init__(dial, turn)
        self._hello = hello
        self._owner = owner
        self._link: NodeControl | None = None
        self._has_news = False
        """Has something about the engines changed since the last report, or since hello?"""

    def __repr__(self) -> str:
        return f"<ControlSocket {self._link or 'dialing'}>"

    @property
    def link(self) -> NodeControl | None:
        return self._link

    def begin(self, socket: LinkSocket, now: float) -> NodeControl:
        self._link = NodeControl(socket, self._hello, now)
        return self._link

    def on_event(self, event: NodeEvent | Closed) -> None:
        self._owner.on_control(event)

    def report_soon(self) -> None:
        """Send a report of all engines as soon as nothing else waits to be written."""
        self._has_news = True
        self.flush()

    def write_now(self) -> None:
        link, transport = self._link, self._transport
        is_clear = transport is not None and transport.get_write_buffer_size() == 0
        if self._has_news and is_clear and link is not None and link.state is ControlState.RUNNING:
            self._has_news = False
            link.report(self._owner.report())
        super().write_now()
