"""A client's connection played by hand: what an answer writes on it, without a socket."""

from __future__ import annotations

from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead


class ClientWire:
    """Takes the bytes of answers. `is_paused`: the client takes none just now."""

    def __init__(self, *, is_paused: bool = False) -> None:
        self.is_paused = is_paused
        self.peer = "127.0.0.1"
        self.sent = b""
        self.is_answered = self.is_cut = False

    def stream(self) -> ClientStream:
        """Return the stream of one request on this connection."""
        head = RequestHead("POST", "/api/chat", "", True, {})
        return ClientStream(self, head, "req_1")  # type: ignore[arg-type]

    @property
    def body(self) -> bytes:
        """Return the body of the answer, without its framing."""
        head, _, rest = self.sent.partition(b"\r\n\r\n")
        if b"Transfer-Encoding: chunked" not in head:
            return rest
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return body

    # --- what a stream asks of its connection ---

    def write(self, data: bytes) -> None:
        self.sent += data

    def own_lines(self, head: RequestHead) -> bytes:
        return b""

    def answered(self) -> None:
        self.is_answered = True

    def close(self) -> None:
        self.is_cut = True

    abort = close
