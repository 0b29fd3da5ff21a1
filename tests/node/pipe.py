"""A socket of the node with a connection that the test drives: the test reads and writes at the hub's end."""

from __future__ import annotations

import asyncio

from hive.node.hub_socket import HubSocket
from hive.wire.link_accept import accept_upgrade
from hive.wire.link_dial import Dial
from hive.wire.link_socket import LinkSocket, Side
from hive.wire.requests import RequestReader

from ..wire.linking import messages


def dial() -> Dial:
    return Dial("http://hub.example", "hk_worker", "hive/0.1.0")


class Pipe(asyncio.Transport):
    """Keeps what is written until `take`, as the system does while the hub does not read."""

    def __init__(self, socket: HubSocket[object]) -> None:
        """Open the socket."""
        super().__init__()
        self._socket = socket
        self._reader = LinkSocket(Side.HUB, 0.0)
        self._is_closing = False
        self.unsent = bytearray()
        self.is_lost = False
        socket.connection_made(self)
        asked = RequestReader(32768)
        asked.feed(bytes(self.unsent))
        assert asked.head is not None
        self.unsent.clear()
        socket.data_received(accept_upgrade(asked.head).head)

    async def say(self, *frames: bytes) -> None:
        """Let the node read these in one read, and do what follows from it."""
        self._socket.data_received(b"".join(frames))
        await turn()

    async def tick(self, later: float = 0.0) -> None:
        self._socket.tick(asyncio.get_running_loop().time() + later)
        await turn()

    def take(self) -> list[str | bytes]:
        """Read all that the node has written."""
        data = bytes(self.unsent)
        self.unsent.clear()
        if self._is_closing:
            self._lose()
        return messages(self._reader, [data])

    # --- what a transport does ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._is_closing
        self.unsent += data

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        if not self.unsent:
            self._lose()

    def abort(self) -> None:
        self._is_closing = True
        self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            asyncio.get_running_loop().call_soon(self._socket.connection_lost, None)


async def turn() -> None:
    """Let everything happen that is due."""
    for _ in range(3):
        await asyncio.sleep(0)
