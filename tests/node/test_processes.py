"""Processes behind a port: a real one that works, idles, is stopped, and is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from hive.node import processes
from hive.node.processes import Activity, EngineProcesses

SERVER = """
import socket, subprocess, sys
sock = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(sock.getsockname()[1], child.pid, flush=True)
sys.stdin.read()
child.kill()
"""
SLEEPS = "import sys; sys.stdin.read()"
WORKS = "while True: pass"


@dataclass
class Served:
    """A server that listens, and its runner."""

    port: int
    server: psutil.Process
    runner: psutil.Process


Start = Callable[[str], Served]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a server whose runner does something."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(work: str) -> Served:
        process = subprocess.Popen([sys.executable, "-c", SERVER, work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        port, child = process.stdout.readline().split()
        return Served(int(port), psutil.Process(process.pid), psutil.Process(int(child)))

    yield start_one
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.communicate()


def until(looked: Callable[[], Activity], is_right: Callable[[Activity], bool]) -> Activity:
    """Look until it is right; the clock that the code sees is the test's own."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        activity = looked()
        if is_right(activity):
            return activity
        time.sleep(0.05)
    raise AssertionError(activity)


def test_a_runner_that_sleeps_is_idle_from_then_on(start: Start) -> None:
    one = EngineProcesses(start(SLEEPS).port)
    times = iter(range(1000))
    activity = until(lambda: one.look(next(times) * 2.0, is_gpu_idle=True), lambda seen: (seen.idle_s or 0) >= 6)
    assert not activity.is_stopped


def test_a_runner_that_works_is_not_idle(start: Start) -> None:
    one = EngineProcesses(start(WORKS).port)
    began = time.monotonic()

    def look() -> Activity:
        return one.look(time.monotonic() - began, is_gpu_idle=True)

    look()
    assert until(look, lambda seen: seen.idle_s == 0) == Activity(0.0, False)


def test_a_gpu_that_works_or_is_not_known_is_not_idle(start: Start) -> None:
    one = EngineProcesses(start(SLEEPS).port)
    for now in range(4):
        assert one.look(float(now), is_gpu_idle=False).idle_s == 0
    assert one.look(4.0, is_gpu_idle=None).idle_s is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_a_stopped_runner_is_seen_and_its_return_too(start: Start) -> None:
    served = start(SLEEPS)
    one = EngineProcesses(served.port)
    times = iter(range(1000))

    def look() -> Activity:
        return one.look(float(next(times)), is_gpu_idle=True)

    served.runner.suspend()
    until(look, lambda seen: seen.is_stopped)
    served.runner.resume()
    until(look, lambda seen: not seen.is_stopped)
    served.server.suspend()
    until(look, lambda seen: seen.is_stopped)
    served.server.resume()


def test_a_server_that_is_gone_is_not_known_and_searched_again(start: Start) -> None:
    served = start(SLEEPS)
    one = EngineProcesses(served.port)
    assert one.look(0.0, is_gpu_idle=True).idle_s == 0
    served.runner.kill()
    served.server.kill()
    served.server.wait(5)
    assert one.look(2.0, is_gpu_idle=True) == Activity(None, False)


def test_a_port_without_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    monkeypatch.setattr(processes, "_listener", searches.append)
    one = EngineProcesses(1)
    for now in (0.0, 2.0, 9.0, 10.0):
        assert one.look(now, is_gpu_idle=True) == Activity()
    assert len(searches) == 2


def test_where_only_ones_own_processes_may_be_seen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    served = start(SLEEPS)

    def denied(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    found = processes._listener(served.port)
    assert found is not None
    assert found.pid == served.server.pid
