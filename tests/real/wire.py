"""One HTTP/1.1 request on a connection of its own, with nothing between the test and the bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """A whole answer. `framing` says how the body's end is told: chunked, length, close or none."""

    status: int
    headers: Headers
    body: bytes
    framing: str
    is_whole: bool

    def header(self, name: str) -> str | None:
        """Return the values of a header joined by commas, or None."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else None

    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)


class Stream:
    """A request whose answer is read as it comes. Iterating yields the body's bytes without their framing."""

    def __init__(
        self,
        url: str,
        method: str,
        path: str,
        body: object = None,
        headers: Headers = (),
        *,
        timeout: float = 30.0,
        receive_buffer: int | None = None,
    ) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self.is_whole = False
        """Has the end of the answer been seen, as its framing tells it?"""
        self._method = method
        self._socket = socket.socket()
        self._socket.settimeout(timeout)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._file = self._socket.makefile("rb")
        try:
            self._socket.connect((target.hostname, target.port))
            self._socket.sendall(_request(target.netloc, method, target.path + path, body, headers))
        except BaseException:
            self.close()
            raise

    def read_head(self) -> tuple[int, Headers, str]:
        """Read and return status, headers and framing."""
        status_line = self._file.readline()
        if not status_line.startswith(b"HTTP/1.1 "):
            raise ConnectionError(f"expected a status line, got {status_line!r}")
        status = int(status_line.split()[1])
        headers = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        lower = {name.lower(): value for name, value in headers}
        self._length = int(lower.get("content-length", 0))
        if self._method == "HEAD" or status in (204, 304):
            framing = "none"
        elif lower.get("transfer-encoding", "").lower() == "chunked":
            framing = "chunked"
        elif "content-length" in lower:
            framing = "length"
        else:
            framing = "close"
        self._framing = framing
        return status, headers, framing

    def __iter__(self) -> Iterator[bytes]:
        if self._framing == "chunked":
            yield from self._chunks()
            return
        if self._framing == "length":
            data = self._file.read(self._length)
            self.is_whole = len(data) == self._length
        else:
            data = self._file.read() if self._framing == "close" else b""
            self.is_whole = True
        if data:
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while (line := self._file.readline()).endswith(b"\r\n"):
            size = int(line, 16)
            data = self._file.read(size + 2)
            if size == 0:
                self.is_whole = data == b"\r\n"
                return
            yield data[:size]
            if len(data) < size + 2:
                return

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines, an unfinished last one too."""
        rest = b""
        for piece in self:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def close(self) -> None:
        """Go away, whatever is still to come."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _request(host: str, method: str, path: str, body: object, headers: Headers) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {name.lower() for name, _ in headers}
    lines = [f"{method} {path or '/'} HTTP/1.1", "Connection: close"]
    if "host" not in given:
        lines.append(f"Host: {host}")
    if body is not None:
        lines.append(f"Content-Length: {len(data)}")
        if "content-type" not in given:
            lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


def ask(
    url: str, method: str, path: str, body: object = None, headers: Headers = (), *, timeout: float = 30.0
) -> Answer:
    """Send one request and return its whole answer."""
    with Stream(url, method, path, body, headers, timeout=timeout) as stream:
        status, received, framing = stream.read_head()
        data = b"".join(stream)
        return Answer(status, received, data, framing, stream.is_whole)
