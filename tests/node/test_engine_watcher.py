"""What of an engine is worth a report."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from hive.net.outbox import Outbox
from hive.node import engine_watcher as module
from hive.node.agent_options import EngineAddress
from hive.node.engine_server import EngineServer
from hive.node.engine_watcher import EngineWatcher
from hive.testing import SimKind, SimOptions, SimulatedEngine

from .engine import RawEngine
from .hub import run, until


class Watched:
    """A watcher of an engine, and what it called for."""

    def __init__(self, port: int, slots: int | None = None) -> None:
        self.changes = 0
        server = EngineServer(EngineAddress("127.0.0.1", port), "e", Outbox(), None)
        self.watcher = EngineWatcher(server, slots, self._note)
        self.task = asyncio.create_task(self.watcher.run())

    def _note(self) -> None:
        self.changes += 1
        self.watcher.report()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.watcher.server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look ten times a second."""
    monkeypatch.setattr(module, "LISTING_SECONDS", 0.05)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)


def ps_of(engine: RawEngine, expires_at: str, size_vram: int) -> None:
    """Let an engine say what is loaded."""
    body = msgspec.json.encode({"models": [{"name": "tiny", "expires_at": expires_at, "size_vram": size_vram}]})
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    engine._probe = lambda path: answer if path == "/api/ps" else RawEngine._probe(engine, path)  # type: ignore[method-assign]


def test_an_expiry_that_moves_is_no_news_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            ps_of(engine, "a", 1)
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
            ps_of(engine, "b", 1)
            asked = len(engine.probes)
            await until(lambda: len(engine.probes) > asked + 6)
            assert watched.changes == 1
            monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.0)
            await until(lambda: watched.changes == 2)
            assert b'"b"' in bytes(watched.watcher.report().ps)
            await watched.end()

    run(main())


def test_an_engine_that_is_gone_when_its_models_are_asked_for_is_not_reported_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 60.0)
    monkeypatch.setattr(module, "LISTING_SECONDS", 60.0)

    async def main() -> None:
        async with RawEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
        watched.watcher.refresh()
        await until(lambda: watched.changes == 2)
        report = watched.watcher.report()
        assert (report.is_alive, "refused" in report.error) == (False, True)
        await watched.end()

    run(main())


def test_what_is_loaded_is_news_at_once() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            ps_of(engine, "a", 1)
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
            ps_of(engine, "a", 2)
            await until(lambda: watched.changes == 2)
            await watched.end()

    run(main())


def test_another_engine_on_the_same_port_is_recognised() -> None:
    async def main() -> None:
        ollama = SimulatedEngine()
        await ollama.start()
        watched = Watched(ollama.port)
        await until(lambda: watched.watcher.kind == "ollama")
        await ollama.stop()
        async with SimulatedEngine(SimOptions(kind=SimKind.LLAMA_CPP, slots=3), port=ollama.port):
            await until(lambda: watched.watcher.report().v1_models != b"null" and watched.watcher.kind == "llama.cpp")
            await until(lambda: watched.watcher.report().slots == 3)
            assert bytes(watched.watcher.report().tags) == b"null"
        await watched.end()

    run(main())


def test_slots_that_were_given_win() -> None:
    async def main() -> None:
        async with SimulatedEngine(SimOptions(kind=SimKind.LLAMA_CPP, slots=3)) as engine:
            watched = Watched(engine.port, slots=5)
            await until(lambda: watched.changes)
            assert watched.watcher.report().slots == 5
            await watched.end()

    run(main())


def test_a_listing_that_blocks_does_not_make_an_engine_dead() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine:
            engine.set_fault("freeze", path="/api/ps")
            watched = Watched(engine.port)
            await until(lambda: watched.watcher.is_alive)
            asked = engine.state().received["/api/version"]
            await until(lambda: engine.state().received["/api/version"] > asked + 3)
            assert watched.watcher.is_alive
            await watched.end()

    run(main())


def test_an_engine_that_is_slow_to_answer_is_silent_and_not_dead() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.watcher.is_alive and watched.changes > 0)
            engine.set_fault("freeze")
            await until(lambda: watched.watcher.is_silent)
            assert (watched.watcher.is_alive, watched.watcher.report().is_silent) == (True, True)
            before = watched.changes
            engine.clear_faults()
            await until(lambda: not watched.watcher.is_silent)
            assert (watched.watcher.is_alive, watched.watcher.report().error) == (True, "")
            await until(lambda: watched.changes > before)
            await watched.end()

    run(main())


def test_an_engine_that_stays_silent_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOWN_AFTER", 0.5)

    async def main() -> None:
        async with SimulatedEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.watcher.is_alive)
            engine.set_fault("freeze")
            await until(lambda: not watched.watcher.is_alive)
            report = watched.watcher.report()
            assert (report.is_silent, report.error) == (False, "no answer to /api/version within 0.2 s")
            engine.clear_faults()
            await until(lambda: watched.watcher.is_alive)
            await watched.end()

    run(main())


def test_a_list_that_is_no_json_is_not_passed_on() -> None:
    async def main() -> None:
        async with RawEngine() as engine:
            bad = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]"
            engine._probe = lambda path: bad if path == "/api/tags" else RawEngine._probe(engine, path)  # type: ignore[method-assign]
            watched = Watched(engine.port)
            await until(lambda: watched.changes)
            assert bytes(watched.watcher.report().tags) == b"null"
            await watched.end()

    run(main())


# --- what the hub asks for ---


def listings(engine: RawEngine) -> int:
    return sum(b"/api/tags" in probe for probe in engine.probes)


def test_a_flood_of_refreshes_is_one_listing_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_SECONDS", 3600.0)
    monkeypatch.setattr(module, "REFRESH_SECONDS", 3600.0)

    async def main() -> None:
        async with RawEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
            watched.watcher.refresh()
            await until(lambda: watched.changes == 2)
            asked = len(engine.probes)
            while len(engine.probes) < asked + 4:  # probes of its life, and nothing else
                watched.watcher.refresh()
                await asyncio.sleep(0.01)
            assert listings(engine) == 2
            assert watched.changes == 2
            await watched.end()

    run(main())


def test_refreshes_that_come_too_soon_are_one_at_the_end_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_SECONDS", 3600.0)
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.5)

    async def main() -> None:
        async with RawEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
            watched.watcher.refresh()
            await until(lambda: watched.changes == 2)
            for _ in range(100):
                watched.watcher.refresh()
            await until(lambda: watched.changes == 3)
            asked = len(engine.probes)
            await until(lambda: len(engine.probes) >= asked + 4)
            assert listings(engine) == 3
            await watched.end()

    run(main())


def test_a_refresh_during_a_listing_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTING_SECONDS", 3600.0)
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)

    async def main() -> None:
        async with RawEngine() as engine:
            watched = Watched(engine.port)
            await until(lambda: watched.changes == 1)
            probe = engine._probe

            def refreshed_meanwhile(path: str) -> bytes | None:
                if path == "/api/tags":
                    engine._probe = probe  # type: ignore[method-assign]
                    watched.watcher.refresh()
                return probe(path)

            engine._probe = refreshed_meanwhile  # type: ignore[method-assign]
            watched.watcher.refresh()
            await until(lambda: watched.changes == 3)
            assert listings(engine) == 3
            await watched.end()

    run(main())
