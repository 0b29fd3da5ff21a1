"""A data socket at the node. It is a spare until the hub opens an exchange on it; then it carries that exchange.

`accepted` is held back for a moment, so that it leaves in one write with the answer of a quick engine. A write costs
more than all other work of an exchange on this socket.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from hive.net.outbox import LARGE_PIECE_BYTES
from hive.node.carried_exchange import CarriedExchange
from hive.node.engine_server import EngineServer
from hive.node.hub_socket import HubSocket, Turn
from hive.wire.link_data import NodeData
from hive.wire.link_dial import Dial
from hive.wire.link_messages import Cancel, EndCode, EndError, Open
from hive.wire.link_rules import ACCEPT_HOLD_SECONDS, CloseCode
from hive.wire.link_socket import Closed, LinkSocket
from hive.wire.requests import RequestReader

MAX_HEAD_BYTES = 64 << 10
MAX_UNSENT_BYTES = 16 << 20
"""The most bytes that may wait for a hub that does not read. The engine is paused long before."""
STUCK_SECONDS = 60.0
"""Seconds after which an engine that takes no byte of a request is given up."""

_log = logging.getLogger(__name__)


class Held:
    """The sockets that hold `accepted` back. One timer lets all of them write."""

    def __init__(self) -> None:
        self._sockets: list[DataSocket] = []

    def add(self, socket: DataSocket) -> None:
        """Let the socket write its `accepted` after `ACCEPT_HOLD_SECONDS`."""
        if not self._sockets:
            asyncio.get_running_loop().call_later(ACCEPT_HOLD_SECONDS, self._let_go)
        self._sockets.append(socket)

    def _let_go(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.let_go()


class DataOwner(Protocol):
    """The owner of a data socket."""

    def engine(self, name: str) -> EngineServer | None:
        """Return the engine of this id, if there is one."""

    def on_spare(self, socket: DataSocket) -> None:
        """Note that the socket is a spare: an exchange has ended and all is written, and no other has begun."""

    def on_data_closed(self, socket: DataSocket, closed: Closed) -> None:
        """Note that the socket is closed."""


class DataSocket(HubSocket[Open | Cancel | bytes]):
    """A socket that carries one exchange at a time."""

    max_unsent_bytes = MAX_UNSENT_BYTES

    def __init__(self, dial: Dial, turn: Turn, session: str, ping_seconds: float, owner: DataOwner, held: Held) -> None:
        super().__init__(dial, turn)
        self._session = session
        self._ping_seconds = ping_seconds
        self._owner = owner
        self._held = held
        self._link: NodeData | None = None
        self._exchange: CarriedExchange | None = None
        self._reader: RequestReader | None = None
        self._is_holding = False
        """Is `accepted` the only message that waits to be sent?"""
        self._is_listed = False
        """Will `Held` call `let_go`?"""
        self._has_served = False
        """Has an exchange ended without a call of `on_spare` so far?"""
        self._is_full = False
        """Does the hub take no more for now?"""
        self._stuck_since: float | None = None

    def __repr__(self) -> str:
        return f"<DataSocket {self._exchange or 'spare'}>"

    @property
    def link(self) -> NodeData | None:
        return self._link

    @property
    def is_busy(self) -> bool:
        """Does the socket carry an exchange?"""
        return self._exchange is not None

    @property
    def is_open(self) -> bool:
        """Can the socket carry exchanges?"""
        return self._link is not None and self._link.socket.closed is None

    def begin(self, socket: LinkSocket, now: float) -> NodeData:
        self._link = NodeData(socket, self._session, now, self._ping_seconds)
        return self._link

    def on_event(self, event: Open | Cancel | bytes | Closed) -> None:
        if type(event) is bytes:
            if self._exchange is not None:
                self._exchange.take(event)
        elif type(event) is Open:
            self._begin_exchange(event)
        elif type(event) is Cancel:
            self._leave()
            self._has_served = True
        elif type(event) is Closed:
            self._leave()
            if event.is_ours and event.code != CloseCode.SILENT:
                _log.warning("a data socket is closed: %s (%d)", event.reason, event.code)
            self._owner.on_data_closed(self, event)

    def _begin_exchange(self, event: Open) -> None:
        link = self._link
        assert link is not None
        engine = self._owner.engine(event.engine)
        if engine is None:
            link.end(event.id, EndError(EndCode.ENGINE_UNKNOWN, f"there is no engine {event.engine}"))
            return
        reader, self._reader = self._reader, None
        self._exchange = CarriedExchange(event.id, engine, reader or RequestReader(MAX_HEAD_BYTES), self)
        if self._is_full:
            self._exchange.set_hub_full(True)
        link.accept(event.id)
        self._is_holding = True

    def _leave(self) -> None:
        """Drop the exchange, if there is one: it ended early."""
        exchange, self._exchange = self._exchange, None
        self._is_holding = False
        self._stuck_since = None
        if exchange is not None:
            exchange.cancel()
            self.resume_reading()

    def settle(self) -> None:
        """Write, unless only `accepted` is to be sent: that waits for the first bytes of the answer."""
        if not self._is_holding:
            self.flush()
        elif not self._is_listed:
            self._is_listed = True
            self._held.add(self)

    def write_now(self) -> None:
        super().write_now()
        # Not earlier: the next `open` may come in the same read as the message that ended the exchange.
        if self._has_served and self._exchange is None:
            self._has_served = False
            self._owner.on_spare(self)

    def let_go(self) -> None:
        """Write `accepted` alone: no byte of the answer came in time."""
        self._is_listed = False
        if self._is_holding:
            self._is_holding = False
            self.flush()

    def tick(self, now: float) -> None:
        super().tick(now)
        if self._exchange is None or not self._is_paused:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > STUCK_SECONDS:
            reason = f"the engine has taken no byte of the request for {STUCK_SECONDS:g} s"
            self._exchange.give_up(EndCode.ENGINE_BROKE_OFF, reason)

    def drop(self) -> None:
        """Leave the exchange and drop the connection: the session is over."""
        self._leave()
        self.close(CloseCode.GOING_AWAY)
        self.write_now()
        self.abort()

    def answer(self, exchange: str, data: bytes) -> None:
        """Send bytes of the answer."""
        link = self._link
        assert link is not None
        self._is_holding = False
        link.answer(exchange, data)
        if len(data) < LARGE_PIECE_BYTES:
            self.flush()
        else:
            self.write_now()

    def finish(self, exchange: str, error: EndError | None) -> None:
        """End the exchange; the socket is a spare again."""
        link, ended = self._link, self._exchange
        assert link is not None
        if ended is None or ended.id != exchange:
            return
        self._exchange = None
        self._is_holding = False
        self._stuck_since = None
        self._reader = ended.take_reader()
        link.end(exchange, error)
        self.resume_reading()
        self._has_served = True
        self.flush()

    def pause_request(self) -> None:
        """Read no more of the request."""
        self.pause_reading()

    def resume_request(self) -> None:
        """Read on."""
        self.resume_reading()

    def pause_writing(self) -> None:
        self._is_full = True
        if self._exchange is not None:
            self._exchange.set_hub_full(True)

    def resume_writing(self) -> None:
        self._is_full = False
        if self._exchange is not None:
            self._exchange.set_hub_full(False)
