"""Reads an engine's HTTP/1.1 answers from bytes, and trusts none of them.

`begin` announces that a request was sent; `feed` returns the bytes of the body. Interim answers (1xx) and trailers are
dropped. A byte outside an answer, a wrong length and a head that is too large are a `GarbledAnswer`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import httptools

_FORBIDS_BODY = frozenset({204, 304})


class GarbledAnswer(Exception):  # noqa: N818 - it names what arrived
    """The engine sent something that is not valid HTTP."""


@dataclass(slots=True)
class ResponseHead:
    """The head of an engine's answer. Names are in lower case; repeated fields are kept apart."""

    status: int
    fields: list[tuple[bytes, bytes]]
    content_type: bytes
    content_length: int | None
    is_chunked: bool

    @property
    def is_close_delimited(self) -> bool:
        """Does the body end only with the connection?"""
        return self.content_length is None and not self.is_chunked and self.status not in _FORBIDS_BODY


class ResponseReader:
    """Reads the answers on one connection to an engine, one at a time."""

    __slots__ = (
        "_body",
        "_fields",
        "_is_bodiless",
        "_keep_alive",
        "_max_head_bytes",
        "_more",
        "_overhead_bytes",
        "_parser",
        "can_be_reused",
        "head",
        "is_complete",
    )

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpResponseParser(self)
        self.head: ResponseHead | None = None
        self.is_complete = True
        self.can_be_reused = False
        """May the connection carry another exchange after this answer? It is known when the answer is complete."""
        self._keep_alive = False
        self._body: bytes | None = None
        self._more: list[bytes] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._overhead_bytes = 0
        self._is_bodiless = False

    def close(self) -> None:
        """Let go of the parser, which knows the reader: the connection has ended."""
        self._body, self._more = None, []
        with suppress(AttributeError):  # it was closed before
            del self._parser

    def begin(self, is_bodiless: bool = False) -> None:
        """Note that a request was sent, so an answer may come now.

        `is_bodiless`: the request is a HEAD, whose answer ends with its head (RFC 9112, 6.3).
        """
        self.head = None
        self._is_bodiless = is_bodiless
        self.is_complete = self.can_be_reused = False
        self._fields = []
        self._overhead_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the engine; return the bytes of the body among them. Raises `GarbledAnswer`."""
        if self.is_complete:
            raise GarbledAnswer("bytes after the end of an answer")
        had_head = self.head is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise GarbledAnswer("an answer that switches protocols") from None
        except httptools.HttpParserError as error:
            if not self._ended_by_itself():
                raise GarbledAnswer(str(error).split("\n")[0][:100] or "malformed answer") from None
        if not had_head and self._overhead_bytes + len(data) > self._max_head_bytes:
            end = data.find(b"\r\n\r\n") + 4
            self._bound_overhead(end if end > 3 else min(len(data), 3))  # at most 3 bytes of a cut end stand here
        body = self._body
        if body is None:
            if not self.is_complete:
                self._bound_overhead(len(data))
            elif data.endswith(b"\r\n\r\n\r\n"):
                self.can_be_reused = False
            return b""
        self._body = None
        self._overhead_bytes = 0
        if self._more:
            body += b"".join(self._more)
            self._more = []
        if self.is_complete and self.can_be_reused:
            self.can_be_reused = self._ends_with(data, body)
        return body

    def _ends_with(self, data: bytes, body: bytes) -> bool:
        """Does nothing follow the answer? llhttp drops an empty line there silently."""
        assert self.head is not None
        if self.head.is_chunked:
            return not data.endswith(b"\r\n\r\n\r\n")
        return data[-8:].endswith(body[-8:])

    def _ended_by_itself(self) -> bool:
        """Did bytes follow a chunked answer, which proves by itself that it is whole? A counted length may be wrong."""
        self.can_be_reused = False
        return self.is_complete and self.head is not None and self.head.is_chunked

    def end_of_connection(self) -> None:
        """Note that the engine closed.

        Completes a body that only the close ends. Raises `GarbledAnswer` for a cut body.
        """
        if self.is_complete:
            return
        if self.head is None or not self.head.is_close_delimited:
            raise GarbledAnswer("the connection ended inside an answer")
        self.is_complete = True

    def _bound_overhead(self, count: int) -> None:
        self._overhead_bytes += count
        if self._overhead_bytes > self._max_head_bytes:
            raise GarbledAnswer(f"more than {self._max_head_bytes} bytes of head, chunk extensions or trailers")

    # The parser calls the methods from here on.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 200:
            if status < 100:
                raise ValueError("a status below 100")
            return
        content_type, length, chunked = b"", None, False
        size = 0
        for name, value in fields:
            size += len(name) + len(value) + 4
            if name == b"content-type":
                content_type = value
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise ValueError("an unknown transfer encoding")
                chunked = True
        if size > self._max_head_bytes:
            raise ValueError("the head is too large")
        self._keep_alive = bool(self._parser.should_keep_alive())  # llhttp forgets this value at the end of the message
        self.head = ResponseHead(status, fields, content_type, length, chunked)
        if self._is_bodiless:
            self.is_complete = True  # llhttp waits for a body, so the connection ends with this answer

    def on_body(self, data: bytes) -> None:
        if self._body is None:
            self._body = data
        else:
            self._more.append(data)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.is_complete = True
            self.can_be_reused = self._keep_alive
