"""The common part of the state machines of a joined link: bytes and time in, events out, one `Closed` at the end."""

from __future__ import annotations

from typing import Generic, TypeVar

from hive.wire.link_rules import PONG_SECONDS, CloseCode, LinkError
from hive.wire.link_socket import Closed, LinkSocket

E = TypeVar("E")


class LinkMachine(Generic[E]):
    """One socket in one role. The roles say what a message means (`_on_text`, `_on_binary`) and what time does."""

    _takes_one = False
    """Does the first message change the role?"""

    def __init__(self, socket: LinkSocket, now: float) -> None:
        self.socket = socket
        self._now = now
        self._is_told = False
        """Has the caller got the event `Closed`, or closed the socket itself?"""

    def receive(self, data: bytes, now: float) -> list[E | Closed]:
        """Take bytes of the connection; return the events in them."""
        self._now = now
        socket = self.socket
        socket.receive(data, now)
        events: list[E | Closed] = []
        while (message := socket.next_message()) is not None:
            try:
                event = self._on_binary(message) if type(message) is bytes else self._on_text(str(message))
            except LinkError as error:
                socket.close(error.code, str(error))
                break
            if event is not None:
                events.append(event)
            if self._takes_one:
                break
        if socket.closed is not None:
            self._tell(events)
        return events

    def receive_eof(self, now: float) -> list[E | Closed]:
        """Note that the connection has ended or was lost; return the events."""
        self._now = now
        self.socket.receive_eof(now)
        events: list[E | Closed] = []
        self._tell(events)
        return events

    def tick(self, now: float, *, is_excused: bool = False) -> list[E | Closed]:
        """Pass the time to the machine; return the events. For `is_excused` see `LinkSocket.tick`."""
        self._now = now
        events: list[E | Closed] = []
        if self.socket.tick(now, is_excused=is_excused, patience=self._patience()):
            event = self._on_time(now)
            if event is not None:
                events.append(event)
        if self.socket.closed is not None:
            self._tell(events)
        return events

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the socket. No event follows."""
        self._is_told = True
        self.socket.close(code, reason)
        self._on_closed()

    def _tell(self, events: list[E | Closed]) -> None:
        closed = self.socket.closed
        if closed is not None and not self._is_told:
            self._is_told = True
            self._on_closed()
            events.append(closed)

    def _on_text(self, text: str) -> E | None:
        raise NotImplementedError

    def _on_binary(self, data: bytes) -> E | None:
        raise LinkError("a binary message on a control socket", CloseCode.VIOLATION)

    def _on_time(self, now: float) -> E | None:
        return None

    def _on_closed(self) -> None:
        """Called once when the socket is closed, by either side."""

    def _patience(self) -> float:
        """Return how many seconds a ping may stay without answer."""
        return PONG_SECONDS
