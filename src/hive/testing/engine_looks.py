"""What the double of an agent finds out about its engines: it asks each of them as the hub's own probes do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from hive.errors import NODE_SILENT, Fault
from hive.net.ask import ask
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox
from hive.wire.link_messages import NOTHING, ReportedEngine, json_object, one_line

_LOOK_TIMEOUT = 2.0


class _EngineVersion(msgspec.Struct):
    version: str = ""


class EngineLooks:
    """The engines of one double, and what the last look at each of them found."""

    def __init__(self, urls: Mapping[str, str], slots: int | None, credential: bytes) -> None:
        """`urls` stand by the engines' ids; `credential` is a header line for all of them, or nothing."""
        self.urls = dict(urls)
        self.edit: Callable[[ReportedEngine], ReportedEngine] = lambda engine: engine
        """Changes what is reported: for lies."""
        self._slots = slots
        self._credential = credential
        self._known: dict[str, ReportedEngine] = {}
        self._links: dict[str, DialedLink] = {}
        self._looking = asyncio.Lock()

    def report(self) -> tuple[ReportedEngine, ...]:
        """Return the engines as the last look found them."""
        return tuple(self.edit(engine) for engine in self._known.values())

    async def look(self) -> None:
        """Ask every engine anew."""
        async with self._looking:
            found = {name: await self._look_at(name, url) for name, url in list(self.urls.items())}
            self._known = found

    def close(self) -> None:
        """Close the connections to the engines."""
        for link in self._links.values():
            link.close()

    async def _look_at(self, name: str, url: str) -> ReportedEngine:
        link = self._links.get(url)
        if link is None:
            link = self._links[url] = DialedLink(url, Outbox(), connect_timeout=_LOOK_TIMEOUT, max_head_bytes=65536)
            link.credential = self._credential

        async def get(path: str) -> bytes | None:
            head, body = await ask(link, path, _LOOK_TIMEOUT)
            return body if head.status == 200 else None

        engine = ReportedEngine(name, "openai", address=url, slots=self._slots)
        try:
            version = _version(await get("/api/version"))
            if version:
                tags, ps = await get("/api/tags"), await get("/api/ps")
                listed = {"tags": json_object(tags or b""), "ps": json_object(ps or b"")}
                return msgspec.structs.replace(engine, kind="ollama", version=version, **listed)
            props = await get("/props")
            kind = "llama.cpp" if props is not None else "openai"
            if props is not None and self._slots is None:
                total = msgspec.json.decode(props).get("total_slots")
                engine = msgspec.structs.replace(engine, slots=total)
            listing = await get("/v1/models") or b""
            if kind == "openai" and b'"vllm"' in listing:
                kind = "vllm"
            return msgspec.structs.replace(engine, kind=kind, v1_models=json_object(listing))
        except Fault as fault:
            known = self._known.get(name, engine)
            error = one_line(fault.message)
            if fault.kind is NODE_SILENT and name in self._known:
                return msgspec.structs.replace(known, is_silent=True)
            return msgspec.structs.replace(known, is_alive=False, error=error, tags=NOTHING, ps=NOTHING)


def _version(body: bytes | None) -> str:
    try:
        return msgspec.json.decode(body or b"", type=_EngineVersion).version
    except msgspec.DecodeError:
        return ""
