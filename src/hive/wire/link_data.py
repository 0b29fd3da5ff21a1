"""A data socket of a joined link. It carries one exchange at a time, HTTP/1.1 in binary messages; then it is a spare.

    hub     SPARE --open()--> OPENING --accepted--> STREAMING --ended--> SPARE
                              OPENING --ended--> SPARE
                              OPENING, STREAMING --cancel()--> CANCELLING --ended--> SPARE
    node    SPARE --open--> OPENED --accept()--> SERVING --end()--> SPARE
                              OPENED --end()--> SPARE
                              OPENED, SERVING --cancel--> SPARE   (says ended by itself)

After `cancel` the hub discards everything before `ended`. A spare discards request bytes: they were under way when the
exchange ended. It also discards a `cancel` that crossed an `ended`. Everything else that a state does not list is a
violation and closes the socket.
"""

from __future__ import annotations

from enum import Enum

from hive.wire import link_rules as link
from hive.wire.link_machine import LinkMachine
from hive.wire.link_messages import (
    FROM_HUB_DATA,
    FROM_NODE_DATA,
    Accepted,
    Cancel,
    EndCode,
    Ended,
    EndError,
    JoinData,
    Open,
    encode,
)
from hive.wire.link_rules import SENT_BINARY_BYTES, CloseCode, LinkError
from hive.wire.link_socket import LinkSocket


class HubState(Enum):
    """The states of the hub's end."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and every exchange hashes a state twice

    SPARE = "spare"
    OPENING = "opening"
    STREAMING = "streaming"
    CANCELLING = "cancelling"
    CLOSED = "closed"


class NodeState(Enum):
    """The states of the node's end."""

    SPARE = "spare"
    OPENED = "opened"
    SERVING = "serving"
    CLOSED = "closed"


_HUB_RULES: dict[tuple[HubState, type], HubState] = {
    (HubState.OPENING, Accepted): HubState.STREAMING,
    (HubState.OPENING, Ended): HubState.SPARE,
    (HubState.STREAMING, Ended): HubState.SPARE,
    (HubState.CANCELLING, Accepted): HubState.CANCELLING,
    (HubState.CANCELLING, Ended): HubState.SPARE,
}
"""The next state, by state and message of the node. A pair that is not listed is a violation."""


class HubData(LinkMachine[Accepted | Ended | bytes]):
    """The hub's end.

    Its events: `Accepted`, the bytes of the answer, `Ended`. A cancelled exchange ends with `Ended` too.
    """

    def __init__(self, socket: LinkSocket, now: float) -> None:
        super().__init__(socket, now)
        socket.limit(link.MAX_TEXT_BYTES, link.MAX_BINARY_BYTES)
        self.state = HubState.SPARE
        self.exchange = ""
        """The id of the exchange under way, or of the last exchange."""
        self._accepted = self._ended = ""
        """The two marks of a good exchange as our own node writes them. Equal text needs no decoding."""
        self.since = now
        """The time of the last `open` or `cancel`: how long an answer may take counts from it."""

    def __repr__(self) -> str:
        return f"<HubData {self.state.value} {self.exchange}>"

    def open(self, exchange: str, engine: str, now: float) -> None:
        """Begin an exchange on a spare. Call `send` with its request directly after."""
        assert self.state is HubState.SPARE
        self.state = HubState.OPENING
        self.exchange = exchange
        self.since = now
        self._accepted = f'{{"type":"accepted","id":"{exchange}"}}'
        self._ended = f'{{"type":"ended","id":"{exchange}","error":null}}'
        self.socket.send_text(encode(Open(exchange, engine)))

    def send(self, data: bytes) -> None:
        """Send bytes of the request. Send a long body piece by piece, as fast as the connection takes it."""
        assert self.state in (HubState.OPENING, HubState.STREAMING)
        _send_pieces(self.socket, data)

    def cancel(self, now: float) -> None:
        """Give up the exchange. Its further bytes are discarded, and `Ended` makes the socket a spare again.

        If request bytes still wait to be written, call `close` instead: the cancel would wait behind them.
        """
        assert self.state in (HubState.OPENING, HubState.STREAMING)
        self.state = HubState.CANCELLING
        self.since = now
        self.socket.send_text(encode(Cancel(self.exchange)))

    def _on_binary(self, data: bytes) -> bytes | None:
        if self.state is HubState.STREAMING:
            return data or None
        if self.state is HubState.CANCELLING:
            return None
        raise LinkError(f"bytes of an answer while {self.state.value}", CloseCode.VIOLATION)

    def _on_text(self, text: str) -> Accepted | Ended | None:
        if text == self._ended and self.state is HubState.STREAMING:
            self.state = HubState.SPARE
            return Ended(self.exchange)
        if text == self._accepted and self.state is HubState.OPENING:
            self.state = HubState.STREAMING
            return Accepted(self.exchange)
        message = FROM_NODE_DATA.decode(text)
        if message is None:
            return None
        following = _HUB_RULES.get((self.state, type(message)))
        if following is None or message.id != self.exchange:
            name = type(message).__name__.lower()
            raise LinkError(f"{name} {message.id} while {self.state.value} {self.exchange}", CloseCode.VIOLATION)
        self.state = following
        return None if following is HubState.CANCELLING else message

    def _on_time(self, now: float) -> None:
        if self.state is HubState.OPENING and now - self.since > link.ACCEPT_SECONDS:
            self.socket.close(CloseCode.NOT_ACCEPTED, "the exchange was not accepted")
        elif self.state is HubState.CANCELLING and now - self.since > link.CANCEL_SECONDS:
            self.socket.close(CloseCode.NOT_CANCELLED, "the cancelled exchange did not end")

    def _on_closed(self) -> None:
        self.state = HubState.CLOSED

    def _patience(self) -> float:
        return link.PONG_SECONDS if self.state is HubState.SPARE else link.BUSY_PONG_SECONDS


class NodeData(LinkMachine[Open | Cancel | bytes]):
    """The node's end. It shows its session at once. Its events: `Open`, the bytes of the request, `Cancel`.

    Each call names its exchange. So what an engine says after a cancel is dropped.
    """

    def __init__(self, socket: LinkSocket, session: str, now: float, ping_seconds: float = link.PING_SECONDS) -> None:
        super().__init__(socket, now)
        socket.limit(link.MAX_TEXT_BYTES, link.MAX_BINARY_BYTES)
        socket.alive.silence_seconds = ping_seconds + link.PONG_SECONDS
        self.state = NodeState.SPARE
        self.exchange = ""
        socket.send_text(encode(JoinData(session)))

    def __repr__(self) -> str:
        return f"<NodeData {self.state.value} {self.exchange}>"

    def accept(self, exchange: str) -> None:
        """Confirm that the exchange has arrived.

        The caller may hold the output for `ACCEPT_HOLD_SECONDS`, to join it with more.
        """
        if self.exchange == exchange and self.state is NodeState.OPENED:
            self.state = NodeState.SERVING
            self.socket.send_text(encode(Accepted(exchange)))

    def answer(self, exchange: str, data: bytes) -> None:
        """Send bytes of the engine's answer. Does nothing if the exchange is over."""
        if self.exchange != exchange:
            return
        self.accept(exchange)
        if self.state is NodeState.SERVING:
            _send_pieces(self.socket, data)

    def end(self, exchange: str, error: EndError | None = None) -> None:
        """End the exchange. Without `error` the answer was whole, or ended with the engine's connection."""
        if self.exchange != exchange or self.state not in (NodeState.OPENED, NodeState.SERVING):
            return
        self.state = NodeState.SPARE
        self.socket.send_text(encode(Ended(exchange, error)))

    def _on_binary(self, data: bytes) -> bytes | None:
        return None if self.state is NodeState.SPARE else data or None

    def _on_text(self, text: str) -> Open | Cancel | None:
        message = FROM_HUB_DATA.decode(text)
        if type(message) is Open:
            if self.state is not NodeState.SPARE:
                raise LinkError(f"open {message.id} while {self.state.value} {self.exchange}", CloseCode.VIOLATION)
            self.state = NodeState.OPENED
            self.exchange = message.id
        elif type(message) is Cancel:
            if self.state is NodeState.SPARE:
                return None
            if message.id != self.exchange:
                raise LinkError(f"cancel {message.id} while serving {self.exchange}", CloseCode.VIOLATION)
            self.end(message.id, EndError(EndCode.CANCELLED))
        return message

    def _on_closed(self) -> None:
        self.state = NodeState.CLOSED


def _send_pieces(socket: LinkSocket, data: bytes) -> None:
    if len(data) <= SENT_BINARY_BYTES:
        if data:
            socket.send_binary(data)
        return
    view = memoryview(data)
    for start in range(0, len(data), SENT_BINARY_BYTES):
        socket.send_binary(view[start : start + SENT_BINARY_BYTES])
