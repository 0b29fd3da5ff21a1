"""A data socket: a spare until the hub opens an exchange on it, then that exchange's way to the hub.

`accepted` is held back for a moment, so that it leaves in one write with the answer of an engine that is quick:
a write costs more than everything else that an exchange does to this socket.
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
"""What may wait for a hub that does not read: the engine is held back long before."""
STUCK_SECONDS = 60.0
"""How long an engine may take no byte of a request."""

_log = logging.getLogger(__name__)


class Held:
    """The sockets that hold `accepted` back; one timer for all of them lets go of it."""

    def __init__(self) -> None:
        self._sockets: list[DataSocket] = []

    def add(self, socket: DataSocket) -> None:
        """Flush the socket in a moment."""
        if not self._sockets:
            asyncio.get_running_loop().call_later(ACCEPT_HOLD_SECONDS, self._let_go)
        self._sockets.append(socket)

    def _let_go(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.let_go()


class DataOwner(Protocol):
    """Whose data socket it is."""

    def engine(self, name: str) -> EngineServer | None:
        """Return the engine of this id, if there is one."""

    def on_spare(self, socket: DataSocket) -> None:
        """An exchange has ended, what was to be said of it is written, and no other has begun."""

    def on_data_closed(self, socket: DataSocket, closed: Closed) -> None:
        """The socket is over."""


class DataSocket(HubSocket[Open | Cancel | bytes]):
    """One exchange at a time."""

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
        """Is `accepted` all that there is to send?"""
        self._is_listed = False
        """Will `Held` call?"""
        self._has_served = False
        """Has an exchange ended that the owner has not heard of?"""
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
        """Does it carry an exchange?"""
        return self._exchange is not None

    @property
    def is_open(self) -> bool:
        """Can it carry exchanges?"""
        return self._link is not None and self._link.socket.closed is None

    def begin(self, socket: LinkSocket, now: float) -> NodeData:
        self._link = NodeData(socket, self._session, now, self._ping_seconds)
        return self._link

    # --- from the hub ---

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
        """Drop the exchange: it ended early."""
        exchange, self._exchange = self._exchange, None
        self._is_holding = False
        self._stuck_since = None
        if exchange is not None:
            exchange.cancel()
            self.resume_reading()

    def settle(self) -> None:
        """Write, unless `accepted` is all: it waits for company."""
        if not self._is_holding:
            self.flush()
        elif not self._is_listed:
            self._is_listed = True
            self._held.add(self)

    def write_now(self) -> None:
        super().write_now()
        # Not before: `open` may stand right behind what ended the exchange, in the same read.
        if self._has_served and self._exchange is None:
            self._has_served = False
            self._owner.on_spare(self)

    def let_go(self) -> None:
        """Write an `accepted` that found no company."""
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
        """Leave the exchange, and give the connection up: the session is over."""
        self._leave()
        self.close(CloseCode.GOING_AWAY)
        self.write_now()
        self.abort()

    # --- to the hub ---

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
