"""Drill: twelve clients over three nodes of four slots, one of which freezes; beside it, the same fleet of two.

Everything runs as users run it, in processes, and freezes by SIGSTOP. What was seen is printed (`-s`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx
import psutil
import pytest

from ..process import ADMIN_KEY, HIVE, Served, serving
from ..raw import ask, eventually, request
from ..real import installed
from .test_links import agent, ready

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

CLIENTS = 12
SLOTS = 4
WORDS = 20
WORDS_PER_SECOND = 100
CALM = 8.0
"""Seconds of undisturbed work before and after: what is measured."""
SETTLED = 5.0
"""Seconds after which a frozen node is to be of no consequence."""


@dataclass
class Answer:
    """One answer as a client saw it; times as the clock of the test."""

    began: float
    ended: float
    outcome: str
    had_begun: bool


@dataclass
class Clients:
    """Clients who ask again as soon as they were answered."""

    port: int
    model: str = "tiny"
    words: int = WORDS
    pause: float = 0.0
    """Seconds between an answer and the next question."""
    limit: float = 85.0
    """Seconds after which a client gives up."""
    answers: list[Answer] = field(default_factory=list)
    _is_over: bool = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them work; at the end wait for the last answers."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        thread.start()
        try:
            yield
        finally:
            self._is_over = True
            thread.join(90)
            assert not thread.is_alive(), "a client hangs"

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", timeout=self.limit, limits=limits
        ) as client:
            await asyncio.gather(*(self._work(client) for _ in range(CLIENTS)))

    async def _work(self, client: httpx.AsyncClient) -> None:
        while not self._is_over:
            began = time.monotonic()
            lines: list[dict[str, object]] = []
            try:
                body = {"model": self.model, "prompt": "hello", "options": {"num_predict": self.words}}
                async with client.stream("POST", "/api/generate", json=body) as answer:
                    text = [line async for line in answer.aiter_lines()]
                    if answer.status_code == 200:
                        lines.extend(map(json.loads, text))
                    outcome = _end_of(lines) if lines else f"refused {answer.status_code}"
            except httpx.HTTPError as error:
                outcome = f"cut off ({type(error).__name__})"
            self.answers.append(Answer(began, time.monotonic(), outcome, len(lines) > 1))
            await asyncio.sleep(self.pause)

    def pace(self, since: float, until: float) -> tuple[float, float]:
        """Return answers a second, and the 95th percentile of how long those took that began in a span."""
        ended = sum(since <= each.ended < until and each.outcome == "whole" for each in self.answers)
        times = [each.ended - each.began for each in self.answers if since <= each.began < until]
        return ended / (until - since), quantiles(times, n=20)[-1] if len(times) > 1 else float("inf")


def _end_of(lines: list[dict[str, object]]) -> str:
    if lines[-1].get("done") is True:
        return "whole" if not any("error" in line for line in lines) else "garbled"
    return "error at the end" if "error" in lines[-1] else "ended without a word"


@contextmanager
def simulated(directory: Path, name: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `hive sim` as a process; yield it and its URL."""
    output = directory / f"{name}.sim"
    command = [HIVE, "sim", "--port", "0", "--model", "tiny", "--slots", str(SLOTS), "--ttft", "0.02"]
    with output.open("wb") as out:
        process = subprocess.Popen([*command, "--tokens-per-second", str(WORDS_PER_SECOND)], stdout=out, stderr=out)
    try:
        eventually(lambda: b"engine on" in output.read_bytes(), 20)
        found = re.search(r"engine on (http://\S+)", output.read_text())
        assert found
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def fleet(stack: ExitStack, directory: Path, link: str, urls: list[str]) -> Served:
    """Run a hub over these engines, as nodes `n0`, `n1` and so on, until all are ready."""
    dialed = [f"--node=n{place}={url}" for place, url in enumerate(urls)] if link == "dialed" else []
    hub = stack.enter_context(serving(directory, "--slots", str(SLOTS), *dialed))
    if link == "joined":
        for place, url in enumerate(urls):
            stack.enter_context(agent(directory, f"n{place}", hub, hub.port, url, SLOTS))
    eventually(lambda: ready(hub) == len(urls), 30)
    return hub


def drain(hub: Served, node: str, what: str) -> None:
    head = f"Authorization: Bearer {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
    assert ask(hub.port, request(f"/hive/v1/nodes/{node}/{what}", {}, head=head)).status == 200


def freeze(clients: Clients, hub: Served, frozen: list[int], node: str, patience: float = 15) -> None:
    """Freeze processes of the third node."""

    def send(what: signal.Signals) -> None:
        for pid in frozen:
            with suppress(ProcessLookupError):  # its server may have given it up
                os.kill(pid, what)

    drill(clients, hub, node, lambda: send(signal.SIGSTOP), patience)
    send(signal.SIGCONT)


def drill(clients: Clients, hub: Served, node: str, strike: Callable[[], None], patience: float) -> None:
    """Measure the fleet of two, strike the third node, measure again, and say what was seen."""
    with clients.at_work():
        time.sleep(3)  # the paces are learned, the models loaded
        drain(hub, node, "drain")
        time.sleep(1)
        mark = time.monotonic()
        time.sleep(CALM)
        two = clients.pace(mark, mark + CALM - 0.5)
        drain(hub, node, "resume")
        time.sleep(3)
        struck = time.monotonic()
        strike()
        time.sleep(SETTLED + CALM)
        with_frozen = struck + SETTLED, struck + SETTLED + CALM - 0.5
    after = clients.pace(*with_frozen)
    bad = [each for each in clients.answers if each.outcome != "whole"]
    longest = max((each.ended - struck for each in bad), default=0.0)
    ends = Counter(f"{each.outcome}{'' if each.had_begun else ', not begun'}" for each in bad)
    print(
        f"\nof two: {two[0]:.1f}/s, p95 {two[1] * 1000:.0f} ms; from second 5 on: {after[0]:.1f}/s"
        f" ({after[0] / two[0]:.2f}), p95 {after[1] * 1000:.0f} ms ({after[1] / two[1]:.2f});"
        f" whole {len(clients.answers) - len(bad)}, else {dict(ends)} within {longest:.1f} s"
    )
    assert set(ends) <= {"error at the end"}, ends
    assert len(bad) <= SLOTS
    assert longest < patience
    assert after[0] > 0.6 * two[0]


@pytest.mark.parametrize("link", ["dialed", "joined"])
def test_a_frozen_engine_is_left_alone(tmp_path: Path, link: str) -> None:
    with ExitStack() as stack:
        engines = [stack.enter_context(simulated(tmp_path, f"n{place}")) for place in range(3)]
        hub = fleet(stack, tmp_path, link, [url for _, url in engines])
        freeze(Clients(hub.port), hub, [engines[2][0].pid], "n2")


@pytest.mark.parametrize("who", ["agent", "group"])
def test_a_frozen_node_is_left_alone(tmp_path: Path, who: str) -> None:
    with ExitStack() as stack:
        engines = [stack.enter_context(simulated(tmp_path, f"n{place}")) for place in range(3)]
        hub = stack.enter_context(serving(tmp_path))
        agents = [
            stack.enter_context(agent(tmp_path, f"n{place}", hub, hub.port, url, SLOTS))
            for place, (_, url) in enumerate(engines)
        ]
        eventually(lambda: ready(hub) == 3, 30)
        frozen = [agents[2].pid] + ([engines[2][0].pid] if who == "group" else [])
        freeze(Clients(hub.port), hub, frozen, "n2")


@pytest.mark.parametrize(("link", "patience"), [("joined", 15), ("dialed", 65)])
def test_a_server_that_lives_on_while_its_answers_stand_still_is_left_alone(
    tmp_path: Path, link: str, patience: float
) -> None:
    """As with a real runner, which needs more processors than a drill has."""
    with ExitStack() as stack:
        engines = [stack.enter_context(simulated(tmp_path, f"n{place}")) for place in range(3)]
        hub = fleet(stack, tmp_path, link, [url for _, url in engines])

        def strike() -> None:
            fault = {"kind": "freeze", "path": "/api/generate"}
            assert ask(int(engines[2][1].rpartition(":")[2]), request("/sim/fault", fault)).status == 200

        drill(Clients(hub.port), hub, "n2", strike, patience)


@pytest.mark.parametrize(("link", "patience"), [("joined", 15), ("dialed", 65)])
def test_a_frozen_runner_behind_a_live_server_is_left_alone(tmp_path: Path, link: str, patience: float) -> None:
    kind = installed.NEWEST_OLLAMA
    installed.need(kind)
    # An Ollama before 0.30 takes seconds of the processor for the larger model's answer: the drill measures only eight.
    model, words = ("slow-endless", 40) if installed.version_of(kind) >= (0, 30) else ("tiny-endless", 200)
    with ExitStack() as stack:
        urls = []
        for _ in range(3):
            engine = installed.start_ollama(kind, (model,), {"OLLAMA_NUM_PARALLEL": str(SLOTS)})
            stack.callback(engine.stop)
            urls.append(engine.url)
        hub = fleet(stack, tmp_path, link, urls)
        for url in urls:  # so that each has its runner
            ask(int(url.rpartition(":")[2]), request("/api/embed", {"model": model}))
        runners = [child.pid for child in psutil.Process(engine.proc.pid).children(recursive=True)]
        assert runners
        clients = Clients(hub.port, model, words=words, pause=0.3)
        freeze(clients, hub, runners, "n2", patience)


HAPROXY = """
global
  maxconn 1000
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 600s
  option redispatch
  retries 2
frontend all
  bind 127.0.0.1:{port}
  default_backend fleet
backend fleet
  balance leastconn
  option httpchk GET /api/version
  default-server inter 2s fall 2 rise 2 maxconn {slots} check
{servers}
"""
NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  upstream fleet {{ least_conn; {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://fleet;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host 127.0.0.1;
      proxy_buffering off;
      proxy_connect_timeout 3s;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_what_others_do_in_the_same_drill(tmp_path: Path, proxy: str) -> None:
    """Nothing is asked of them: their figures are printed beside ours."""
    program = shutil.which(proxy, path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        pytest.skip(f"{proxy} is not installed")
    with ExitStack() as stack:
        engines = [stack.enter_context(simulated(tmp_path, f"n{place}")) for place in range(3)]
        port = free_port()
        for place, (_, url) in enumerate(engines[:2]):
            assert ask(int(url.rpartition(":")[2]), request("/api/embed", {"model": "tiny"})).status == 200, place
        for count in (2, 3):
            process = stack.enter_context(running(program, proxy, tmp_path, port, [url for _, url in engines[:count]]))
            clients = Clients(port, limit=SETTLED + CALM + 15)
            with clients.at_work():
                time.sleep(2)
                struck = time.monotonic()
                if count == 3:
                    os.kill(engines[2][0].pid, signal.SIGSTOP)
                time.sleep(SETTLED + CALM)
            pace = clients.pace(struck + SETTLED, struck + SETTLED + CALM - 0.5)
            ends = Counter(each.outcome for each in clients.answers if each.outcome != "whole")
            print(f"\n{proxy}, {count} nodes: {pace[0]:.1f}/s, p95 {pace[1] * 1000:.0f} ms, else {dict(ends)}")
            process.terminate()
            process.wait(10)


@contextmanager
def running(program: str, proxy: str, directory: Path, port: int, urls: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a proxy over these engines."""
    addresses = [url.removeprefix("http://") for url in urls]
    config = directory / f"{proxy}.conf"
    if proxy == "haproxy":
        servers = "\n".join(f"  server n{place} {address}" for place, address in enumerate(addresses))
        config.write_text(HAPROXY.format(port=port, slots=SLOTS, servers=servers))
        command = [program, "-f", str(config)]
    else:
        servers = " ".join(f"server {address} max_conns={SLOTS};" for address in addresses)
        config.write_text(NGINX.format(port=port, directory=directory, servers=servers))
        command = [program, "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: is_listening(port), 10)
        yield process
    finally:
        process.kill()
        process.wait(10)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
