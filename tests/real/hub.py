"""A hub as its users run it: the command, in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from _pytest.mark import ParameterSet

from ..proxying import need_proxy, proxying
from . import installed
from .wire import ask

T = TypeVar("T")

ADMIN_KEY = "hk_" + "A" * 43
IS_DIRECT = os.environ.get("HIVE_TEST_DIRECT") == "1"
"""Put the engine itself in the hub's place: shows that a test asks no more than an Ollama gives."""


DIALED, JOINED, NGINX = LINKS = ("dialed", "joined", "nginx")
"""How a hub reaches its nodes: it dials their engines, or agents dial it, straight or through nginx with TLS."""


def over_each_link(*cases: Any, links: Sequence[str] = LINKS, is_quick: bool = True) -> list[ParameterSet]:
    """Return each case followed by each link, for parameters that begin with a kind of engine.

    Not long are, of the cases that were not, those dialed and, if they are quick, those of the newest Ollama joined.
    """
    params = []
    for case in cases:
        given = case if isinstance(case, ParameterSet) else pytest.param(*([case] if isinstance(case, str) else case))
        is_often_joined = is_quick and given.values[0] == installed.NEWEST_OLLAMA
        for link in [DIALED] if IS_DIRECT else links:
            is_long = link == NGINX or (link == JOINED and not is_often_joined)
            marks = [*given.marks, pytest.mark.long] if is_long else given.marks
            params.append(pytest.param(*given.values, link, marks=marks))
    return params


def only_dialed(*cases: Any) -> list[ParameterSet]:
    """Return each case with the link that most hubs use: for what no other link changes."""
    return over_each_link(*cases, links=[DIALED])


def as_one(params: Sequence[ParameterSet]) -> list[ParameterSet]:
    """Return parameters of several values as parameters of one tuple, as fixtures want them."""
    return [pytest.param(each.values, marks=each.marks, id="-".join(map(str, each.values))) for each in params]


def need_link(link: str) -> None:
    """Skip the test unless what this link goes through is installed."""
    if link == NGINX:
        need_proxy("nginx")


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


@contextlib.contextmanager
def _running(arguments: Sequence[str], env: Mapping[str, str], log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command; at the end it is asked to stop, and has to end well."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait(35)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert code == 0, f"hive {arguments[0]} ended with {code}: {log.read_text(errors='replace')[-2000:]}"


class Hub:
    """`hive serve` over nodes, and `hive node` for each that is not dialed. Use as a context manager.

    `link` is one of `LINKS`. Where the nodes come through nginx, clients still ask the hub itself, but the hub has the
    settings that docs/proxies.md wants: no request is local, so `url` holds a key.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        nodes: Mapping[str, str],
        *,
        slots: int | None = None,
        env: Mapping[str, str] | None = None,
        link: str = DIALED,
    ) -> None:
        self._port = installed.harness().free_port()
        self._origin = f"http://127.0.0.1:{self._port}"
        self.url = self._origin
        self._folder = folder
        self._nodes = nodes
        self._slots = [] if slots is None else ["--slots", str(slots)]
        self._link = link
        behind = {"HIVE_TRUSTED_PROXIES": "127.0.0.1", "HIVE_LOCAL_ACCESS": "off"} if link == NGINX else {}
        self._env = _environment(folder, {"HIVE_ADMIN_KEY": ADMIN_KEY, **behind, **(env or {})})
        self._log = folder / "hub.log"
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Hub:
        with contextlib.ExitStack() as stack:
            process = stack.enter_context(_running(self._arguments(), self._env, self._log))
            wait_for(lambda: self._is_up(process), what="the hub to answer", timeout=20.0)
            if self._link == NGINX:
                proxy = stack.enter_context(proxying("nginx", self._folder / "nginx", self._port))
                self.url = f"{self._origin}/k/{self._create_key('tests', 'client')}"
                self._join(stack, proxy.url, "--ca-file", str(proxy.certificate))
            elif self._link == JOINED:
                self._join(stack, self._origin)
            wait_for(self._knows_every_node, what="the hub to know each node's models", timeout=20.0)
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._ending.__exit__(*exc)

    def _arguments(self) -> list[str]:
        arguments = ["serve", "--host", "127.0.0.1", "--port", str(self._port), *self._slots]
        arguments += ["--data-dir", str(self._folder / "data")]
        if self._link == DIALED:
            for name, url in self._nodes.items():
                arguments += ["--node", f"{name}={url}"]
        return arguments

    def _join(self, stack: contextlib.ExitStack, hub: str, *more: str) -> None:
        """Let an agent for each node join the hub, with a key of its own."""
        for name, url in self._nodes.items():
            arguments = ["node", "--hub", hub, "--engine", url, *self._slots, *more]
            env = _environment(self._folder, {"HIVE_KEY": self._create_key(name, "worker")})
            stack.enter_context(_running(arguments, env, self._folder / f"node-{name}.log"))

    def url_of(self, model: str) -> str:
        """Return where to ask for a model: every model is asked of the hub."""
        return self.url

    def log(self) -> str:
        """Return what hub and agents wrote so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log")))

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the hub says of each node, by its name."""
        return {entry["name"]: entry for entry in self._manage("GET", "/nodes")["nodes"]}

    def waiting(self) -> int:
        """Return how many requests wait in the hub's queue."""
        return int(self._manage("GET", "/queue")["waiting"])

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the hub ended with {process.returncode}: {self.log()[-2000:]}")
        try:
            return ask(self._origin, "GET", "/").status == 200
        except ConnectionError:
            return False

    def _knows_every_node(self) -> bool:
        entries = self._manage("GET", "/nodes")["nodes"]
        if not set(self._nodes) <= {entry["name"] for entry in entries if entry["status"] == "ready"}:
            return False
        wanted = {name for url in self._nodes.values() for name in models_of(url)}
        return wanted <= set(models_of(self._origin, ADMIN_KEY))

    def _create_key(self, name: str, role: str) -> str:
        return str(self._manage("POST", "/keys", {"name": name, "role": role})["key"])

    def _manage(self, method: str, path: str, body: object = None) -> Any:
        answer = ask(self._origin, method, f"/hive/v1{path}", body, [("Authorization", f"Bearer {ADMIN_KEY}")])
        assert answer.status in (200, 201), answer
        return answer.json()

    def create_key(self, name: str) -> str:
        """Return a new client key, made with the command line."""
        done = subprocess.run(
            _command("keys", "create", name, "--role", "client"),
            env={**self._env, "HIVE_HUB": self._origin, "HIVE_API_KEY": ADMIN_KEY},
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
