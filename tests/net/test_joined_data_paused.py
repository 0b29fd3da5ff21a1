"""A data socket whose client reads slowly: it is paused, and read again before it is a spare. Without a network."""

from __future__ import annotations

import asyncio

from hive.auth.keys import Key, Role
from hive.errors import Kind
from hive.net.joined import JoinedSockets
from hive.net.joined_data import JoinedConnection
from hive.net.link import Connection
from hive.net.outbox import Outbox
from hive.wire.link_messages import Accepted, Ended
from hive.wire.link_socket import Closed, LinkSocket, Side
from hive.wire.responses import ResponseHead

from ..wire.linking import BINARY, from_node

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n{}"


class HeldTransport(asyncio.Transport):
    """A transport that knows whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class SlowClient:
    """Takes an answer whose client is slow, and the socket afterwards: notes whether it is read then."""

    def __init__(self, transport: HeldTransport) -> None:
        self._transport = transport
        self.connection: JoinedConnection | None = None
        self.events: list[tuple[str, bool]] = []

    def _note(self, event: str) -> None:
        self.events.append((event, self._transport.reads))

    def on_head(self, head: ResponseHead) -> None:
        pass

    def on_body(self, data: bytes) -> None:
        assert self.connection is not None
        self.connection.pause()
        self._note("body")

    def on_complete(self) -> None:
        self._note("complete")

    def on_failure(self, kind: Kind, reason: str) -> None:
        self._note(reason)

    def add(self, connection: JoinedConnection) -> None:
        self.connection = connection

    def put_back(self, connection: JoinedConnection) -> None:
        self._note("put back")

    def note_round_trip(self, seconds: float) -> None:
        pass

    def on_moved(self, connection: Connection) -> None:
        self._note("moved")

    async def wait(self, engine: str) -> JoinedConnection:
        raise AssertionError("no socket is lost here")

    def forget(self, connection: JoinedConnection, closed: Closed) -> None:
        self._note("forget")


def events_of(*reads: bytes) -> list[tuple[str, bool]]:
    """Return what becomes of an exchange whose bytes come in these reads."""

    async def main() -> list[tuple[str, bool]]:
        transport = HeldTransport()
        client = SlowClient(transport)
        sockets = JoinedSockets(Outbox(), lambda: 0.0)
        key = Key("desk", Role.WORKER, b"", "", 0.0)
        connection = JoinedConnection(sockets, key, LinkSocket(Side.HUB, 0.0), client, 65536)
        connection.connection_made(transport)
        connection.send(b"POST /api/generate HTTP/1.1\r\n\r\n", b"", client)
        for data in reads:
            connection.data_received(data)
        sockets.abort()
        return client.events

    return asyncio.run(main())


def test_a_whole_answer_resumes_a_connection_that_its_client_has_paused() -> None:
    """Else `ended`, which is still to come, would not be read."""
    accepted, ended = from_node(Accepted("1")), from_node(Ended("1"))
    paused, last = ("body", False), [("complete", True), ("put back", True)]
    assert events_of(accepted + from_node(COUNTED, BINARY), ended) == [paused, *last]
    assert events_of(accepted + from_node(COUNTED, BINARY) + ended) == [paused, *reversed(last)]


def test_ended_resumes_a_connection_that_its_client_has_paused_before_it_is_a_spare() -> None:
    answer = from_node(Accepted("1")) + from_node(UNTIL_CLOSE, BINARY)
    assert events_of(answer + from_node(Ended("1"))) == [("body", False), ("put back", True), ("complete", True)]
