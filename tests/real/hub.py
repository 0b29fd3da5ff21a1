"""A hub as its users run it: the command, in a process of its own, on a free port."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from . import installed
from .wire import ask

T = TypeVar("T")

ADMIN_KEY = "hk_" + "A" * 43
IS_DIRECT = os.environ.get("HIVE_TEST_DIRECT") == "1"
"""Put the engine itself in the hub's place: shows that a test asks no more than an Ollama gives."""


def wait_for(question: Callable[[], T], *, what: str, timeout: float = 10.0, pause: float = 0.02) -> T:
    """Ask until the answer is true and return it; fail with the last answer after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}, last seen: {answer!r}")
        time.sleep(pause)


def _command(*arguments: str) -> list[str]:
    return [str(pathlib.Path(sys.executable).with_name("hive")), *arguments]


def _environment(folder: pathlib.Path, more: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HIVE_", "OLLAMA_"))}
    return {**own, "HOME": str(folder), **more}


class Hub:
    """`hive serve` over dialed nodes. Use as a context manager."""

    def __init__(
        self,
        folder: pathlib.Path,
        nodes: Mapping[str, str],
        *,
        slots: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{installed.harness().free_port()}"
        self._folder = folder
        self._nodes = nodes
        self._slots = slots
        self._env = _environment(folder, {"HIVE_ADMIN_KEY": ADMIN_KEY, **(env or {})})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "hub.log"

    def __enter__(self) -> Hub:
        arguments = ["serve", "--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]]
        arguments += ["--data-dir", str(self._folder / "data")]
        for name, url in self._nodes.items():
            arguments += ["--node", f"{name}={url}"]
        if self._slots is not None:
            arguments += ["--slots", str(self._slots)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _command(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )
        try:
            wait_for(self._is_up, what="the hub to answer", timeout=20.0)
            wait_for(self._knows_every_node, what="the hub to know each node's models", timeout=20.0)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(35)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        if exc[0] is None:
            assert code == 0, f"the hub ended with {code}: {self.log()[-2000:]}"

    def url_of(self, model: str) -> str:
        """Return where to ask for a model: every model is asked of the hub."""
        return self.url

    def log(self) -> str:
        """Return what the hub wrote so far."""
        return self._log.read_text(errors="replace")

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the hub ended with {self._process.returncode}: {self.log()[-2000:]}")
        try:
            return ask(self.url, "GET", "/").status == 200
        except ConnectionError:
            return False

    def _knows_every_node(self) -> bool:
        wanted = {name for url in self._nodes.values() for name in models_of(url)}
        return wanted <= set(models_of(self.url, ADMIN_KEY))

    def create_key(self, name: str) -> str:
        """Return a new client key, made with the command line."""
        done = subprocess.run(
            _command("keys", "create", name, "--role", "client"),
            env={**self._env, "HIVE_HUB": self.url, "HIVE_API_KEY": ADMIN_KEY},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout.strip()


def models_of(url: str, key: str | None = None) -> list[str]:
    """Return the names under which a server lists its models at /v1/models, with their tag."""
    headers = [("Authorization", f"Bearer {key}")] if key else []
    data = ask(url, "GET", "/v1/models", headers=headers).json()["data"] or []
    return [name if ":" in (name := entry["id"]) else name + ":latest" for entry in data]


class Direct:
    """Stands where a hub would, and is the engine itself."""

    def __init__(self, fleet: installed.Fleet) -> None:
        self.url = fleet.url_of("tiny-babble")
        self.url_of = fleet.url_of
