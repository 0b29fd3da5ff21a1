"""A request that streams over a data socket, byte by byte. Without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hive.auth.keys import Key, Role
from hive.errors import NODE_BROKE_OFF, Kind
from hive.net.joined import JoinedSockets
from hive.net.joined_data import JoinedConnection
from hive.net.link import Connection
from hive.net.outbox import LARGE_PIECE_BYTES, Outbox
from hive.net.resend import MAX_RESENDS
from hive.wire.link_messages import Accepted, EndCode, Ended, EndError
from hive.wire.link_rules import BUSY_PONG_SECONDS, PING_SECONDS, SENT_BINARY_BYTES
from hive.wire.link_socket import Closed, LinkSocket, Side
from hive.wire.responses import ResponseHead

from ..wire.linking import BINARY, from_node

HEAD = b"POST /api/blobs/x HTTP/1.1\r\nHost: ollama\r\nContent-Length: 6\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
OPEN = b'\x81\x2a{"type":"open","id":"1","engine":"ollama"}'


class Wire(asyncio.Transport):
    """A transport that keeps what is written; what waits in it is said by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.waiting = 0
        self.is_aborted = False

    def take(self) -> bytes:
        data, self.written = self.written, b""
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_aborted = True


class Scene:
    """One spare, its home, and the sink of its exchange."""

    def __init__(self) -> None:
        self.now = 0.0
        self.outbox = Outbox()
        self.sockets = JoinedSockets(self.outbox, lambda: self.now)
        self.events: list[object] = []
        self.connection, self.wire = self.spare()
        self.others: list[JoinedConnection] = []
        self.other_wires: list[Wire] = []

    def spare(self) -> tuple[JoinedConnection, Wire]:
        key = Key("desk", Role.WORKER, b"", "", 0.0)
        connection, wire = JoinedConnection(self.sockets, key, LinkSocket(Side.HUB, 0.0), self, 65536), Wire()
        connection.connection_made(wire)
        connection.engine = "ollama"
        return connection, wire

    def begin(self) -> bytes:
        self.connection.begin(HEAD, self)
        return self.sent()

    def sent(self) -> bytes:
        self.outbox.flush()
        return self.wire.take()

    def hear(self, *messages: bytes | Accepted | Ended) -> None:
        self.connection.data_received(
            b"".join(from_node(each, BINARY) if isinstance(each, bytes) else from_node(each) for each in messages)
        )

    # --- its home ---

    def add(self, connection: JoinedConnection) -> None:
        pass

    def put_back(self, connection: JoinedConnection) -> None:
        self.events.append("spare")

    def forget(self, connection: JoinedConnection, closed: Closed) -> None:
        pass

    def note_round_trip(self, seconds: float) -> None:
        pass

    async def wait(self, engine: str) -> JoinedConnection:
        connection, wire = self.spare()
        self.others.append(connection)
        self.other_wires.append(wire)
        return connection

    # --- the sink ---

    def on_head(self, head: ResponseHead) -> None:
        self.events.append(head.status)

    def on_body(self, data: bytes) -> None:
        self.events.append(data)

    def on_complete(self) -> None:
        self.events.append("complete")

    def on_failure(self, kind: Kind, reason: str) -> None:
        self.events.append(kind)

    def on_moved(self, connection: Connection) -> None:
        self.events.append("moved")

    def on_full(self, is_full: bool) -> None:
        self.events.append("full" if is_full else "free")


def play(main: Callable[[Scene], object]) -> None:
    async def run() -> None:
        scene = Scene()
        try:
            result = main(scene)
            if asyncio.iscoroutine(result):
                await result
        finally:
            scene.sockets.abort()

    asyncio.run(run())


def binary(data: bytes) -> bytes:
    """Return a frame of the hub."""
    assert len(data) < 126
    return bytes((0x82, len(data))) + data


def test_the_head_goes_first_and_the_body_when_the_node_has_accepted() -> None:
    def main(scene: Scene) -> None:
        assert scene.begin() == OPEN + binary(HEAD)
        scene.connection.write(b"too early")
        assert (scene.sent(), scene.events) == (b"", ["full"])
        scene.hear(Accepted("1"))
        assert scene.events == ["full", "free"]
        scene.connection.write(b"abc")
        scene.connection.write(b"def")
        scene.connection.finish()
        assert scene.sent() == binary(b"abc") + binary(b"def")
        scene.hear(OK, Ended("1"))
        assert scene.events == ["full", "free", 200, b"{}", "spare", "complete"]
        scene.connection.write(b"too late")
        assert scene.sent() == b""

    play(main)


def test_a_large_piece_is_cut_and_written_at_once() -> None:
    def main(scene: Scene) -> None:
        scene.begin()
        scene.hear(Accepted("1"))
        scene.connection.write(bytes(LARGE_PIECE_BYTES))
        assert len(scene.wire.take()) == LARGE_PIECE_BYTES + 4
        scene.connection.write(bytes(SENT_BINARY_BYTES + 10))
        assert len(scene.wire.take()) == SENT_BINARY_BYTES + 10 + 10 + 2

    play(main)


def test_the_sink_hears_when_the_socket_takes_no_more() -> None:
    def main(scene: Scene) -> None:
        scene.begin()
        scene.connection.pause_writing()
        scene.hear(Accepted("1"))
        assert scene.events == ["full", "full"]
        scene.connection.resume_writing()
        scene.connection.pause_writing()
        scene.connection.resume_writing()
        assert scene.events == ["full", "full", "free", "full", "free"]
        scene.connection.finish()
        scene.connection.pause_writing()
        assert scene.events[-1] == "free"

    play(main)


def test_an_answer_before_the_body_is_whole_ends_the_writing() -> None:
    def main(scene: Scene) -> None:
        scene.begin()
        scene.hear(Accepted("1"), OK)
        scene.connection.write(b"abc")
        assert scene.sent() == b""
        scene.hear(Ended("1"))
        assert scene.events == ["full", "free", 200, b"{}", "complete", "spare"]

    play(main)


def test_an_end_with_an_error_is_a_failure() -> None:
    def main(scene: Scene) -> None:
        scene.begin()
        scene.hear(Accepted("1"))
        scene.hear(Ended("1", EndError(EndCode.ENGINE_BROKE_OFF, "gone")))
        assert scene.events == ["full", "free", "spare", NODE_BROKE_OFF]
        scene.connection.write(b"abc")
        assert scene.sent() == b""

    play(main)


def test_a_cancel_that_would_wait_behind_the_body_closes_the_socket() -> None:
    def main(scene: Scene) -> None:
        scene.begin()
        scene.hear(Accepted("1"))
        scene.connection.write(b"abc")
        scene.connection.pause_writing()
        scene.connection.cancel()
        assert scene.wire.is_aborted
        other = Scene()
        other.begin()
        other.hear(Accepted("1"))
        other.connection.cancel()
        assert b'"cancel"' in other.sent()
        assert not other.wire.is_aborted
        other.sockets.abort()

    play(main)


def test_a_head_that_no_node_accepts_goes_to_other_sockets_and_not_for_ever() -> None:
    async def main(scene: Scene) -> None:
        scene.begin()
        lost = scene.connection
        for turn in range(MAX_RESENDS):
            lost.connection_lost(None)
            while len(scene.others) == turn:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            scene.outbox.flush()
            assert scene.other_wires[turn].take() == OPEN + binary(HEAD)
            lost = scene.others[turn]
        assert scene.events == ["full"] + ["moved", "full"] * MAX_RESENDS
        lost.connection_lost(None)
        assert scene.events[-1] is NODE_BROKE_OFF

    play(main)


def test_a_move_that_is_cancelled_says_nothing_more() -> None:
    async def main(scene: Scene) -> None:
        scene.begin()
        scene.connection.connection_lost(None)
        scene.connection.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert (scene.events, scene.others) == (["full"], [])

    play(main)


def test_a_node_that_takes_bytes_slowly_is_not_silent() -> None:
    """Its pong stands behind megabytes in the system; what waits in the transport is always as much."""

    def main(scene: Scene) -> None:
        scene.begin()
        scene.hear(Accepted("1"))
        scene.wire.waiting = 100_000
        for _ in range(int(2 * (PING_SECONDS + BUSY_PONG_SECONDS) / 0.5)):
            scene.now += 0.5
            scene.connection.write(b"x" * 1000)
            scene.connection.tick(scene.now)
        assert scene.events == ["full", "free"]
        for _ in range(int(2 * (PING_SECONDS + BUSY_PONG_SECONDS) / 0.5)):
            scene.now += 0.5
            scene.connection.tick(scene.now)
        assert scene.events == ["full", "free", NODE_BROKE_OFF]

    play(main)
