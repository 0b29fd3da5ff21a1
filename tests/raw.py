"""Bytes over a socket to a hub: what an HTTP library would hide or refuse to send."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """One answer as it arrived; `body` without its framing."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes
    is_whole: bool = True
    """Did the framing end as it should?"""
    interim: list[int] = field(default_factory=list)
    """The 1xx before it."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.lines if key.lower() == name.lower()), None)

    def json(self) -> dict[str, object]:
        decoded: dict[str, object] = json.loads(self.body)
        return decoded

    def ndjson(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.body.splitlines()]


class Wire:
    """One connection to a hub."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_anyway(self, data: bytes) -> None:
        """Send as much as the hub lets us."""
        try:
            self.sock.sendall(data)
        except OSError:
            pass

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            return False
        self._rest += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Return the bytes up to the mark and with it; fails if the connection ends before."""
        while mark not in self._rest:
            assert self._more(), f"closed before {mark!r}: {self._rest!r}"
        data, _, self._rest = self._rest.partition(mark)
        return data + mark

    def rest(self) -> bytes:
        """Return everything until the hub closes in good order; fails on a reset."""
        while True:
            data = self.sock.recv(65536)
            if not data:
                break
            self._rest += data
        data, self._rest = self._rest, b""
        return data

    def answer(self, *, is_head: bool = False) -> Answer:
        """Read one answer, by its framing."""
        interim: list[int] = []
        while True:
            head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(head[0].split(" ")[1])
            if status >= 200:
                break
            interim.append(status)
        lines = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)]
        body, is_whole = self._body(status, lines, is_head=is_head)
        return Answer(status, lines, body, is_whole, interim)

    def _body(self, status: int, lines: list[tuple[str, str]], *, is_head: bool) -> tuple[bytes, bool]:
        fields = {name.lower(): value for name, value in lines}
        if is_head or status in (204, 304):
            return b"", True
        if "content-length" in fields:
            return self._exactly(int(fields["content-length"]))
        if fields.get("transfer-encoding") != "chunked":
            while self._more():
                pass
            body, self._rest = self._rest, b""
            return body, True
        pieces: list[bytes] = []
        while True:
            while b"\r\n" not in self._rest:
                if not self._more():
                    return b"".join(pieces), False
            size = int(self.until(b"\r\n"), 16)
            piece, is_whole = self._exactly(size + 2)
            pieces.append(piece[:size])
            if not is_whole or size == 0:
                return b"".join(pieces), is_whole

    def _exactly(self, count: int) -> tuple[bytes, bool]:
        while len(self._rest) < count:
            if not self._more():
                data, self._rest = self._rest, b""
                return data, False
        data, self._rest = self._rest[:count], self._rest[count:]
        return data, True

    def is_closed(self) -> bool:
        """Does the hub close the connection, with no byte before?"""
        try:
            data = self._rest or self.sock.recv(1)
        except ConnectionError:
            return True
        assert not data, f"more bytes: {data!r}"
        return True

    def is_open(self) -> bool:
        """Does another request on it get an answer?"""
        self.send(b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return self.answer().status == 200


def request(
    path: str = "/api/generate",
    body: object = None,
    *,
    method: str = "POST",
    head: str = "",
    host: str = "localhost",
) -> bytes:
    """Return a request; `head` are header lines, each with its line end."""
    if method == "POST" and body is None:
        body = {"model": "tiny", "prompt": "hello"}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}\r\n" if data or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{head}{length}\r\n".encode("latin-1") + data


def get(path: str, head: str = "") -> bytes:
    """Return a GET request."""
    return request(path, method="GET", head=head)


def ask(port: int, data: bytes) -> Answer:
    """Send a request on a connection of its own; return the answer."""
    with Wire(port) as wire:
        wire.send_anyway(data)
        return wire.answer()


def metric(port: int, name: str, admin_key: str, **labels: str) -> float:
    """Return the sum of a metric's samples that carry these labels."""
    text = ask(port, get("/metrics", f"Authorization: Bearer {admin_key}\r\n")).body.decode()
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items()):
            total += float(found[3])
    return total


def eventually(is_true: Callable[[], bool], timeout: float = 5.0) -> float:
    """Wait for a condition; return after how many seconds it held. Fails when it does not in time."""
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < timeout, "it did not come true in time"
        time.sleep(0.005)
    return time.monotonic() - began


GENERATE = {"model": "tiny", "prompt": "hello", "stream": False}
STREAM = {"model": "tiny", "prompt": "hello"}
