"""Drill: 200 streams over three joined nodes: one is stopped, one killed, one cut off; then the hub restarts or dies.

Everything runs as users run it, in processes: hub, agents, simulated engines. What was seen is printed (`-s`).
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from hive.testing import SimOptions, run_in_thread

from ..process import ADMIN_KEY, HIVE, Served, environment, serving
from ..raw import ask, eventually, get, metric, request

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

STREAMS = 200
TOKENS = 60
TOKENS_PER_SECOND = 20
GAP = 6.0
"""Seconds for which nodes are held back: longer than an engine may be silent."""


class Cable:
    """A way between an agent and the hub that can be cut, as a network is: nothing arrives, nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_cut = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._sockets: list[socket.socket] = [self._server]
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._is_cut.set()

    def close(self) -> None:
        """End every connection."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._is_cut.is_set():
                    return
                sink.sendall(data)
            if not self._is_cut.is_set():
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def agent(
    directory: Path, name: str, hub: Served, port: int, engine: str, slots: int = 80
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `hive node` under a key of its own, over the given port."""
    env = environment(HIVE_HUB=f"http://127.0.0.1:{hub.port}", HIVE_API_KEY=ADMIN_KEY)
    made = subprocess.run(
        [HIVE, "keys", "create", name, "--role", "worker"], env=env, capture_output=True, text=True, check=True
    )
    command = [HIVE, "node", "--hub", f"http://127.0.0.1:{port}", "--engine", engine, "--slots", str(slots)]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(HIVE_KEY=made.stdout.strip()))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


async def one_stream(client: httpx.AsyncClient, number: int) -> str:
    """Return how one client's chat ended, in a word; a wrong end is none of them."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"hello {number}"}]}
    try:
        async with client.stream("POST", "/api/chat", json=body) as answer:
            lines = [json.loads(line) async for line in answer.aiter_lines()]
            if answer.status_code != 200:
                return f"refused {answer.status_code}" if "error" in lines[0] else "a refusal without a reason"
    except httpx.HTTPError as error:
        return f"cut off ({type(error).__name__})"
    if lines[-1].get("done") is True:
        tokens = sum(1 for line in lines if line.get("message", {}).get("content"))
        return "whole" if tokens == TOKENS and not any("error" in line for line in lines) else f"garbled: {tokens}"
    return "error at the end" if "error" in lines[-1] else "ended without a word"


async def all_streams(port: int) -> Counter[str]:
    limits = httpx.Limits(max_connections=STREAMS, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client:
        return Counter(await asyncio.gather(*(one_stream(client, number) for number in range(STREAMS))))


def start_streams(port: int) -> tuple[threading.Thread, Counter[str]]:
    ends: Counter[str] = Counter()
    thread = threading.Thread(target=lambda: ends.update(asyncio.run(all_streams(port))))
    thread.start()
    return thread, ends


def ready(hub: Served) -> int:
    text = ask(hub.port, get("/metrics", f"Authorization: Bearer {ADMIN_KEY}\r\n")).body.decode()
    return sum(line.startswith("hive_node_ready{") and line.endswith(" 1.0") for line in text.splitlines())


def test_every_client_gets_one_whole_answer_or_one_honest_error(tmp_path: Path) -> None:
    options = SimOptions(slots=200, default_tokens=TOKENS, tokens_per_second=TOKENS_PER_SECOND)
    with ExitStack() as stack:
        engines = [stack.enter_context(run_in_thread(options)) for _ in range(3)]
        hub = stack.enter_context(serving(tmp_path))
        cable = Cable(hub.port)
        stack.callback(cable.close)
        ports = [hub.port, hub.port, cable.port]
        agents = [
            stack.enter_context(agent(tmp_path, f"n{i}", hub, port, engine.url))
            for i, (port, engine) in enumerate(zip(ports, engines, strict=True))
        ]
        eventually(lambda: ready(hub) == 3, 30)
        thread, ends = start_streams(hub.port)
        eventually(lambda: sum(engine.state().running for engine in engines) == STREAMS, 20)
        began = time.monotonic()
        agents[0].send_signal(signal.SIGTERM)
        agents[1].kill()
        cable.cut()
        thread.join(90)
        print(f"\nstopped, killed, cut: {dict(ends)} in {time.monotonic() - began:.1f} s")
        assert not thread.is_alive()
        assert set(ends) <= {"whole", "error at the end"}
        assert agents[0].wait(35) == 0
        assert ends["whole"] >= STREAMS // 4


def kept(directory: Path) -> int:
    """Return how many nodes the hub's database has."""
    with closing(sqlite3.connect(directory / "data" / "hive.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM nodes").fetchone()[0])


def restart(directory: Path, stack: ExitStack, port: int, agents: list[subprocess.Popen[bytes]]) -> Counter[str]:
    """Start a hub while its nodes are held back; return how the requests ended that came before them."""
    for each in agents:
        each.send_signal(signal.SIGSTOP)
    hub = stack.enter_context(serving(directory, "--port", str(port)))
    began = time.monotonic()
    thread, ends = start_streams(port)
    with ThreadPoolExecutor() as pool:
        shown = pool.submit(ask, port, request("/api/show", {"model": "tiny"}))
        eventually(lambda: metric(port, "hive_queue_waiting", ADMIN_KEY) == STREAMS + 1, 20)
        eventually(lambda: time.monotonic() - began > GAP, 2 * GAP)
        assert (ready(hub), ends, shown.done()) == (0, {}, False)
        for each in agents:
            each.send_signal(signal.SIGCONT)
        eventually(lambda: ready(hub) == len(agents), 30)
        print(f"\nall nodes back {time.monotonic() - began - GAP:.1f} s after they could")
        assert shown.result().status == 200
    thread.join(60)
    print(f"\nsent before any node was back: {dict(ends)}")
    return ends


def test_nodes_come_back_when_the_hub_restarts_and_what_came_before_them_is_served(tmp_path: Path) -> None:
    options = SimOptions(slots=200, default_tokens=TOKENS, tokens_per_second=TOKENS_PER_SECOND)
    with ExitStack() as stack:
        engines = [stack.enter_context(run_in_thread(options)) for _ in range(3)]
        hub = stack.enter_context(serving(tmp_path))
        agents = [
            stack.enter_context(agent(tmp_path, f"n{i}", hub, hub.port, each.url)) for i, each in enumerate(engines)
        ]
        eventually(lambda: ready(hub) == 3, 30)
        thread, ends = start_streams(hub.port)
        eventually(lambda: sum(engine.state().running for engine in engines) == STREAMS, 20)
        hub.process.send_signal(signal.SIGTERM)
        assert hub.process.wait(40) == 0
        thread.join(60)
        print(f"\nhub restarted under load: {dict(ends)}")
        assert ends == {"whole": STREAMS}
        assert restart(tmp_path, stack, hub.port, agents) == {"whole": STREAMS}


def test_a_hub_that_was_killed_knows_its_nodes_too(tmp_path: Path) -> None:
    options = SimOptions(slots=200, default_tokens=TOKENS, tokens_per_second=TOKENS_PER_SECOND)
    with ExitStack() as stack:
        engines = [stack.enter_context(run_in_thread(options)) for _ in range(3)]
        hub = stack.enter_context(serving(tmp_path))
        agents = [
            stack.enter_context(agent(tmp_path, f"n{i}", hub, hub.port, each.url)) for i, each in enumerate(engines)
        ]
        eventually(lambda: kept(tmp_path) == 3, 30)
        hub.process.kill()
        hub.process.wait(10)
        assert restart(tmp_path, stack, hub.port, agents) == {"whole": STREAMS}
