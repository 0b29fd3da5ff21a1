"""A listener of a hub that lets every request stream to the hub's first engine; also a program, with a hub of its own.

    passing.py [ENGINE_URL]     (dials the engine; without one it waits for a node that joins)

It prints the hub's port and the listener's, and ends at the end of its input.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from hive.app import HubServer
from hive.auth.keys import Role
from hive.config import NodeSettings, Secret, Settings
from hive.dialects.error_shapes import ERRORS, error_answer
from hive.dialects.tasks import Dialect
from hive.errors import NODE_UNREACHABLE, Fault
from hive.hub.core import Hub
from hive.net.body_intake import BodyIntake
from hive.net.passage import Passage
from hive.net.reception import ServerLimits
from hive.net.server import HttpServer, Listener
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead

ADMIN_KEY = "canary-admin-key"


class Passing:
    """The listener's handler."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.passages: list[Passage] = []
        self.ends: list[str] = []
        """How passages ended: the code of a fault, `gone` or `whole`."""

    def judge(self, stream: ClientStream) -> None:
        """Let every body stream."""
        if not self._hub.roster.links:
            raise Fault(NODE_UNREACHABLE, "no node has joined yet")
        stream.intake = BodyIntake()

    def begin(self, stream: ClientStream) -> None:
        """Let it pass."""
        link = next(iter(self._hub.roster.links.values()))
        passage = Passage(
            stream, link, stream.head.path.encode(), b"X-Passed: yes\r\n", lambda fault: self._end(stream, fault)
        )
        self.passages.append(passage)
        passage.start()

    def _end(self, stream: ClientStream, fault: Fault | None) -> None:
        self.ends.append(fault.kind.code if fault else "gone" if stream.has_departed else "whole")
        if fault is not None and not stream.has_started:
            stream.send(*self.refuse(stream.head, stream.request_id, fault))

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        """Return an error as the hub's own listener would."""
        return error_answer(ERRORS[Dialect.OLLAMA], fault, request_id)


async def listen(hub: Hub, limits: ServerLimits | None = None) -> tuple[Passing, HttpServer, int]:
    """Start such a listener beside a hub, in its loop; return its handler, its server and its port."""
    handler = Passing(hub)
    server = HttpServer(limits or ServerLimits(), hub.outbox)
    return handler, server, await server.listen(Listener("127.0.0.1", 0, handler))


async def _main(engine: str | None) -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as directory:
        nodes = (NodeSettings(name="a", url=engine),) if engine else ()
        settings = Settings(port=0, data_dir=Path(directory) / "data", admin_key=Secret(ADMIN_KEY), nodes=nodes)
        hub = HubServer(settings)
        await hub.start()
        key = (await hub.keys.create("desk", Role.WORKER, manage=False)).secret
        _, server, port = await listen(hub.hub)
        print(hub.port, port, key, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        server.close()
        await hub.stop()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1] if len(sys.argv) > 1 else None))
