"""A data socket of a joined link. It carries one exchange at a time and hands the answer on as `EngineConnection` does.

The socket is in one of three conditions. It is a spare: its `Home` has it. It is busy: its exchange has a sink. Or it
is on its way back: the answer is whole or the exchange was cancelled, and `ended` has not come yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from hive import errors
from hive.auth.keys import Key
from hive.errors import Kind
from hive.net.joined import JoinedSocket, JoinedSockets
from hive.net.link import Sink, StreamingSink
from hive.net.outbox import LARGE_PIECE_BYTES
from hive.net.resend import Resend
from hive.wire import link_rules as link
from hive.wire.link_data import HubData, HubState
from hive.wire.link_messages import Accepted, EndCode, Ended, one_line
from hive.wire.link_rules import SENT_BINARY_BYTES, CloseCode
from hive.wire.link_socket import Closed, LinkSocket
from hive.wire.responses import GarbledAnswer, ResponseReader

_log = logging.getLogger(__name__)

ROUND_TRIP_SAMPLE = 16
"""One in this many exchanges on a socket is measured, beginning with the first."""
MAX_EAGER_BYTES = 256 << 10
"""A body up to this size is written at once, even if the connection takes no bytes now."""

_IN_EXCHANGE = (HubState.OPENING, HubState.STREAMING)
_KINDS: dict[str, Kind] = {
    EndCode.ENGINE_UNREACHABLE: errors.NODE_UNREACHABLE,
    EndCode.ENGINE_UNKNOWN: errors.NODE_UNREACHABLE,
    EndCode.ENGINE_BROKE_OFF: errors.NODE_BROKE_OFF,
    EndCode.ENGINE_GARBLED: errors.NODE_GARBLED,
}
"""The meanings of a node's errors. Any other error means that the engine failed."""


class Home(Protocol):
    """The pool that a data socket belongs to."""

    def add(self, connection: JoinedConnection) -> None:
        """Take a socket that has opened: it is a spare."""

    def put_back(self, connection: JoinedConnection) -> None:
        """Take a socket back: it is a spare again."""

    def forget(self, connection: JoinedConnection, closed: Closed) -> None:
        """Forget a socket that was closed, and not by this pool."""

    def note_round_trip(self, seconds: float) -> None:
        """Learn how many seconds the node took to accept an exchange."""

    async def wait(self, engine: str) -> JoinedConnection:
        """Return a spare once there is one. Raises `Fault`."""


# large because: it is a socket, a connection for exchanges and the shell of a machine, and each further call costs time
class JoinedConnection(JoinedSocket):
    """A way to an engine through a socket that its node dialed. Set `engine` before `send`."""

    __slots__ = (
        "_data",
        "_home",
        "_is_announced",
        "_is_full",
        "_is_paused",
        "_max_head_bytes",
        "_number",
        "_reader",
        "_resend",
        "_sink",
        "_source",
        "_unheard",
        "_unsent",
        "_whole_at",
        "engine",
    )

    def __init__(self, sockets: JoinedSockets, key: Key, socket: LinkSocket, home: Home, max_head_bytes: int) -> None:
        self._data = HubData(socket, sockets.now())
        super().__init__(sockets, key, self._data)
        self._home = home
        self._max_head_bytes = max_head_bytes
        self._reader = ResponseReader(max_head_bytes)
        self._sink: Sink | None = None
        self._source: StreamingSink | None = None
        """The sink, while it still sends the request."""
        self._unheard: tuple[bytes, bytes, bool] | None = None
        """Head and body of the request and whether its answer is bodiless, until the node has said `accepted`."""
        self._resend: Resend[JoinedConnection] | None = None
        """The request that came here from a dead socket, or that goes from here to another socket."""
        self._unsent: memoryview | None = None
        """The rest of a long body. It is written as fast as the connection takes it."""
        self._is_announced = self._is_paused = self._is_full = False
        self._number = 0
        self._whole_at: float | None = None
        """The time since which only `ended` is missing."""
        self.engine = ""
        """The node's own name for the engine."""

    @property
    def is_spare(self) -> bool:
        """Can an exchange be sent on it now?"""
        transport = self._transport
        return self._data.state is HubState.SPARE and transport is not None and not transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._home.add(self)

    def send(self, head: bytes, body: bytes, sink: Sink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send a whole request; the answer goes to `sink`. `is_raw` is ignored: only a node asks for raw answers."""
        self._is_announced = False
        self._sink = sink
        self._unheard = (head, body, is_bodiless)
        data = self._data
        if data.state is not HubState.SPARE or self._transport is None:  # lost after it was taken
            self._lose("the node's connection was lost")
            return
        self._number += 1
        self._reader.begin(is_bodiless)
        data.open(f"{self._number:x}", self.engine, self._sockets.now())
        if len(head) + len(body) <= SENT_BINARY_BYTES:
            data.socket.send_parts(head, body)
            self.write_output()
            return
        data.socket.send_parts(head)
        self.write_output()
        self._send_body(memoryview(body))

    def begin(self, data: bytes, sink: StreamingSink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send the head of a request; `write` the rest when the node has accepted it, then `finish`.

        Until then the connection says that it is full. So the body stays with the client, and no copy of it is needed
        if the request must go to another socket.
        """
        self._source = sink
        sink.on_full(True)
        self.send(data, b"", sink, is_bodiless=is_bodiless)

    def write(self, data: bytes) -> None:
        """Send more bytes of the request; nothing once its answer is whole."""
        if self._source is None or self._data.state is not HubState.STREAMING:
            return
        self._unsent_bytes += len(data)  # at the next tick fewer bytes wait than now, unless the node takes none
        self._data.send(data)
        self.write_output()
        if len(data) >= LARGE_PIECE_BYTES:
            self._sockets.outbox.flush()

    def finish(self) -> None:
        """Note that the request is whole."""
        self._source = None

    def _send_body(self, body: memoryview) -> None:
        """Send a large body with the turn's other writes, a very large body as fast as the connection takes it."""
        transport, outbox = self._transport, self._sockets.outbox
        assert transport is not None
        if len(body) > MAX_EAGER_BYTES:
            outbox.flush()  # earlier bytes first
            self._unsent = body
            self._pump()
            return
        for start in range(0, len(body), SENT_BINARY_BYTES):
            piece = body[start : start + SENT_BINARY_BYTES]
            outbox.write(transport, self._data.socket.binary_header(len(piece)))
            outbox.write(transport, piece)

    def _pump(self) -> None:
        """Send as much of a very large body as the connection takes now."""
        transport, rest = self._transport, self._unsent
        while rest is not None and not self._is_full and transport is not None and not transport.is_closing():
            piece = rest[:SENT_BINARY_BYTES]
            transport.writelines((self._data.socket.binary_header(len(piece)), piece))
            rest = rest[SENT_BINARY_BYTES:] if len(rest) > SENT_BINARY_BYTES else None
        self._unsent = rest

    def pause_writing(self) -> None:
        self._is_full = True
        if self._source is not None:
            self._source.on_full(True)

    def resume_writing(self) -> None:
        self._is_full = False
        if self._unsent is not None:
            self._pump()
        elif self._source is not None and self._unheard is None:
            self._source.on_full(False)

    def cancel(self) -> None:
        """Leave the exchange; the node stops its engine, and the socket becomes a spare again."""
        self._sink = self._source = self._unheard = None
        if self._resend is not None:
            self._resend.cancel()
            self._resend = None
        if self._data.state not in _IN_EXCHANGE:
            return  # the exchange has ended in this very read
        if self._unsent is not None or self._is_full:
            self._unsent = None
            self.abort()  # a cancel would wait behind the request
            return
        self._data.cancel(self._sockets.now())
        self.write_output()
        self.resume()

    def pause(self) -> None:
        """Read no more until `resume`."""
        transport = self._transport
        if transport is not None and self._sink is not None and not self._is_paused and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        transport = self._transport
        if transport is not None and self._is_paused and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()

    def close(self) -> None:
        """Give the socket back unused: it is a spare again."""
        if self.is_spare:
            self._home.put_back(self)

    def shut(self, code: CloseCode, reason: str) -> None:
        super().shut(code, reason)
        self._lose(reason)

    def data_received(self, data: bytes) -> None:
        whole: Sink | None = None
        for event in self._data.receive(data, self._sockets.now()):
            sink = self._take(event) if type(event) is bytes else self._take_mark(event)
            whole = sink or whole
        self.write_output()
        if whole is not None:
            whole.on_complete()  # last of all: the sink may want this socket at once, now that it may be a spare again

    def _take(self, data: bytes) -> Sink | None:
        """Give a piece of the answer to the sink; return the sink if the answer is whole now."""
        sink, reader = self._sink, self._reader
        if sink is None:
            if self._whole_at is not None:
                self.cancel()  # bytes after the answer
            return None
        try:
            body = reader.feed(data)
        except GarbledAnswer as garbled:
            self._fail(errors.NODE_GARBLED, f"the engine's answer is garbled: {garbled}")
            return None
        if not self._is_announced:
            if reader.head is None:
                return None
            self._is_announced = True
            sink.on_head(reader.head)
        if body and self._sink is sink:
            sink.on_body(body)
        if not reader.is_complete or self._sink is not sink:
            return None
        self._sink = self._source = self._unsent = None
        self._whole_at = self._sockets.now()
        self.resume()  # a slow client may have paused it, and `ended` is still to be read
        return sink

    def _take_mark(self, event: Accepted | Ended | Closed | bytes) -> Sink | None:
        """Take an event that is no piece of an answer; return the sink if the answer is whole now."""
        if type(event) is Accepted:
            self._unheard = self._resend = None
            if self._source is not None and not self._is_full:
                self._source.on_full(False)
            if self._number % ROUND_TRIP_SAMPLE == 1:
                self._home.note_round_trip(self._sockets.now() - self._data.since)
        elif type(event) is Ended:
            return self._end(event)
        elif type(event) is Closed:
            self._home.forget(self, event)
            self._lose(f"the node's connection was lost ({one_line(event.reason, 120)})")
        return None

    def _end(self, ended: Ended) -> Sink | None:
        """End the exchange: the socket is a spare again. Return the sink if the answer is whole now."""
        sink = self._sink
        self._sink = self._source = self._unheard = self._resend = None
        reader = self._reader
        failure = ""
        if sink is not None:
            failure = self._judge_end(ended)
        if not reader.is_complete or not reader.can_be_reused:
            self._reader.close()
            self._reader = ResponseReader(self._max_head_bytes)
        self._unsent = self._whole_at = None
        self.resume()
        self._home.put_back(self)
        if sink is not None and failure:
            code = ended.error.code if ended.error is not None else EndCode.ENGINE_BROKE_OFF
            sink.on_failure(_KINDS.get(code, errors.NODE_FAILED), failure)
            return None
        return sink

    def _judge_end(self, ended: Ended) -> str:
        """Return why the answer is not whole; an empty text if it is whole."""
        error = ended.error
        if error is None:
            try:
                self._reader.end_of_connection()
            except GarbledAnswer:
                return "the engine's answer ended before it was whole"
            return ""
        if error.code == EndCode.REQUEST_REFUSED:
            _log.error("node %s refuses a request of the hub: %s", self.key.name, error.message)
        return error.message or error.code

    def _handle(self, events: Sequence[Accepted | Ended | Closed | bytes]) -> None:
        for event in events:
            self._take_mark(event)
        self.write_output()

    def _fail(self, kind: Kind, reason: str) -> None:
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.on_failure(kind, reason)

    def _lose(self, reason: str) -> None:
        """Note that the socket is gone. Its request goes to another socket if the node has not said `accepted`."""
        sink, source, unheard = self._sink, self._source, self._unheard
        self._sink = self._source = self._unsent = self._unheard = None
        if sink is None:
            return
        resend = self._resend or Resend(lambda: self._home.wait(self.engine), sink)
        if unheard is None or not resend.is_allowed:
            sink.on_failure(errors.NODE_BROKE_OFF, reason)
            return

        def repeat(other: JoinedConnection) -> None:
            self._resend, other._resend = None, resend
            head, body, is_bodiless = unheard
            if source is not None:
                other.begin(head, source, is_bodiless=is_bodiless)
            else:
                other.send(head, body, sink, is_bodiless=is_bodiless)

        self._resend = resend
        resend.start(repeat)

    def tick(self, now: float) -> None:
        if self._whole_at is not None and now - self._whole_at > link.CANCEL_SECONDS:
            self._whole_at = None
            self.cancel()  # the answer is whole, but the node does not say `ended`
        super().tick(now)

    @property
    def _kept_bytes(self) -> int:
        return 0 if self._unsent is None else len(self._unsent)

    def _is_excused(self, waiting: int) -> bool:
        return self._is_paused or super()._is_excused(waiting)
