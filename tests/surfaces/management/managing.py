"""The management API over a fleet that is none, in the event loop of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from hive.auth.key_ring import KeyRing
from hive.auth.principals import Principal
from hive.errors import NOT_FOUND, Fault
from hive.hub.event_feed import EventFeed
from hive.hub.event_log import EventLog
from hive.hub.key_cases import Keys
from hive.net.asgi import Receive, Scope, Send
from hive.store.store import Store
from hive.surfaces.management.application import ModelVersion, ModelView, NodeView, Services, create_app

CALLER = "boss"
"""The name of the caller's key."""
NODE = NodeView("a", "http://a:11434", "dialed", "ready", "ollama", "0.24.0", 4, 1, 2, ("m:latest",), None)
MODEL = ModelView(
    "m:latest", ("a", "b"), ("a",), ("b",), 1000, "abc", {"format": "gguf", "families": ["llama"]},
    versions=(ModelVersion("abc", ("a",)), ModelVersion("def", ("b",))),
)  # fmt: skip


class Fleet:
    """A fleet of one node and one model."""

    def __init__(self) -> None:
        self.drained: list[tuple[str, bool, str]] = []

    def nodes(self) -> Sequence[NodeView]:
        return [NODE]

    def drain(self, node: str, is_draining: bool, by: str) -> Sequence[NodeView]:
        if node != NODE.name:
            raise Fault(NOT_FOUND, f"there is no node '{node}'")
        self.drained.append((node, is_draining, by))
        return [NODE]

    def models(self) -> Sequence[ModelView]:
        return [MODEL]


class NoRequests:
    """A hub that has had no request."""


class BrokenFleet(Fleet):
    """A fleet with a defect."""

    def nodes(self) -> Sequence[NodeView]:
        raise ZeroDivisionError("a secret of the code")


Work = Callable[[httpx.AsyncClient, Keys], Awaitable[None]]


def serve(tmp_path: Path, work: Work, fleet: Fleet | None = None) -> None:
    async def run() -> None:
        async with Store(tmp_path / "data") as store:
            events = EventLog()
            keys = Keys(store, KeyRing(), events, clock=lambda: 0.5)
            await keys.load()
            app = create_app(Services(keys, fleet or Fleet(), NoRequests(), EventFeed(events)))

            async def called(scope: Scope, receive: Receive, send: Send) -> None:
                await app(
                    {**scope, "hive": {"principal": Principal(CALLER, frozenset()), "request_id": "req_1"}},
                    receive,
                    send,
                )

            transport = httpx.ASGITransport(called, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
                await work(client, keys)

    asyncio.run(run())
