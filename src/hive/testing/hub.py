"""A whole hub in the process of a test, with its own thread and event loop, a free port and a temporary directory."""

from __future__ import annotations

import asyncio
import os
import secrets
import selectors
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hive.app import HubServer
from hive.auth.keys import Role
from hive.config import NodeSettings, Secret, Settings
from hive.testing.agent_double import ThreadedAgent, run_agent

_CALL_TIMEOUT = 10.0
_STOP_TIMEOUT = 40.0
"""Seconds. It is longer than the longest drain."""
_POLL_INTERVAL = 0.005
_SETTLE_TIMEOUT = 2.0

usual_link = "dialed"
"""The link between a test's hub and its nodes, unless a test names one."""

T = TypeVar("T")
Nodes = Mapping[str, str | NodeSettings]
"""Dialed nodes by name: a URL, or settings. The name in the settings is replaced by the key of the mapping."""


class HubNotClean(AssertionError):  # noqa: N818 - the fact, as a failed assertion
    """The hub left something behind: a task, a socket, or an error that was not handled."""


class ThreadedHub:
    """A running hub. Its methods may be called from any thread."""

    def __init__(self, server: HubServer, loop: asyncio.AbstractEventLoop, admin_key: str) -> None:
        self._server = server
        self._loop = loop
        self._stopping: asyncio.Future[None] | None = None
        self.port = server.port
        self.url = f"http://127.0.0.1:{server.port}"
        self.admin_key = admin_key
        self.data_dir: Path = server.settings.data_dir
        self.agents: dict[str, ThreadedAgent] = {}
        """The agents that joined with `link="joined"`, by the names of their nodes."""

    def __repr__(self) -> str:
        return f"<ThreadedHub {self.url}>"

    def create_key(self, name: str, role: str = "client", *, manage: bool = False) -> str:
        """Make a key; return its secret."""
        return self.run(lambda server: server.keys.create(name, Role(role), manage=manage)).secret

    def revoke_key(self, name: str) -> None:
        """End a key."""
        self.run(lambda server: server.keys.revoke(name))

    def call(self, function: Callable[[HubServer], T]) -> T:
        """Call a function with the hub inside its event loop; return its result."""

        async def call(server: HubServer) -> T:
            return function(server)

        return self.run(call)

    def run(self, start: Callable[[HubServer], Coroutine[Any, Any, T]], timeout: float = _CALL_TIMEOUT) -> T:
        """Run a coroutine on the hub inside its event loop; return its result. Raises `TimeoutError`."""
        future = asyncio.run_coroutine_threadsafe(start(self._server), self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def until(self, is_true: Callable[[HubServer], bool], timeout: float = 5.0) -> None:
        """Block until a condition on the hub holds. Raises `TimeoutError` when it does not in time."""
        deadline = time.monotonic() + timeout
        while not self.call(is_true):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self!r}: the condition did not come true within {timeout:g} s")
            time.sleep(_POLL_INTERVAL)

    def begin_stop(self) -> None:
        """Start to stop as on SIGTERM, without waiting for the end."""
        self.call(lambda _: self._stop_once())

    def stop(self) -> None:
        """Stop the hub as on SIGTERM and wait for the end. A second call does no harm."""

        async def stop(_: HubServer) -> None:
            await asyncio.shield(self._stop_once())

        self.run(stop, _STOP_TIMEOUT)

    def _stop_once(self) -> asyncio.Future[None]:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._server.stop())
        return self._stopping


@contextmanager
def run_hub(
    nodes: Nodes | None = None,
    *,
    admin_key: str | None = None,
    wait: bool = True,
    use_uvloop: bool | None = None,
    link: str | None = None,
    **settings: object,
) -> Iterator[ThreadedHub]:
    """Run a hub while the block runs, with these nodes. Other keywords are fields of `hive.config.Settings`.

    `link` is `dialed` or `joined`; the default is `usual_link`. With `joined`, a double of the agent
    (`hive.testing.agent_double`) joins for each node. `use_uvloop`: by default as in `hive serve`.

    The hub has probed every node once before the block begins, unless `wait=False`. Exchanges that still run at the end
    are given up, unless `drain_timeout` is set. At the end a task, a socket or an error that the hub left behind raises
    `HubNotClean`.
    """
    admin_key = admin_key or f"test-admin-{secrets.token_hex(12)}"
    selector = selectors.DefaultSelector()
    loop = _make_loop(use_uvloop, selector)
    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(_describe(context)))
    thread = threading.Thread(target=loop.run_forever, name="hub", daemon=True)
    thread.start()
    try:
        with tempfile.TemporaryDirectory(prefix="hive-test-") as directory:
            is_joined = (link or usual_link) == "joined"
            dialed = {} if is_joined else nodes or {}
            chosen = _settings(dialed, admin_key, Path(directory) / "data", settings)
            server = asyncio.run_coroutine_threadsafe(_start(chosen), loop).result(_CALL_TIMEOUT)
            hub = ThreadedHub(server, loop, admin_key)
            with ExitStack() as agents:
                try:
                    if is_joined:
                        _join(hub, nodes or {}, agents, wait=wait)
                    elif wait:
                        hub.until(lambda server: server.hub.roster.has_looked, _CALL_TIMEOUT)
                    yield hub
                finally:
                    hub.stop()
            left = hub.run(lambda server: _leftovers(server, selector))
        if left or errors:
            raise HubNotClean(f"the hub left behind: {'; '.join(left + errors)}")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        _close(loop)
        selector.close()


def _join(hub: ThreadedHub, nodes: Nodes, agents: ExitStack, *, wait: bool) -> None:
    """Join one agent for each node, and wait until the hub knows all their engines."""
    for node in _nodes(nodes):
        credential = node.api_key.value if node.api_key is not None else ""
        hub.agents[node.name] = agents.enter_context(
            run_agent(
                hub.url,
                hub.create_key(node.name, "worker"),
                {"engine": node.url},
                slots=node.slots or hub.call(lambda server: server.settings.slots),
                credential=credential,
            )
        )
    if wait:
        names = set(nodes)
        hub.until(lambda server: names <= {engine.node for engine in server.hub.fleet.engines}, _CALL_TIMEOUT)


def _make_loop(use_uvloop: bool | None, selector: selectors.BaseSelector) -> asyncio.AbstractEventLoop:
    if use_uvloop is not False and os.name == "posix":
        try:
            import uvloop
        except ImportError:
            if use_uvloop:
                raise
        else:
            return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop(selector)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.close()
    except OSError as error:  # uvloop raises this if a socket is still in use
        raise HubNotClean(f"the hub left behind: a socket ({error})") from None


def _settings(nodes: Nodes, admin_key: str, data_dir: Path, changes: Mapping[str, object]) -> Settings:
    base = Settings(port=0, data_dir=data_dir, admin_key=Secret(admin_key), nodes=_nodes(nodes), drain_timeout=0)
    return msgspec.structs.replace(base, **changes)


def _nodes(nodes: Nodes) -> tuple[NodeSettings, ...]:
    return tuple(
        NodeSettings(name=name, url=node) if isinstance(node, str) else msgspec.structs.replace(node, name=name)
        for name, node in nodes.items()
    )


async def _start(settings: Settings) -> HubServer:
    server = HubServer(settings)
    await server.start()
    return server


async def _leftovers(server: HubServer, selector: selectors.BaseSelector) -> list[str]:
    """Return what a stopped hub left in its loop, after it had time to close its connections."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _SETTLE_TIMEOUT
    while (left := _left_now(server, selector)) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_INTERVAL)
    return left


def _left_now(server: HubServer, selector: selectors.BaseSelector) -> list[str]:
    current = asyncio.current_task()
    left = [f"the task {task.get_name()} ({task.get_coro()!r})" for task in asyncio.all_tasks() if task is not current]
    left += [repr(connection) for connection in server.server.connections]
    sockets = len(selector.get_map()) - 1  # an asyncio loop registers one socket of its own
    return left + ([f"{sockets} sockets"] if sockets > 0 else [])


def _describe(context: Mapping[str, object]) -> str:
    error = context.get("exception")
    return f"{context.get('message')} ({error!r})" if error is not None else str(context.get("message"))
