"""A node played by hand: one blocking socket each, frames as the test writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from hive.net.joined import JoinedSocket
from hive.net.joined_link import JoinedPool
from hive.testing.hub import ThreadedHub
from hive.wire.link_messages import (
    Accepted,
    Ended,
    EndError,
    Hello,
    JoinData,
    Message,
    ReportedEngine,
    json_object,
)
from hive.wire.link_socket import LinkSocket, Side

from .raw import Wire, eventually
from .wire.linking import BINARY, TEXT, from_node

OFFER = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: hive-link-1\r\n"
)
INSTANCE = "0123456789abcdef"
OTHER_INSTANCE = "fedcba9876543210"
TINY = {"name": "tiny:latest", "model": "tiny:latest", "size": 1, "digest": "a" * 64}
TAGS = {"models": [TINY | {"modified_at": "2026-01-01T00:00:00Z"}]}


def upgrade(key: str, head: str = OFFER, path: str = "/hive/link", start: str = "GET") -> bytes:
    """Return the request of a node."""
    line = f"{start} {path} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{line}Authorization: Bearer {key}\r\n{head}\r\n".encode()


def an_engine(name: str = "ollama", **changes: object) -> ReportedEngine:
    """An Ollama with the model `tiny`, in memory."""
    listed = json_object(json.dumps(TAGS).encode())
    known: dict[str, object] = {"kind": "ollama", "version": "0.33.0", "address": "http://127.0.0.1:11434", "slots": 4}
    return ReportedEngine(name, **(known | {"tags": listed, "ps": listed} | changes))  # type: ignore[arg-type]


class NodeWire(Wire):
    """One connection of a node to a hub."""

    def __init__(self, hub: ThreadedHub, key: str, receive_buffer: int | None = None) -> None:
        super().__init__(hub.port, receive_buffer)
        self.socket = LinkSocket(Side.NODE, 0.0)
        self._held: list[str | bytes] = []
        self.send(upgrade(key))
        head = self.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.socket.receive(self._rest, 0.0)
        self._rest = b""

    def say(self, *messages: Message | str | bytes) -> None:
        """Send messages: bytes as binary, all else as text, together."""
        self.send(b"".join(from_node(one, BINARY if isinstance(one, bytes) else TEXT) for one in messages))

    def hear(self) -> str | bytes | None:
        """Return the next message; None when the hub has closed (then `closed` says why)."""
        while True:
            message = self.socket.next_message()
            if message is not None:
                return message
            if self.socket.closed is not None:
                return None
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if data:
                self.socket.receive(data, 0.0)
            else:
                self.socket.receive_eof(0.0)

    def text(self, kind: str) -> dict[str, object]:
        """Return the next text message, which is of this type; beats, and other numbers of links, are skipped."""
        while True:
            message = self.hear()
            assert isinstance(message, str), (message, self.socket)
            read: dict[str, object] = json.loads(message)
            if read["type"] == kind:
                return read
            assert read["type"] in ("beat", "links"), read

    @property
    def code(self) -> int:
        """Read to the end; return the code that the hub closed with."""
        while self.hear() is not None:
            pass
        assert self.socket.closed is not None
        self.send_anyway(self.socket.take_output())
        return self.socket.closed.code

    @property
    def reason(self) -> str:
        """Why the hub closed; after `code`."""
        assert self.socket.closed is not None
        return self.socket.closed.reason


class DataWire(NodeWire):
    """A data socket."""

    def __init__(self, hub: ThreadedHub, key: str, session: str, receive_buffer: int | None = None) -> None:
        super().__init__(hub, key, receive_buffer)
        self.say(JoinData(session))

    def opened(self) -> str:
        """Return the id of the exchange that the hub opens next."""
        return str(self.text("open")["id"])

    def request(self) -> tuple[str, bytes, bytes]:
        """Return id, head and body of the next exchange."""
        exchange = self.opened()
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._binary()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(body) < length:
            body += self._binary()
        return exchange, head, body

    def _binary(self) -> bytes:
        message = self.hear()
        assert isinstance(message, bytes), (message, self.socket)
        return message

    def answer(self, exchange: str, data: bytes, error: EndError | None = None) -> None:
        """Accept, answer and end an exchange, in one write."""
        self.say(Accepted(exchange), data, Ended(exchange, error))


@dataclass
class RawNode:
    """A session of a node: its control socket, and what is needed for data sockets."""

    hub: ThreadedHub
    key: str
    name: str
    control: NodeWire
    welcome: dict[str, object]
    wires: ExitStack = field(repr=False)

    @property
    def session(self) -> str:
        return str(self.welcome["session"])

    def data(self, receive_buffer: int | None = None) -> DataWire:
        """Dial a data socket, and wait until the hub has it as a spare."""
        before = len(pool_of(self.hub, self.name))
        wire = self.wires.enter_context(DataWire(self.hub, self.key, self.session, receive_buffer))
        eventually(lambda: len(pool_of(self.hub, self.name)) > before)
        return wire


def pool_of(hub: ThreadedHub, name: str = "desk") -> JoinedPool:
    """Return the pool of a node's data sockets: to look at, from this thread."""
    return hub.call(lambda server: server.hub.joining.nodes[name].pool)


@contextmanager
def joined(
    hub: ThreadedHub, name: str = "desk", *engines: ReportedEngine, key: str = "", **more: object
) -> Iterator[RawNode]:
    """A node that has joined with these engines (one Ollama if none is given); `more` goes into its hello."""
    key = key or hub.create_key(name, "worker")
    hello = Hello(**({"instance": INSTANCE, "agent": "by hand", "engines": engines or (an_engine(),)} | more))  # type: ignore[arg-type]
    with ExitStack() as wires:
        control = wires.enter_context(NodeWire(hub, key))
        control.say(hello)
        yield RawNode(hub, key, name, control, control.text("welcome"), wires)


def let_pass(hub: ThreadedHub, seconds: float, kind: type[JoinedSocket] = JoinedSocket) -> None:
    """Let time pass for the links of a hub, or some kind of them, in ticks as they come, without waiting for it."""

    def tick(offset: float) -> None:
        def run(server: object) -> None:
            joining = server.hub.joining  # type: ignore[attr-defined]
            now = joining.sockets.now() + offset
            for one in list(joining.sockets):
                if isinstance(one, kind):
                    one.tick(now)

        hub.call(run)

    offset = 0.0
    while offset < seconds:
        offset += 1.0
        tick(offset)
