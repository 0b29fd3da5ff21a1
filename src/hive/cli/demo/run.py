"""The demo as a program: machines, hub and show go up in this order, and down again whatever ends them."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from hive.app import HubServer
from hive.auth.keys import Role
from hive.cli.demo.hints import show_hints
from hive.cli.demo.machines import CHAT_MODEL, Engines, find_engines, nodes_of, simulated_engines
from hive.cli.demo.screen import Screen, row_of
from hive.cli.demo.show import KEY_NAME, Records, Show
from hive.cli.errors import CommandError
from hive.config import NodeSettings, Settings
from hive.errors import Fault
from hive.fleet.engines import Engine, Health
from hive.hub.records import Record
from hive.store.errors import StoreError

PORT = 4483
_DRAIN_TIMEOUT = 1.0
_PORT_TAKEN = (48, 98, 10_048)
"""EADDRINUSE of macOS, Linux and Windows."""


def run(port: int | None, *, once: bool) -> int:
    """Run the demo to its end, or until SIGINT or SIGTERM, and return the exit code: 1 if a request of it failed."""
    screen = Screen()
    with _hub_warnings(screen):
        return asyncio.run(_run(screen, port, once=once))


async def _run(screen: Screen, port: int | None, *, once: bool) -> int:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    records = Records()
    with tempfile.TemporaryDirectory(prefix="hive-demo-") as directory:
        async with simulated_engines() as engines:
            found = await find_engines()
            async with _hub(port, nodes_of(engines, found), Path(directory) / "data", records) as server:
                return await _until(stopping, _present(screen, server, engines, found, records, once=once))


async def _present(
    screen: Screen,
    server: HubServer,
    engines: Engines,
    found: Mapping[str, str],
    records: Records,
    *,
    once: bool,
) -> int:
    await server.hub.first_look()
    url = f"http://127.0.0.1:{server.port}"
    _introduce(screen, server, engines, url)
    show_key = (await server.keys.create(KEY_NAME, Role.CLIENT)).secret
    client_key = (await server.keys.create("demo", Role.CLIENT)).secret
    headers = {"Authorization": f"Bearer {show_key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        show = Show(client, screen, records, server.hub.records.settle)
        await show.play(engines)
    failed = sum(not row.is_ok for row in show.rows)
    answered = f"All {len(show.rows)} requests were answered."
    if once:
        screen.say(f"\n{f'{failed} of {len(show.rows)} requests failed.' if failed else answered}")
        if not failed:
            screen.say("Without --once the hub keeps serving, and shows how to use it.")
        return 1 if failed else 0
    real_models = [
        model.id for engine in server.hub.fleet.engines if engine.node in found for model in engine.models.values()
    ]
    show_hints(screen, url, client_key, server.new_admin_key or "", real_models)
    screen.say("\nEvery request to the hub appears here:")
    screen.headings()
    records.on_other = lambda record: _show_other(screen, record)
    await asyncio.Event().wait()
    return 0


def _introduce(screen: Screen, server: HubServer, engines: Engines, url: str) -> None:
    shown = [engine for engine in server.hub.fleet.engines if engine.health is Health.READY]
    screen.fit(
        (model.removesuffix(":latest") for engine in shown for model in engine.models),
        (engine.node for engine in shown),
    )
    screen.say("Hive: one URL for all your machines that run models.", style="bold")
    if server.settings.port != server.port:
        screen.say(f"Port {PORT} is taken, so the hub took {server.port}." if server.settings.port == 0 else "")
    screen.say(f"Hub    {url}\n")
    columns = ("NODE", "ENGINE", "SLOTS", "TOKENS/S", "LOAD", "MODELS")
    screen.table(columns, [_node_cells(engine, engines) for engine in shown])


def _node_cells(engine: Engine, engines: Engines) -> list[str]:
    models = ", ".join(model.removesuffix(":latest") for model in engine.models) or "-"
    simulated = engines.get(engine.node)
    what = f"{'simulated' if simulated else 'real'} {engine.kind}"
    if simulated is None:
        return [engine.node, what, str(engine.slots), "?", "?", models]
    options = simulated.options
    speed, load = f"{options.tokens_per_second:g}", f"{options.load_time:g} s" if options.load_time else "-"
    return [engine.node, what, str(engine.slots), speed, load, models]


def _show_other(screen: Screen, record: Record) -> None:
    screen.row(row_of(record))


# --- the hub ---


@asynccontextmanager
async def _hub(
    port: int | None, nodes: tuple[NodeSettings, ...], data_dir: Path, records: Records
) -> AsyncIterator[HubServer]:
    """Run a hub for the length of the block; without a port on the usual one, or on a free one if that is taken."""
    server = await _start_hub(PORT if port is None else port, nodes, data_dir, records, may_move=port is None)
    try:
        yield server
    finally:
        await server.stop()


async def _start_hub(
    port: int, nodes: tuple[NodeSettings, ...], data_dir: Path, records: Records, *, may_move: bool
) -> HubServer:
    settings = Settings(port=port, data_dir=data_dir, nodes=nodes, drain_timeout=_DRAIN_TIMEOUT)
    server = HubServer(settings, records.write)
    try:
        await server.start()
    except OSError as error:
        is_taken = error.errno in _PORT_TAKEN
        if is_taken and may_move:
            return await _start_hub(0, nodes, data_dir, records, may_move=False)
        reason = "is taken" if is_taken else f"cannot be used ({error.strerror or error})"
        raise CommandError(f"port {port} on 127.0.0.1 {reason}") from error
    except (StoreError, Fault) as error:
        raise CommandError(str(error)) from error
    return server


@contextmanager
def _hub_warnings(screen: Screen) -> Iterator[None]:
    """Let what the hub has to say, beyond its records, appear among the demo's lines."""

    class Voice(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            screen.say(self.format(record), style="yellow")

    voice, log = Voice(logging.WARNING), logging.getLogger("hive")
    voice.setFormatter(logging.Formatter("hub: %(message)s"))
    log.addHandler(voice)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(voice)
        log.propagate = True


# --- the end ---


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stopping.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))


async def _until(stopping: asyncio.Event, work: Coroutine[None, None, int]) -> int:
    """Return the result of the work, or 0 as soon as the demo is told to stop."""
    working = asyncio.create_task(work)
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((working, told), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else 0
    finally:
        for task in (working, told):
            task.cancel()
        await asyncio.gather(working, told, return_exceptions=True)
