"""One exchange on its way through the node: the hub's request to an engine, the engine's answer back.

The request is parsed and written anew as it comes; the answer goes back as the bytes came. A short request goes out on
a pooled connection. If that connection proves dead, it sends the request again on a fresh one. A long request gets a
new connection.
"""

from __future__ import annotations

from typing import Protocol

from hive import errors
from hive.errors import Fault, Kind
from hive.net.engine_connection import MAX_KEPT_BYTES, EngineConnection
from hive.net.link import Connection
from hive.net.pending_dial import PendingDial
from hive.node.allowed_routes import refusal
from hive.node.engine_server import EngineServer
from hive.wire.forwarding import node_request_head
from hive.wire.link_messages import EndCode, EndError, one_line
from hive.wire.requests import RequestHead, RequestReader
from hive.wire.responses import ResponseHead

MAX_WAITING_BYTES = 64 << 10
"""The most bytes of a request that waits for a connection."""
_CODES: dict[Kind, EndCode] = {
    errors.NODE_BROKE_OFF: EndCode.ENGINE_BROKE_OFF,
    errors.NODE_GARBLED: EndCode.ENGINE_GARBLED,
}
"""The code for the hub by the kind of failure. Any other failure means that the engine cannot be reached."""


class Back(Protocol):
    """The way back to the hub."""

    def answer(self, exchange: str, data: bytes) -> None:
        """Send bytes of the answer."""

    def finish(self, exchange: str, error: EndError | None) -> None:
        """End the exchange."""

    def pause_request(self) -> None:
        """Read no more of the request until `resume_request`."""

    def resume_request(self) -> None:
        """Read on."""


class CarriedExchange:
    """A request of the hub and its answer. The owner calls `take`, and `cancel` if the exchange must end early."""

    __slots__ = (
        "_back",
        "_connection",
        "_dialing",
        "_engine",
        "_head",
        "_is_bodiless",
        "_is_hub_full",
        "_is_over",
        "_reader",
        "_waiting",
        "_waiting_bytes",
        "id",
    )

    def __init__(self, name: str, engine: EngineServer, reader: RequestReader, back: Back) -> None:
        self.id = name
        self._engine = engine
        self._reader = reader
        self._back = back
        self._connection: Connection | None = None
        self._dialing: PendingDial[EngineConnection] | None = None
        self._head: RequestHead | None = None
        self._is_bodiless = False
        self._is_hub_full = False
        self._is_over = False
        self._waiting: list[bytes] = []
        """The bytes of the request that have come, while there is no connection."""
        self._waiting_bytes = 0

    def __repr__(self) -> str:
        return f"<Exchange {self.id} {self._engine.id}>"

    def take(self, data: bytes) -> None:
        """Take bytes of the request."""
        if self._is_over:
            return
        reader = self._reader
        try:
            reader.feed(data)
        except Fault as fault:
            self._refuse(fault.message)
            return
        if reader.has_excess:
            self._refuse("bytes behind the request")
        elif self._head is not None:
            self._pass_on(self._framed(reader.take_body()))
        elif reader.head is not None:
            self._start(reader.head)

    def cancel(self) -> None:
        """Leave the exchange: the engine stops, and nothing more goes back to the hub."""
        self._is_over = True
        self._waiting = []
        if self._dialing is not None:
            self._dialing.cancel()
            self._dialing = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()

    def give_up(self, code: EndCode, reason: str) -> None:
        """Leave the exchange, and tell the hub why."""
        self.cancel()
        self._back.finish(self.id, EndError(code, one_line(reason)))

    def take_reader(self) -> RequestReader | None:
        """Return the reader if another request can be read with it."""
        reader = self._reader
        if not reader.is_complete or reader.has_excess:
            return None
        reader.restart()
        return reader

    def set_hub_full(self, is_full: bool) -> None:
        """Note that the hub takes no more of the answer for now, or takes it again."""
        self._is_hub_full = is_full
        connection = self._connection
        if connection is not None:
            if is_full:
                connection.pause()
            else:
                connection.resume()

    def _refuse(self, reason: str) -> None:
        self.give_up(EndCode.REQUEST_REFUSED, reason)

    def _start(self, head: RequestHead) -> None:
        refused = refusal(head)
        if refused is not None:
            self._refuse(refused)
            return
        engine = self._engine
        link = engine.link
        self._head = head
        self._is_bodiless = head.method == "HEAD"
        is_short = not head.is_chunked and (head.content_length or 0) <= MAX_KEPT_BYTES
        data = node_request_head(head, head.path.encode("latin-1"), link.host_field, link.credential)
        data += self._framed(self._reader.take_body())
        connection = link.take_idle() if is_short else None
        if connection is not None:
            self._send(connection, data)
        else:
            self._wait_with(data)
            self._dialing = PendingDial(link.dial, self._on_dialed, self._on_undialed)

    def _framed(self, body: bytes) -> bytes:
        """Return a piece of the body as it goes to the engine."""
        if self._head is None or not self._head.is_chunked:
            return body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk + b"0\r\n\r\n" if self._reader.is_complete else chunk

    def _pass_on(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            self._wait_with(data)
            return
        if data:
            connection.write(data)
        if self._reader.is_complete:
            connection.finish()

    def _wait_with(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self._back.pause_request()

    def _send(self, connection: EngineConnection, data: bytes) -> None:
        self._connection = connection
        if self._reader.is_complete:
            connection.send(data, b"", self, is_bodiless=self._is_bodiless, is_raw=True)
        else:
            connection.begin(data, self, is_bodiless=self._is_bodiless, is_raw=True)
        if self._is_hub_full:
            connection.pause()

    def _on_dialed(self, connection: EngineConnection) -> None:
        self._dialing = None
        waiting, self._waiting = self._waiting, []
        self._back.resume_request()
        self._send(connection, b"".join(waiting))

    def _on_undialed(self, fault: Fault) -> None:
        self._dialing = None
        self.give_up(EndCode.ENGINE_UNREACHABLE, fault.message)

    def on_head(self, head: ResponseHead) -> None:
        """Do nothing: a raw answer has its head among its bytes."""

    def on_body(self, data: bytes) -> None:
        """Send bytes of the answer back as they came."""
        self._back.answer(self.id, data)

    def on_complete(self) -> None:
        """End the exchange: the answer is whole."""
        self._is_over = True
        self._connection = None
        self._back.finish(self.id, None)

    def on_failure(self, kind: Kind, reason: str) -> None:
        """End the exchange with an error: the engine is gone, or its answer is garbled."""
        self._connection = None
        self.give_up(_CODES.get(kind, EndCode.ENGINE_UNREACHABLE), reason)

    def on_moved(self, connection: Connection) -> None:
        """Use this connection from now on: the pooled one had died."""
        self._connection = connection
        if self._is_hub_full:
            connection.pause()

    def on_full(self, is_full: bool) -> None:
        """Hold the hub's request back while the engine does not take it."""
        if is_full:
            self._back.pause_request()
        else:
            self._back.resume_request()
