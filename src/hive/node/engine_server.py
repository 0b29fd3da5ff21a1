"""An engine of this node: its id, its address, the link to it, and small requests of the node's own."""

from __future__ import annotations

import ssl

from hive import errors
from hive.errors import Fault
from hive.fleet.identity import Reply
from hive.net.ask import ask
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox
from hive.node.agent_options import EngineAddress
from hive.wire.link_rules import MARK_OF_HUB

CONNECT_SECONDS = 3.0
MAX_EXCHANGES = 64
"""Idle connections are kept for this many exchanges at the same time."""
MAX_HEAD_BYTES = 64 << 10
MAX_REPLY_BYTES = 8 << 20
_MARK_OF_HUB = MARK_OF_HUB.encode()


class EngineServer:
    """One engine's server, and the link to it."""

    def __init__(self, address: EngineAddress, name: str, outbox: Outbox, tls: ssl.SSLContext | None) -> None:
        self.id = name
        """The hub's name for the engine."""
        self.address = address
        self.link = DialedLink(
            address.url,
            outbox,
            connect_timeout=CONNECT_SECONDS,
            max_head_bytes=MAX_HEAD_BYTES,
            credential=address.credential,
            tls=tls,
        )
        self.link.expect(MAX_EXCHANGES)

    def __repr__(self) -> str:
        return f"<EngineServer {self.id} {self.link!r}>"

    async def ask(self, path: str, timeout: float) -> Reply:
        """GET a path; return the whole answer. Raises `Fault`: unreachable, silent, broken off or garbled."""
        head, body = await ask(self.link, path, timeout, max_bytes=MAX_REPLY_BYTES)
        if any(name == _MARK_OF_HUB for name, _ in head.fields):
            raise Fault(errors.NODE_GARBLED, "this is a Hive hub and no engine: its requests would run in a circle")
        return Reply(head.status, body)

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self.link.close()
