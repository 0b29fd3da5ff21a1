"""The demo as a program. Engines, hub, agents and show start in this order and stop in reverse, whatever ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

import httpx

from hive.app import HubServer
from hive.auth.keys import Role
from hive.cli.demo.agents import run_agents, until_joined
from hive.cli.demo.demo_hub import PORT, run_hub, warnings_to
from hive.cli.demo.hints import show_hints
from hive.cli.demo.machines import Engines, find_engines, machines_of, simulated_engines
from hive.cli.demo.screen import Screen, row_of
from hive.cli.demo.show import KEY_NAME, DemoRecords, Show
from hive.fleet.engines import Engine, Health


def run(port: int | None, *, once: bool) -> int:
    """Run the demo until it ends or a signal ends it. Return the exit code: 1 when one of its requests failed."""
    screen = Screen()
    with warnings_to(lambda text: screen.say(text, style="yellow")):
        code = asyncio.run(_run(screen, port, once=once))
    screen.end()
    return code


async def _run(screen: Screen, port: int | None, *, once: bool) -> int:
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    records = DemoRecords()
    async with simulated_engines() as engines:
        found = await find_engines()
        async with run_hub(port, records.write) as server, run_agents(server, machines_of(engines, found)):
            demo = Demo(screen, server, engines, found, records, has_moved=port is None and server.port != PORT)
            return await _until(stopping, demo.play() if once else demo.play_and_serve())


@dataclass(frozen=True, slots=True)
class Demo:
    """The steps of the demo once its hub is up."""

    screen: Screen
    server: HubServer
    engines: Engines
    found: Mapping[str, str]
    """The real engines: URL by node name."""
    records: DemoRecords
    has_moved: bool
    """Was the usual port taken?"""

    @property
    def url(self) -> str:
        """Return the URL of the hub."""
        return f"http://127.0.0.1:{self.server.port}"

    async def play(self) -> int:
        """Show the machines and the requests."""
        await until_joined(self.server, {**self.engines, **self.found})
        self._introduce()
        key = (await self.server.keys.create(KEY_NAME, Role.CLIENT)).secret
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as client:
            show = Show(client, self.screen, self.records, self.server.hub.register.records.settle)
            await show.play(self.engines)
        failed, count = sum(not row.is_ok for row in show.rows), len(show.rows)
        verdict = f"{failed} of {count} requests failed." if failed else f"All {count} requests were answered."
        self.screen.say(f"\n{verdict}", style="bold red" if failed else "bold green")
        return 1 if failed else 0

    async def play_and_serve(self) -> int:
        """Show everything, print what to try next, then show every further request to the hub, without an end."""
        await self.play()
        key = (await self.server.keys.create("demo", Role.CLIENT)).secret
        real_models = [
            _short(model.id)
            for engine in self._engines()
            if engine.node in self.found
            for model in engine.known.models.values()
        ]
        show_hints(self.screen, self.url, key, self.server.new_admin_key or "", real_models)
        self.screen.say("\nEvery request to a model appears here:")
        self.screen.headings()
        self.records.on_other = lambda record: self.screen.row(row_of(record))
        told_to_end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await told_to_end

    def _engines(self) -> list[Engine]:
        """Return the engines that are ready, in the order of the machines. (The nodes join in any order.)"""
        places = {name: place for place, name in enumerate((*self.engines, *self.found))}
        ready = [engine for engine in self.server.hub.fleet.engines if engine.health is Health.READY]
        return sorted((engine for engine in ready if engine.node in places), key=lambda engine: places[engine.node])

    def _introduce(self) -> None:
        screen, shown = self.screen, self._engines()
        models = (_short(model) for engine in shown for model in engine.known.models)
        screen.fit(models, (engine.node for engine in shown))
        screen.say("Hive: one URL for all the machines that run your models", style="bold")
        moved = f" ({PORT} is taken)" if self.has_moved else ""
        screen.say(f"A hub on {self.url}{moved}, and the nodes that dialed out and joined it:\n")
        columns = ("NODE", "ENGINE", "SLOTS", "TOKENS/S", "LOAD", "MODELS")
        screen.table(columns, [self._cells(engine) for engine in shown])

    def _cells(self, engine: Engine) -> list[str]:
        models = ", ".join(map(_short, engine.known.models)) or "-"
        simulated = self.engines.get(engine.node)
        if simulated is None:
            return [
                engine.node,
                f"{engine.known.kind} {engine.known.version}".rstrip(),
                str(engine.slots),
                "-",
                "-",
                models,
            ]
        options = simulated.options
        load = f"{options.load_time:g} s" if options.load_time else "-"
        speed = f"{options.tokens_per_second:g}"
        return [engine.node, f"{engine.known.kind}, simulated", str(engine.slots), speed, load, models]


def _short(model: str) -> str:
    return model.removesuffix(":latest")


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)}:  # HUP: a closed terminal
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
