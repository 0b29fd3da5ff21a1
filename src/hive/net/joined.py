"""The sockets that nodes dial to the hub, once they are WebSockets. The first message says which kind a socket is.

`ArrivingSocket` waits for the first message. Then `ControlSocket` or `JoinedConnection` (`net.joined_data`) takes its
transport over. The machines of `wire.link*` judge the messages; this module gives them bytes and time. One sweep ticks
all sockets, a slice at a time. So a socket needs no timer, and ten thousand sockets do not delay other work.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from hive.auth.keys import Key
from hive.net.outbox import Outbox
from hive.wire.link_control import HubArrival, HubControl, HubEvent
from hive.wire.link_machine import LinkMachine
from hive.wire.link_messages import Hello, JoinData
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side

_log = logging.getLogger(__name__)

SWEEP_INTERVAL = 0.5
SLICES = 10
MAX_ARRIVING = 256
"""The most sockets of one key whose first message has not come."""
MAX_ARRIVING_BYTES = 32 << 20
"""The most bytes of first messages, of all arriving sockets together: each may be long, but not all at once."""
MAX_UNSENT_BYTES = 4 << 20
"""The most bytes that may wait for a node that does not read its control socket."""
CONTROL_BYTES_A_SWEEP = 1 << 20
MAX_CONTROL_BURST = 16 << 20
"""A control socket is read no faster than this. So a node that floods the hub delays only itself."""


class JoinedSocket(asyncio.Protocol):
    """The common part of all kinds: a transport, a machine, the output and the end."""

    __slots__ = ("_machine", "_sockets", "_transport", "_unsent_bytes", "key")

    def __init__(self, sockets: JoinedSockets, key: Key, machine: LinkMachine[Any]) -> None:
        self._sockets = sockets
        self._machine = machine
        self._transport: asyncio.Transport | None = None
        self._unsent_bytes = 0
        self.key = key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key.name} {self._machine!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sockets.add(self)

    def data_received(self, data: bytes) -> None:
        self._handle(self._machine.receive(data, self._sockets.now()))

    def eof_received(self) -> bool:
        self._handle(self._machine.receive_eof(self._sockets.now()))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._sockets.discard(self)
        self._handle(self._machine.receive_eof(self._sockets.now()))

    def tick(self, now: float) -> None:
        """Pass the time to the machine."""
        transport = self._transport
        if transport is None:
            return
        waiting = transport.get_write_buffer_size() + self._kept_bytes
        is_excused = self._is_excused(waiting)
        self._unsent_bytes = waiting
        self._handle(self._machine.tick(now, is_excused=is_excused))
        if self._machine.socket.is_finished and waiting:
            transport.abort()  # the node reads nothing any more, not even the reason

    def shut(self, code: CloseCode, reason: str) -> None:
        """Close with a reason. The owner gets no further event."""
        self._machine.close(code, reason)
        self.write_output()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def write_output(self) -> None:
        """Send the machine's output. Close the connection after the last output."""
        transport = self._transport
        socket = self._machine.socket
        data = socket.take_output()
        if transport is None:
            return
        if data:
            self._sockets.outbox.write(transport, data)
        if socket.closed is not None and socket.is_finished and not transport.is_closing():
            self._sockets.outbox.flush()
            transport.close()

    @property
    def _kept_bytes(self) -> int:
        """Return how many bytes wait to be sent and are not in the transport yet."""
        return 0

    def _is_excused(self, waiting: int) -> bool:
        """May a ping stay without answer for now?"""
        return waiting < self._unsent_bytes

    def _handle(self, events: Sequence[Any]) -> None:
        raise NotImplementedError


class Desk(Protocol):
    """Decides about the sockets that arrive."""

    def take_control(self, control: ControlSocket, hello: Hello) -> None:
        """Handle the hello of a node: welcome it, or close its socket with the reason."""

    def take_data(self, arrival: JoinData, key: Key) -> Callable[[LinkSocket], JoinedSocket]:
        """Return a function that makes the data socket from the arrival's socket. Raises `TurnedAway`."""

    def note(self, key: Key, closed: Closed) -> None:
        """Note that a socket was closed because of its node."""


class TurnedAway(Exception):  # noqa: N818 - it names what happens to the socket
    """A socket is closed with this code and reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ControlOwner(Protocol):
    """Receives the events of a control socket."""

    def on_control(self, event: HubEvent) -> None:
        """Handle an event: the node sent a message, or was silent for too long."""

    def on_control_closed(self, closed: Closed) -> None:
        """Note that the control socket is closed, and not by its owner. No event follows."""


class JoinedSockets:
    """All sockets that nodes have dialed. It passes the time to them."""

    def __init__(self, outbox: Outbox, now: Callable[[], float]) -> None:
        self.outbox = outbox
        self.now = now
        self.arriving: Counter[bytes] = Counter()
        """The number of arriving sockets by the digest of their key."""
        self.arriving_bytes: Counter[bytes] = Counter()
        self._slices: list[set[JoinedSocket]] = [set() for _ in range(SLICES)]
        self._slice_of: dict[JoinedSocket, int] = {}
        self._next_slice = 0
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._slice_of)

    def __iter__(self) -> Iterator[JoinedSocket]:
        return iter(self._slice_of)

    def has_room(self, key: Key) -> bool:
        """May another socket of this key arrive?"""
        return self.arriving[key.digest] < MAX_ARRIVING and self.arriving_bytes[key.digest] < MAX_ARRIVING_BYTES

    def arrive(self, key: Key, desk: Desk) -> ArrivingSocket:
        """Return the protocol of a connection that has just become a WebSocket."""
        return ArrivingSocket(self, key, desk)

    def add(self, socket: JoinedSocket) -> None:
        """Include a socket in the sweep."""
        number = min(range(SLICES), key=lambda index: len(self._slices[index]))
        self._slices[number].add(socket)
        self._slice_of[socket] = number
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_INTERVAL / SLICES, self._sweep)

    def discard(self, socket: JoinedSocket) -> None:
        """Forget a socket."""
        number = self._slice_of.pop(socket, None)
        if number is not None:
            self._slices[number].discard(socket)

    def abort(self) -> None:
        """Drop every connection."""
        for socket in list(self._slice_of):
            socket.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL / SLICES, self._sweep) if self._slice_of else None
        self._next_slice = (self._next_slice + 1) % SLICES
        now = self.now()
        for socket in list(self._slices[self._next_slice]):
            try:
                socket.tick(now)
            except Exception:
                _log.exception("sweep of %r", socket)
                socket.abort()


class ArrivingSocket(JoinedSocket):
    """A socket whose first message has not come."""

    __slots__ = ("_bytes", "_desk")

    def __init__(self, sockets: JoinedSockets, key: Key, desk: Desk) -> None:
        now = sockets.now()
        super().__init__(sockets, key, HubArrival(LinkSocket(Side.HUB, now), now))
        self._desk = desk
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._sockets.arriving[self.key.digest] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        held = self._sockets.arriving_bytes
        held[self.key.digest] += len(data)
        if held[self.key.digest] > MAX_ARRIVING_BYTES:
            self._machine.close(CloseCode.TOO_BIG, "too many bytes before the first messages are whole")
            self.abort()
            return
        super().data_received(data)

    def _handle(self, events: Sequence[Hello | JoinData | Closed]) -> None:
        for event in events:
            if isinstance(event, Closed):
                self._desk.note(self.key, event)
            elif isinstance(event, Hello):
                control = ControlSocket(self._sockets, self.key, self._machine.socket)
                self._become(control)
                self._desk.take_control(control, event)
                control.data_received(b"")  # bytes that came with the first message
                return
            else:
                try:
                    make = self._desk.take_data(event, self.key)
                except TurnedAway as away:
                    self.shut(away.code, away.reason)
                    return
                link = make(self._machine.socket)
                self._become(link)
                link.data_received(b"")
                return
        self.write_output()

    def _become(self, other: JoinedSocket) -> None:
        transport = self._transport
        assert transport is not None
        self._leave()
        self._sockets.discard(self)
        self._transport = None
        transport.set_protocol(other)
        other.connection_made(transport)

    def _leave(self) -> None:
        """Stop counting this socket as arriving."""
        digest = self.key.digest
        for counter, count in ((self._sockets.arriving, 1), (self._sockets.arriving_bytes, self._bytes)):
            counter[digest] -= count
            if counter[digest] <= 0:
                del counter[digest]


class ControlSocket(JoinedSocket):
    """The one control socket of a session: the node's identity, its reports and its heartbeats. Set `owner` first."""

    __slots__ = ("_allowance", "_control", "_is_paused", "owner")

    def __init__(self, sockets: JoinedSockets, key: Key, socket: LinkSocket) -> None:
        self._control = HubControl(socket, sockets.now())
        super().__init__(sockets, key, self._control)
        self.owner: ControlOwner | None = None
        self._allowance = MAX_CONTROL_BURST
        self._is_paused = False

    def data_received(self, data: bytes) -> None:
        self._allowance -= len(data)
        super().data_received(data)
        transport = self._transport
        if self._allowance < 0 and not self._is_paused and transport is not None and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def tick(self, now: float) -> None:
        self._allowance = min(self._allowance + CONTROL_BYTES_A_SWEEP, MAX_CONTROL_BURST)
        transport = self._transport
        if self._is_paused and self._allowance >= 0 and transport is not None and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()
        super().tick(now)
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self.abort()

    def welcome(self, node: str, session: str, links: int) -> None:
        """Let the node in."""
        self._control.welcome(node, session, links, self._sockets.now())
        self.write_output()

    def want_links(self, want: int) -> None:
        """Ask for another number of data sockets."""
        self._control.want_links(want)
        self.write_output()

    def refresh(self, engine: str) -> None:
        """Ask the node to list the models of an engine again."""
        self._control.refresh(engine)
        self.write_output()

    def say_bye(self, reason: str) -> None:
        """Announce the end of the session."""
        self._control.say_bye(reason)
        self.write_output()

    def _is_excused(self, waiting: int) -> bool:
        return self._is_paused or super()._is_excused(waiting)

    def _handle(self, events: Sequence[HubEvent | Closed]) -> None:
        owner = self.owner
        self.write_output()
        for event in events:
            if owner is None:
                return
            if isinstance(event, Closed):
                owner.on_control_closed(event)
            else:
                owner.on_control(event)
