"""A hub for the tests of commands, and a function that runs a command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hive.app import HubServer
from hive.cli import main
from hive.config import LogLevel, NodeSettings, Secret, Settings

ADMIN_KEY = "an-admin-key-for-tests-only"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in ("HIVE_HUB", "HIVE_API_KEY", "HIVE_CA_FILE", "HIVE_CONFIG", "HIVE_PORT", "HIVE_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `hive` with arguments, in this process."""

    def run_hive(*arguments: str) -> Outcome:
        code = main(arguments)
        shown = capsys.readouterr()
        return Outcome(code, shown.out, shown.err)

    return run_hive


class HubThread(threading.Thread):
    """A hub in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.port = 0
        self.is_up = threading.Event()
        self.stop: Callable[[], object] = lambda: None
        self._settings = settings

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self.is_up.set()

    async def _serve(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.stop = lambda: loop.call_soon_threadsafe(stopping.set)
        server = HubServer(self._settings)
        await server.start()
        self.port = server.port
        self.is_up.set()
        await stopping.wait()
        await server.stop()


@pytest.fixture
def hub_dir(tmp_path: Path) -> Path:
    """Return the data directory of the hub."""
    return tmp_path / "data"


@pytest.fixture
def hub(hub_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a hub with one node that is down; HIVE_HUB and HIVE_API_KEY point to it."""
    settings = Settings(
        port=0,
        data_dir=hub_dir,
        admin_key=Secret(ADMIN_KEY),
        nodes=(NodeSettings(name="far", url="http://127.0.0.1:1"),),
        log_level=LogLevel.ERROR,
    )
    thread = HubThread(settings)
    thread.start()
    assert thread.is_up.wait(10)
    url = f"http://127.0.0.1:{thread.port}"
    monkeypatch.setenv("HIVE_HUB", url)
    monkeypatch.setenv("HIVE_API_KEY", ADMIN_KEY)
    yield url
    thread.stop()
    thread.join(10)
