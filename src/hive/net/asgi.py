"""Serves an ordinary ASGI application on client streams: for everything off the data path (ASGI 3.0, HTTP)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from hive.net.stream import ClientStream

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


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


async def run_application(app: Application, stream: ClientStream, extra: dict[str, object], fields: bytes) -> None:
    """Let an application answer a request. Its answer is sent whole; `fields` are header lines that it gets besides."""
    is_received = False
    status = 500
    lines: list[bytes] = []
    pieces: list[bytes] = []

    async def receive() -> Message:
        nonlocal is_received
        if is_received:
            return {"type": "http.disconnect"}
        is_received = True
        return {"type": "http.request", "body": stream.body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message.get("headers", ()):
                if name.lower() not in _FRAMING:
                    lines.append(bytes(name) + b": " + bytes(value) + b"\r\n")
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    await app(_scope(stream, extra), receive, send)
    stream.send(status, b"".join(lines) + fields, b"".join(pieces))
