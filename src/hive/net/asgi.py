"""Serves an ordinary ASGI application on client streams: for everything off the data path (ASGI 3.0, HTTP).

An answer in one piece leaves in one write, with its length. An answer in several pieces leaves as it comes; its head
leaves with the first byte of its body. `await send` returns when the client's connection takes more bytes, so a slow
client costs a bounded amount of memory. When a client leaves, `receive` returns `http.disconnect`, and `send` raises
`ConnectionResetError` for a further piece, as in ASGI 2.4. The scope says 2.3: with 2.3 frameworks wait for
`http.disconnect` while a stream is quiet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from hive.net.stream import ClientStream

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

APPLICATION_FAREWELL = 5.0
"""An application is cancelled this many seconds after its client has left or its answer was ended."""
EVENT_STREAM = b"text/event-stream"
_FRAMING = frozenset({b"transfer-encoding", b"connection"})
_BODILESS = (204, 304)

_log = logging.getLogger(__name__)


class UnfitAnswerError(Exception):
    """The messages of an application break ASGI's rules, or its body does not have its Content-Length."""


def _scope(stream: ClientStream, extra: dict[str, object]) -> Scope:
    head = stream.head
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1" if head.is_http11 else "1.0",
        "method": head.method,
        "scheme": "http",
        "path": unquote(head.path),
        "raw_path": head.path.encode("latin-1"),
        "query_string": head.query.encode("latin-1"),
        "root_path": "",
        "headers": list(head.fields.items()),
        "client": (stream.peer, 0),
        "server": None,
        "hive": extra,
    }


class AsgiBridge:
    """Lets applications answer requests, and keeps the answers that are under way."""

    def __init__(self) -> None:
        self._answers: set[_Answer] = set()
        self._is_draining = False

    async def run(self, app: Application, stream: ClientStream, extra: dict[str, object], fields: bytes) -> None:
        """Let an application answer a request; `fields` are header lines that the hub adds to the answer.

        Raises every error of the application, and `UnfitAnswerError`. If `stream.has_started` then, the answer is cut.
        """
        answer = _Answer(stream, fields, is_draining=self._is_draining)
        self._answers.add(answer)
        try:
            async with asyncio.timeout(None) as limit:
                answer.limit = limit
                answer.follow()
                await app(_scope(stream, extra), answer.receive, answer.send)
            answer.check_whole()
        except ConnectionResetError:
            if not answer.is_over:
                raise
        except TimeoutError:
            if not limit.expired():
                raise
            _log.warning("request %s: its answer is over, but not its application: it is cancelled", stream.request_id)
        finally:
            self._answers.discard(answer)
            answer.leave()

    def end_event_streams(self) -> None:
        """End the event streams, which have no end of their own. A later event stream ends after its first piece.

        Other answers go on to their end.
        """
        self._is_draining = True
        for answer in list(self._answers):
            answer.end_event_stream()


class _Answer:
    """One answer of an application, on its way to the client."""

    def __init__(self, stream: ClientStream, fields: bytes, *, is_draining: bool) -> None:
        self._stream = stream
        self._fields = fields
        self._is_draining = is_draining
        self._is_request_told = False
        self._status: int | None = None
        self._lines = b""
        self._length: int | None = None
        """The Content-Length that the application has set; None if there is none, or if it is no number."""
        self._is_event_stream = False
        self._over = asyncio.Event()
        """Set when the client has left or has the whole answer."""
        self._room = asyncio.Event()
        """Set while the client's connection takes bytes, and when nothing more is sent."""
        self.limit: asyncio.Timeout | None = None

    @property
    def is_over(self) -> bool:
        """Is the answer over, so that nothing more is sent?"""
        return self._over.is_set()

    def follow(self) -> None:
        """Ask the stream to report when its client leaves, takes no more bytes, or takes bytes again."""
        stream = self._stream
        stream.on_departure, stream.on_pause, stream.on_resume = self._depart, self._pause, self._room.set
        if not stream.is_paused:
            self._room.set()
        if stream.has_departed:
            self._depart()

    def leave(self) -> None:
        """Take no more reports of the stream; cut an answer that is not whole."""
        stream = self._stream
        stream.on_departure = stream.on_pause = stream.on_resume = None
        if stream.has_started:
            stream.cut()

    def check_whole(self) -> None:
        """Raise `UnfitAnswerError` if the application has ended before its answer was whole."""
        if not self.is_over:
            raise UnfitAnswerError("the application ended before its answer did")

    def end_event_stream(self) -> None:
        """End the answer between two pieces, if it is an event stream."""
        self._is_draining = True
        if self._is_event_stream and not self.is_over:
            self._begin()
            self._finish()
            self._hurry()

    def _depart(self) -> None:
        self._end()
        self._hurry()

    def _pause(self) -> None:
        if not self.is_over:
            self._room.clear()

    def _end(self) -> None:
        self._over.set()
        self._room.set()

    def _hurry(self) -> None:
        """Give the application a little time to end: its further messages are not wanted."""
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time() + APPLICATION_FAREWELL)

    async def receive(self) -> Message:
        """Return the request, then wait for the end."""
        if not self._is_request_told:
            self._is_request_told = True
            return {"type": "http.request", "body": self._stream.body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a piece of the answer; return when the client takes more."""
        if message["type"] == "http.response.start":
            self._take_head(message)
        elif message["type"] == "http.response.body":
            self._take_body(bytes(message.get("body", b"")), has_more=bool(message.get("more_body", False)))
            await asyncio.sleep(0)  # the outbox writes at the end of this turn, and the connection pauses only then
            await self._room.wait()

    def _take_head(self, message: Message) -> None:
        if self._stream.has_started:
            return
        lines: list[bytes] = []
        lengths: list[bytes] = []
        is_event_stream = False
        for name, value in message.get("headers", ()):
            known = bytes(name).lower()
            if known == b"content-length":
                lengths.append(bytes(value).strip())
            elif known not in _FRAMING:
                lines.append(bytes(name) + b": " + bytes(value) + b"\r\n")
            if known == b"content-type":
                is_event_stream = bytes(value).lower().startswith(EVENT_STREAM)
        self._status = message["status"]
        self._lines = b"".join(lines) + self._fields
        is_number = len(lengths) == 1 and lengths[0].isdigit()  # of bytes: ASCII digits only
        self._length = int(lengths[0]) if is_number else None
        self._is_event_stream = is_event_stream and self._length is None

    def _take_body(self, data: bytes, *, has_more: bool) -> None:
        if self.is_over:
            if has_more:
                raise ConnectionResetError("the client has left, or has its answer")
            return
        if self._status is None:
            raise UnfitAnswerError("a body came before its head")
        if not self._stream.has_started:
            if has_more and not data:
                return  # the head waits for the first byte: until then a failure can become an error for the client
            if self._is_bodiless:
                self._send_head(len(data), has_more=has_more)
                return
            if not has_more:
                self._stream.send(self._status, self._lines, data)
                self._end()
                return
            self._begin()
        self._write(data)
        if not has_more:
            self._finish()
        elif self._is_draining and self._is_event_stream:
            self._finish()
            self._hurry()

    @property
    def _is_bodiless(self) -> bool:
        return self._stream.head.method == "HEAD" or self._status in _BODILESS

    def _send_head(self, size: int, *, has_more: bool) -> None:
        """Answer without a body; for HEAD with the length that the body would have, if that is known."""
        assert self._status is not None
        if self._status in _BODILESS:
            self._stream.send(self._status, self._lines, b"")
            self._end()
        else:
            if self._length is None and size and not has_more:
                self._length = size
            self._begin()
            self._stream.finish()
            self._end()
        if has_more:
            self._hurry()

    def _begin(self) -> None:
        assert self._status is not None
        if not self._stream.has_started:
            self._stream.start(self._status, self._lines, self._length)

    def _write(self, data: bytes) -> None:
        if self._length is not None and self._stream.bytes_sent + len(data) > self._length:
            raise UnfitAnswerError(f"the body is longer than its Content-Length, {self._length}")
        if data:
            self._stream.write(data)

    def _finish(self) -> None:
        if self._length is not None and self._stream.bytes_sent < self._length:
            raise UnfitAnswerError(f"the body is shorter than its Content-Length, {self._length}")
        self._stream.finish()
        self._end()
