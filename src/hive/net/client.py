"""One connection of a client, from its first byte to its last.

It is in one of the seven states of `ConnectionState`. Origin, path, key, right and length are judged at the end of the
head, in this order, before any body is accepted or `100 Continue` is sent. There is one request at a time. If bytes of
a second request come before the answer has ended, they are never read as a request: the connection closes after the
answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from enum import Enum
from typing import cast

from hive.errors import (
    BAD_REQUEST,
    BODY_TOO_LARGE,
    DRAINING,
    EXPECTATION_FAILED,
    REQUEST_TIMEOUT,
    Fault,
)
from hive.net.body_intake import BodyIntake
from hive.net.outbox import set_nodelay
from hive.net.reception import Handler, HeldBody, Reception
from hive.net.stream import ClientStream
from hive.net.unsent import Unsent
from hive.wire.requests import RequestHead, RequestReader

LINGER_BYTES = 1 << 20
_RESETTING = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""SO_LINGER of zero seconds: closing the socket resets its connection."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ConnectionState(Enum):
    """The states of a connection."""

    HEAD = 1
    """It waits for the head of a request."""
    BODY = 2
    """It waits for the body, which the handler gets when it is whole."""
    ANSWERING = 3
    """The handler answers."""
    LINGER = 4
    """After an early answer it is half-closed and discards what still comes: a reset would lose the answer."""
    HELD = 5
    """A refusal is held back, because its client guesses keys."""
    STREAMING = 6
    """The handler takes the body as it comes (`net.body_intake`), and may answer already."""
    CLOSED = 7


# large because: it is one state machine, six of its methods are callbacks of asyncio, and each further call costs time
class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_closes",
        "_deadline",
        "_discarded_bytes",
        "_handler",
        "_limits",
        "_reader",
        "_reception",
        "_state",
        "_stream",
        "_transport",
        "_unsent",
        "_written_bytes",
        "held_body",
        "is_paused",
        "peer",
    )

    def __init__(self, reception: Reception, handler: Handler) -> None:
        self._reception = reception
        self._handler = handler
        self._limits = reception.limits
        self._reader = RequestReader(reception.limits.max_head_bytes)
        self._transport: asyncio.Transport | None = None
        self._stream: ClientStream | None = None
        self._state = ConnectionState.HEAD
        self._deadline = 0.0
        self._closes = False
        self._discarded_bytes = 0
        self._written_bytes = 0
        self._unsent: Unsent | None = None
        self.held_body = HeldBody(reception)
        self.peer = ""
        self.is_paused = False

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer} {self._state.name}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "local"
        self._unsent = Unsent(self._transport)
        set_nodelay(transport)
        self._deadline = self._reception.now() + self._limits.head_timeout
        self._reception.connections.add(self)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is ConnectionState.HEAD or state is ConnectionState.BODY:
            self._receive(data)
        elif state is ConnectionState.ANSWERING:
            self._reader.feed(data)
            if self._reader.has_excess:
                self._closes = True
                self._discard(len(data))
        elif state is ConnectionState.STREAMING:
            if self._stream is not None and self._stream.intake is not None:
                self._stream.intake.take(data)
        else:
            self._discard(len(data))

    def eof_received(self) -> bool:
        if self._stream is not None:
            self._stream.depart()  # a half-close counts as departure, as in Go's server
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = ConnectionState.CLOSED
        self._reception.connections.discard(self)
        self.held_body.release()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.depart()
        self._reader.close()

    def pause_writing(self) -> None:
        self.is_paused = True
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._stream is not None:
            self._stream.resume()

    def _receive(self, data: bytes) -> None:
        reader = self._reader
        starts = reader.is_idle
        try:
            reader.feed(data)
            if reader.head is None:
                if starts:
                    self._deadline = self._reception.now() + self._limits.head_timeout
                return
            if self._state is ConnectionState.HEAD:
                self._judge(reader.head)
            if reader.body_bytes:
                self._count_body()
        except Fault as fault:
            if not fault.delay:
                self._refuse(fault)
            elif self._reception.hold(self, fault):
                self._state = ConnectionState.HELD
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.pause_reading()
            else:
                self.abort()  # too many clients guess keys at the same time: none of them gets an answer
            return
        stream = self._stream
        if stream is not None and stream.intake is not None:
            self._begin_streaming(stream, stream.intake)
        elif reader.is_complete or (stream is not None and not stream.takes_body):
            self._begin()
        else:
            self._deadline = self._reception.now() + self._limits.body_timeout

    def _judge(self, head: RequestHead) -> None:
        self._state = ConnectionState.BODY
        self._stream = stream = ClientStream(self, head, self._reception.next_request_id(), self._limits.max_body_bytes)
        if self._reception.is_draining:
            raise Fault(DRAINING, "the hub is shutting down")
        has_expectation = head.is_http11 and b"expect" in head.fields
        if has_expectation and not head.expects_continue:
            raise Fault(EXPECTATION_FAILED, "the only expectation known here is 100-continue")
        self._handler.judge(stream)
        if head.content_length is not None and head.content_length > stream.max_body_bytes and stream.intake is None:
            raise _too_large(stream.max_body_bytes)
        if has_expectation and head.has_body and not self._reader.body_bytes and stream.takes_body:
            self.write(_CONTINUE)

    def _count_body(self) -> None:
        size, stream = self._reader.body_bytes, self._stream
        assert stream is not None
        if stream.intake is not None:
            return  # the handler takes the body as it comes, so the hub keeps no part of it
        if size > stream.max_body_bytes:
            raise _too_large(stream.max_body_bytes)
        self.held_body.hold(size)

    def _begin(self) -> None:
        self._state = ConnectionState.ANSWERING
        stream = self._stream
        assert stream is not None
        stream.body = self._reader.take_body()
        if self._reader.has_excess or not self._reader.is_complete:
            self._closes = True
        self._handler.begin(stream)

    def _begin_streaming(self, stream: ClientStream, intake: BodyIntake) -> None:
        """Call the handler before the body. An answer that starts before the body ends is the connection's last."""
        reader = self._reader
        assert self._transport is not None
        self._state = ConnectionState.ANSWERING if reader.is_complete else ConnectionState.STREAMING
        self._closes = reader.has_excess or not reader.is_complete
        intake.open(self, reader, self._transport, self._reception.now, self._limits.body_timeout)
        self._handler.begin(stream)

    def end_body(self) -> None:
        """Note that the streamed body is whole."""
        if self._state is ConnectionState.STREAMING:
            self._state = ConnectionState.ANSWERING
            if self._stream is not None and not self._stream.has_started:
                self._closes = self._reader.has_excess

    def break_body(self, fault: Fault) -> None:
        """End a streamed body that will never be whole.

        The handler is told that the client is gone. The client is told the fault if no answer has begun.
        """
        stream = self._stream
        if self._state is not ConnectionState.STREAMING or stream is None:
            return
        stream.depart()
        if stream.has_started:
            self.abort()
            return
        self._stream = ClientStream(self, stream.head, stream.request_id)
        self._stream.intake = stream.intake
        self._refuse(fault)

    def refuse_now(self, fault: Fault) -> None:
        """Send a refusal that was held back."""
        if self._state is ConnectionState.HELD and self._transport is not None and not self._transport.is_closing():
            self._refuse(fault)
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _refuse(self, fault: Fault) -> None:
        """Answer early with an error: the rest of the request is not wanted."""
        stream, reader = self._stream, self._reader
        request_id = stream.request_id if stream else self._reception.next_request_id()
        status, fields, body = self._handler.refuse(reader.head, request_id, fault)
        is_whole = reader.is_complete and stream is not None
        self._closes = self._closes or not is_whole or reader.has_excess
        if stream is None:
            head = RequestHead("GET", "/", "", True, {}, keep_alive=False)
            stream = self._stream = ClientStream(self, head, request_id)
        self._state = ConnectionState.ANSWERING
        reader.take_body()
        stream.send(status, fields, body)

    def hand_over(self, head: bytes, protocol: asyncio.Protocol) -> None:
        """Send a head and let another protocol have the connection; refuse if a byte came too early."""
        transport = self._transport
        if self._reader.has_excess:
            self._refuse(Fault(BAD_REQUEST, "bytes of another protocol before it was agreed on"))
        elif transport is not None and not transport.is_closing():
            self._reception.outbox.write(transport, head)
            self.connection_lost(None)
            self._transport = None
            transport.set_protocol(protocol)
            protocol.connection_made(transport)

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._written_bytes += len(data)
            self._reception.outbox.write(transport, data)

    def flush(self) -> None:
        """Write now the bytes that wait for the end of the turn."""
        self._reception.outbox.flush()

    def own_lines(self, head: RequestHead) -> bytes:
        """Return the header lines of the connection: the date, and whether the connection stays open."""
        reception = self._reception
        if self._closes or not head.keep_alive or reception.is_draining:
            self._closes = True
            return reception.date_line + b"Connection: close\r\n"
        return reception.date_line if head.is_http11 else reception.date_line + b"Connection: keep-alive\r\n"

    def close_after_answer(self) -> None:
        """Make the coming answer the last one."""
        self._closes = True

    def answered(self) -> None:
        """Note that the answer is whole: wait for the next request, or close."""
        stream, self._stream = self._stream, None
        if stream is not None and stream.intake is not None:
            stream.intake.leave()
        self.held_body.release()
        if self._state is ConnectionState.CLOSED or self._transport is None:
            return
        has_unread = not self._reader.is_complete or self._reader.has_excess
        if self._closes and has_unread:
            self._linger()
        elif self._closes:
            self.close()
        else:
            self._reader.restart()
            self._state = ConnectionState.HEAD
            self._deadline = self._reception.now() + self._limits.keep_alive_timeout

    def close(self) -> None:
        """Close the connection once all written bytes have left."""
        self._state = ConnectionState.CLOSED
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now; written bytes that have not left are lost."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close the connection now with a reset, so that the client cannot mistake it for the end of an answer."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING)
        self.abort()

    def close_if_idle(self) -> None:
        """Close the connection if nothing is under way on it."""
        if self._state is ConnectionState.HEAD and self._reader.is_idle and self._transport is not None:
            self._state = ConnectionState.CLOSED
            self._transport.close()

    def _linger(self) -> None:
        assert self._transport is not None
        self._state = ConnectionState.LINGER
        self._deadline = self._reception.now() + self._limits.linger_timeout
        self.flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > LINGER_BYTES:
            self.abort()

    def sweep(self, now: float) -> None:
        """Close the connection if something on it took too long."""
        limits = self._limits
        if self._transport is None or self._unsent is None:
            return
        if self._unsent.is_stalled(self._written_bytes, now, limits.send_timeout):
            self.abort()
        elif self._state is ConnectionState.LINGER:
            if self.has_unsent:
                self._deadline = now + limits.linger_timeout  # it counts only after the answer has left
            elif now >= self._deadline:
                self.abort()
        elif self._state is ConnectionState.STREAMING:
            if self._stream is not None and self._stream.intake is not None:
                self._stream.intake.check_deadline(now)
        elif self._state in (ConnectionState.HEAD, ConnectionState.BODY) and now >= self._deadline:
            if self._state is ConnectionState.HEAD and self._reader.is_idle:
                self._state = ConnectionState.CLOSED
                self._transport.close()
            else:
                self._refuse(Fault(REQUEST_TIMEOUT, "the request took too long to arrive"))

    @property
    def is_busy(self) -> bool:
        """Is a request under way, or an answer that the client has not taken?"""
        return self._state in _BUSY or self.has_unsent

    def end(self) -> None:
        """Refuse a request that still arrives or is held back, because the hub ends."""
        fault = Fault(DRAINING, "the hub is shutting down")
        if self._state in (ConnectionState.BODY, ConnectionState.HELD) and self._transport is not None:
            self._refuse(fault)
        self.break_body(fault)

    @property
    def has_unsent(self) -> bool:
        """Do bytes of an answer still wait for the client?"""
        return self._transport is not None and bool(self._unsent)


_BUSY = (ConnectionState.BODY, ConnectionState.HELD, ConnectionState.ANSWERING, ConnectionState.STREAMING)


def _too_large(limit: int) -> Fault:
    return Fault(BODY_TOO_LARGE, f"the request body is larger than {limit} bytes")
