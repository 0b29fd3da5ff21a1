"""HTTP/1.1 as the engine speaks it: bytes in, requests out, heads and chunks back. No socket and no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 256 * 1024 * 1024
LINE_LIMIT_BYTES = 4096

Headers = tuple[tuple[str, str], ...]


class BadRequest(Exception):  # noqa: N818 - becomes an answer
    """Bytes that are not a request. The message is what the client reads."""


@dataclass(slots=True, eq=False)
class SimRequest:
    """One request. `body` grows until the parser hands the request out."""

    method: str
    target: str
    headers: Headers
    is_http_1_0: bool = False
    body: bytearray = field(default_factory=bytearray)

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return the first header of this lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def wants_close(self) -> bool:
        """Does the connection end after this request?"""
        options = (self.header("connection") or "").lower()
        return "close" in options or (self.is_http_1_0 and "keep-alive" not in options)

    def digest(self) -> str:
        """Return the SHA-256 of the body, in hex."""
        return hashlib.sha256(self.body).hexdigest()


class _Await(Enum):
    HEAD = 0
    LENGTH = 1
    CHUNK_SIZE = 2
    CHUNK = 3
    CHUNK_END = 4
    TRAILER = 5
    TAKEN = 6


class RequestParser:
    """Cuts a connection's bytes into requests: `head` while one arrives, `take` when it is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._await = _Await.HEAD
        self._missing = 0
        self.head: SimRequest | None = None
        """The request whose head has arrived and that was not taken yet."""

    def feed(self, data: bytes) -> None:
        """Add bytes from the peer. Raises BadRequest when they cannot become a request."""
        self._buffer += data
        self._advance()

    def take(self) -> SimRequest | None:
        """Return the next whole request, or None."""
        if self._await is not _Await.TAKEN:
            return None
        request, self.head = self.head, None
        self._await = _Await.HEAD
        self._advance()
        return request

    def _advance(self) -> None:
        steps = {
            _Await.HEAD: self._read_head,
            _Await.LENGTH: self._read_body,
            _Await.CHUNK_SIZE: self._read_chunk_size,
            _Await.CHUNK: self._read_body,
            _Await.CHUNK_END: self._read_chunk_end,
            _Await.TRAILER: self._read_trailer,
        }
        while self._await in steps and steps[self._await]():
            pass

    def _read_head(self) -> bool:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end > HEAD_LIMIT_BYTES or (end < 0 and len(self._buffer) > HEAD_LIMIT_BYTES):
            raise BadRequest("request head too large")
        if end < 0:
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self.head = _parse_head(lines)
        self._expect_body(self.head)
        return True

    def _expect_body(self, request: SimRequest) -> None:
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            self._await = _Await.CHUNK_SIZE
            return
        length = request.header("content-length") or "0"
        if not length.isdecimal() or int(length) > BODY_LIMIT_BYTES:
            raise BadRequest("bad Content-Length")
        self._missing = int(length)
        self._await = _Await.LENGTH

    def _read_body(self) -> bool:
        assert self.head is not None
        taken = min(self._missing, len(self._buffer))
        self.head.body += self._buffer[:taken]
        del self._buffer[:taken]
        self._missing -= taken
        if self._missing:
            return False
        self._await = _Await.TAKEN if self._await is _Await.LENGTH else _Await.CHUNK_END
        return True

    def _read_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", 0, LINE_LIMIT_BYTES)
        if end < 0:
            if len(self._buffer) >= LINE_LIMIT_BYTES:
                raise BadRequest("line too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunk_size(self) -> bool:
        line = self._read_line()
        if line is None:
            return False
        assert self.head is not None
        try:
            self._missing = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadRequest("malformed chunked encoding") from None
        if self._missing + len(self.head.body) > BODY_LIMIT_BYTES:
            raise BadRequest("request body too large")
        self._await = _Await.CHUNK if self._missing else _Await.TRAILER
        return True

    def _read_chunk_end(self) -> bool:
        line = self._read_line()
        if line:
            raise BadRequest("malformed chunked encoding")
        if line is not None:
            self._await = _Await.CHUNK_SIZE
        return line is not None

    def _read_trailer(self) -> bool:
        line = self._read_line()
        if line == b"":
            self._await = _Await.TAKEN
        return line is not None


def _parse_head(lines: list[str]) -> SimRequest:
    method, _, rest = lines[0].partition(" ")
    target, _, version = rest.rpartition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not method or not target:
        raise BadRequest("malformed HTTP request")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest("malformed MIME header")
        headers.append((name, value.strip()))
    return SimRequest(method, target, tuple(headers), version == "HTTP/1.0")


def head_bytes(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a response head, its blank line included."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return the data as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
