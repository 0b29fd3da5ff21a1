"""The common part of the simulated engine's tests: a client that sees bytes, and a client that sees messages."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from hive.testing import ThreadedEngine

PATIENCE = 20.0


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> dict[str, object]:
        decoded: dict[str, object] = json.loads(self.body)
        return decoded

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.body.splitlines()]

    def words(self) -> str:
        return "".join(str(line.get("response", "")) for line in self.lines())


class Client:
    """Sends requests to one engine."""

    def __init__(self, engine: ThreadedEngine) -> None:
        self.engine = engine

    def ask(self, path: str, body: object = None, method: str = "", **headers: str) -> Answer:
        """Send one request on its own connection; return the answer. A broken answer raises an error of http.client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.engine.port, timeout=PATIENCE)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            method = method or ("GET" if data is None else "POST")
            connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    @contextmanager
    def raw(self, path: str, body: object = None, headers: str = "") -> Iterator[socket.socket]:
        """Yield a socket on which the request has been sent."""
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.engine.port), timeout=PATIENCE) as link:
            link.sendall(head.encode() + data)
            yield link


def read_until(link: socket.socket, mark: bytes) -> bytes:
    """Return the bytes up to the mark. Fails when the connection ends before."""
    data = b""
    while mark not in data:
        more = link.recv(65536)
        assert more, f"closed before {mark!r}: {data!r}"
        data += more
    return data


def read_all(link: socket.socket) -> bytes:
    """Return the bytes until the engine closes."""
    data = b""
    while more := link.recv(65536):
        data += more
    return data


@pytest.fixture(name="read_until")
def _read_until() -> object:
    return read_until


@pytest.fixture(name="read_all")
def _read_all() -> object:
    return read_all


@pytest.fixture(name="client_of")
def _client_of() -> type[Client]:
    return Client
