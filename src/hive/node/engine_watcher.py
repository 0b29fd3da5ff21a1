"""Watches one engine: whether it lives, its kind and version, its models, and the models in its memory.

There are two loops, because /api/ps can block for seconds while an Ollama loads. Its silence says nothing of health.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from msgspec import Raw

from hive import errors
from hive.errors import Fault
from hive.fleet.health import DOWN_AFTER
from hive.fleet.identity import Identity, Steps, check, identify, slots_in_props
from hive.fleet.kinds import EngineKind
from hive.node.engine_server import EngineServer
from hive.wire.link_messages import NOTHING, ReportedEngine, json_object, one_line

PROBE_SECONDS = 2.0
"""Seconds between two probes, and the time for the answer to one."""
SHORTEST_WAIT = 0.1
LISTING_SECONDS = 2.0
LISTING_TIMEOUT = 10.0
REFRESH_SECONDS = 1.0
"""Seconds between two listings that the hub asks for."""
EXPIRY_SECONDS = 15.0
"""Each answer of an Ollama moves the expiry of its model. If only that changed, a report waits this many seconds."""
MAX_LISTING_BYTES = 1 << 20
"""The most bytes of one list. 64 engines with three lists each must fit; most lists have less than 100 kB."""

_log = logging.getLogger(__name__)
_decode_ps = msgspec.json.Decoder(dict[str, Raw | list[dict[str, Raw]]]).decode


class EngineWatcher:
    """The only writer of this node's knowledge of an engine. `on_change` is called when a new report is needed."""

    def __init__(self, server: EngineServer, slots: int | None, on_change: Callable[[], None]) -> None:
        """Watch `server`. `slots` overrides the number that the engine itself reports."""
        self.server = server
        self._slots = slots
        self._on_change = on_change
        self._identity: Identity | None = None
        self._own_slots: int | None = None
        self.is_alive = False
        self.is_silent = False
        """Was the last probe not answered in time? The engine may only be busy, so this alone does not make it down."""
        self._answered_at = float("-inf")
        self._error = "not asked yet"
        self._listings = {"tags": NOTHING, "ps": NOTHING, "v1_models": NOTHING}
        self._loaded: object = None
        """The answer of /api/ps without the expiries."""
        self._kick = asyncio.Event()
        self._is_refreshed = False
        """Must a report be sent even if nothing changed?"""
        self._is_wanted = False
        """Has the hub asked for a listing that has not begun?"""
        self._wanted_at = float("-inf")
        self._reported_at = float("-inf")
        self._reported_ps = NOTHING
        self.has_looked = asyncio.Event()
        """Set after the first listing, or when the first probe got no answer."""

    def __repr__(self) -> str:
        return f"<Watcher {self.server.id} {self._identity} {'alive' if self.is_alive else self._error}>"

    @property
    def kind(self) -> EngineKind:
        """Return the kind of the engine, as far as it is known."""
        return self._identity.kind if self._identity else EngineKind.UNKNOWN

    def report(self) -> ReportedEngine:
        """Return the report of the engine for the hub."""
        self._reported_at = asyncio.get_running_loop().time()
        self._reported_ps = self._listings["ps"]
        return ReportedEngine(
            id=self.server.id,
            kind=str(self.kind),
            version=one_line(self._identity.version, 128) if self._identity else "",
            address=one_line(self.server.address.url),
            slots=self._slots or self._own_slots,
            is_alive=self.is_alive,
            is_silent=self.is_silent,
            error=one_line(self._error),
            **self._listings,
        )

    def refresh(self) -> None:
        """List the models and report: at once, or a second after the last listing. Calls in between count once."""
        self._is_refreshed = self._is_wanted = True
        self._kick.set()

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_life())
            group.create_task(self._watch_models())

    async def _watch_life(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PROBE_SECONDS
            try:
                await self._probe()
            except Exception:
                _log.exception("probing %s", self.server.address.url)
            await asyncio.sleep(max(SHORTEST_WAIT, due - loop.time()))

    async def _probe(self) -> None:
        known = self._identity
        try:
            found = await ask_steps(self.server, check(known) if known else identify())
        except Fault as fault:
            if not self._is_merely_silent(fault):
                self._set_life(is_alive=False, error=fault.message)
            self.has_looked.set()
            return
        self._answered_at = asyncio.get_running_loop().time()
        if found != known:
            self._identity = found
            if known is None or found.kind is not known.kind:
                self._own_slots = None
                self._listings = dict.fromkeys(self._listings, NOTHING)
            self._is_refreshed = True
        if not self.is_alive or found != known:
            self._kick.set()
        self._set_life(is_alive=True, error="")

    def _is_merely_silent(self, fault: Fault) -> bool:
        """Note a probe that failed. Return False if the engine must be taken for down."""
        silence = asyncio.get_running_loop().time() - self._answered_at
        if not self.is_alive or fault.kind is not errors.NODE_SILENT or silence >= DOWN_AFTER:
            return False
        if not self.is_silent:
            self.is_silent = True
            self._say(logging.WARNING, fault.message)
        return True

    def _set_life(self, *, is_alive: bool, error: str) -> None:
        has_changed = is_alive is not self.is_alive or self.is_silent
        self.is_silent = False
        if has_changed or error != self._error:
            self.is_alive, self._error = is_alive, error
            self._say(logging.INFO if is_alive else logging.WARNING, error or f"{self.kind} answers")
            if not is_alive or not self._is_refreshed:
                self._on_change()

    def _say(self, level: int, fact: str) -> None:
        """Log a fact. Some facts already name the engine; the name is not repeated."""
        url = self.server.address.url
        _log.log(level, "engine %s: %s", url, fact.removeprefix(f"no connection to {url}: "))

    async def _watch_models(self) -> None:
        while True:
            await self._until_due()
            try:
                if self.is_alive:
                    await self._list()
            except Exception:
                _log.exception("listing %s", self.server.address.url)

    async def _until_due(self) -> None:
        """Wait until the next listing is due."""
        try:
            async with asyncio.timeout(LISTING_SECONDS):
                await self._kick.wait()
        except TimeoutError:
            pass
        if self._is_wanted:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._wanted_at + REFRESH_SECONDS - loop.time())
            self._wanted_at = loop.time()
            self._is_wanted = False
        self._kick.clear()

    async def _list(self) -> None:
        must_report, self._is_refreshed = self._is_refreshed, False
        try:
            has_changed = await self._read_listings()
        except Fault as fault:
            self._say(logging.INFO, fault.message)
            has_changed = False
            if fault.kind is errors.NODE_UNREACHABLE:
                # The hub may know already that the engine is down: no report may contradict that.
                self._set_life(is_alive=False, error=fault.message)
                must_report = False
        self.has_looked.set()
        if has_changed or must_report:
            self._on_change()

    async def _read_listings(self) -> bool:
        """Ask for the lists of this kind of engine. Return whether a report is needed."""
        if self.kind is not EngineKind.OLLAMA:
            if self.kind is EngineKind.LLAMA_CPP and self._own_slots is None:
                props = await self.server.ask("/props", LISTING_TIMEOUT)
                self._own_slots = slots_in_props(props.body)
            return self._take("v1_models", await self._listing("/v1/models"))
        has_changed = self._take("tags", await self._listing("/api/tags"))
        ps = await self._listing("/api/ps")
        loaded = _without_expiry(ps)
        self._listings["ps"] = ps
        has_moved = bytes(ps) != bytes(self._reported_ps)
        is_due = asyncio.get_running_loop().time() - self._reported_at > EXPIRY_SECONDS
        has_changed = has_changed or loaded != self._loaded or (has_moved and is_due)
        self._loaded = loaded
        return has_changed

    async def _listing(self, path: str) -> Raw:
        reply = await self.server.ask(path, LISTING_TIMEOUT)
        if reply.status != 200:
            raise Fault(errors.NODE_GARBLED, f"{path} answers {reply.status}")
        if len(reply.body) > MAX_LISTING_BYTES:
            raise Fault(errors.NODE_GARBLED, f"{path} is longer than {MAX_LISTING_BYTES} bytes")
        return json_object(reply.body)

    def _take(self, name: str, listing: Raw) -> bool:
        has_changed = bytes(listing) != bytes(self._listings[name])
        self._listings[name] = listing
        return has_changed


def _without_expiry(ps: Raw) -> object:
    try:
        answer = _decode_ps(ps)
    except (msgspec.DecodeError, RecursionError):
        return bytes(ps)
    models = answer.get("models")
    if not isinstance(models, list):
        return bytes(ps)
    return [{key: bytes(value) for key, value in model.items() if key != "expires_at"} for model in models]


async def ask_steps(server: EngineServer, steps: Steps) -> Identity:
    """Carry out the steps that recognise an engine; return what was found. Raises `Fault`."""
    try:
        wanted = next(steps)
        while True:
            timeout = LISTING_TIMEOUT if wanted.is_listing else PROBE_SECONDS
            wanted = steps.send(await server.ask(wanted.path, timeout))
    except StopIteration as done:
        identity: Identity = done.value
        return identity
