"""The engines of a node: each is there once, and what has not changed is not reported again."""

from __future__ import annotations

import asyncio

import pytest

from hive.node import engine_watcher as watcher
from hive.node.agent_options import read_engine
from hive.node.local_engines import engine_id

from .engine import RawEngine
from .hub import joined, run, until


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:11434", "http://[::1]:11434", "http://0.0.0.0:11434", "http://localhost.example:11434",
        "https://127.0.0.1:11434",
    ],
)  # fmt: skip
def test_only_127_0_0_1_and_localhost_have_the_short_name(url: str) -> None:
    assert engine_id(read_engine("http://127.0.0.1:11434")) == engine_id(read_engine("http://localhost:11434"))
    assert engine_id(read_engine(url)) != "port-11434"


def test_an_engine_that_is_named_twice_is_there_once() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            twice = (engine.url, engine.url, engine.url.replace("127.0.0.1", "localhost"))
            async with joined(*twice) as hub:
                assert [each.id for each in hub.hellos[0].engines] == [engine.name]
                running = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
                assert running.count("EngineWatcher._watch_life") == 1

    run(main())


def test_what_comes_back_unchanged_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "LISTING_SECONDS", 0.05)

    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            engine.models = ("tiny:latest", "new:latest")
            await until(lambda: hub.reports)
            listed = sum(b"/api/tags" in probe for probe in engine.probes)
            await until(lambda: sum(b"/api/tags" in probe for probe in engine.probes) >= listed + 5)
            assert len(hub.reports) == 1

    run(main())
