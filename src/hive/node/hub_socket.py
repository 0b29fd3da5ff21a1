"""One socket to the hub, from its dial to its last byte: bytes between a transport and a machine of `hive.wire`.

What the messages mean is said by the two kinds: `ControlSocket` here, `DataSocket` in `data_socket`.
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
    """The sockets that have something to write at the end of this turn of the event loop.

    So an answer's last bytes and the `ended` behind them leave in one write, and the hub is woken once.
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
        """Write what there is to write."""

    def abort(self) -> None:
        """Give the connection up at once."""


class HubSocket(asyncio.Protocol, Generic[E]):
    """A connection that becomes a WebSocket; `opened` ends when it is one, or with `Refused`."""

    max_unsent_bytes: ClassVar[int]
    """What may wait for a hub that does not read."""

    def __init__(self, dial: Dial, turn: Turn) -> None:
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._turn = turn
        self._is_in_turn = False
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._waiting_bytes = 0
        """What waited to be written at the last tick."""
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection has ended."""

    @property
    def link(self) -> LinkMachine[E] | None:
        """The machine, once the socket is open."""
        raise NotImplementedError

    def begin(self, socket: LinkSocket, now: float) -> LinkMachine[E]:
        """Make the machine: the socket is open."""
        raise NotImplementedError

    def on_event(self, event: E | Closed) -> None:
        """Act upon a message, or the end."""
        raise NotImplementedError

    def settle(self) -> None:
        """Write what the messages of one read have brought about."""
        self.flush()

    # --- the transport's callbacks ---

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

    # --- out ---

    def flush(self) -> None:
        """Write what the machine wants to send, at the end of this turn."""
        if not self._is_in_turn:
            self._is_in_turn = True
            self._turn.add(self)

    def write_now(self) -> None:
        """Write it, and close the connection if the machine is done with it."""
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
        """Let time pass, twice a second."""
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
            transport.abort()  # it takes nothing more, not even the reason
        else:
            self.flush()

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`."""
        if self._transport is not None and not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._transport is not None and self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Say why, and close when the hub has answered; no event follows."""
        link = self.link
        if link is None:
            self.abort()
            return
        self.resume_reading()
        link.close(code, reason)
        self.flush()

    def abort(self) -> None:
        """Give the connection up at once."""
        if self._transport is not None:
            self._transport.abort()
        if not self.opened.done():
            self.opened.cancel()


class SessionOwner(Protocol):
    """Whose control socket it is."""

    def on_control(self, event: NodeEvent | Closed) -> None:
        """Act upon what the hub says."""

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return all engines as they are now."""


class HubControlSocket(HubSocket[NodeEvent]):
    """The control socket: says hello, then hands everything to its owner.

    A report is made when it can leave: what changes while an older one waits for a slow hub is in the next.
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
        """Report all engines as soon as nothing waits to be written."""
        self._has_news = True
        self.flush()

    def write_now(self) -> None:
        link, transport = self._link, self._transport
        is_clear = transport is not None and transport.get_write_buffer_size() == 0
        if self._has_news and is_clear and link is not None and link.state is ControlState.RUNNING:
            self._has_news = False
            link.report(self._owner.report())
        super().write_now()
