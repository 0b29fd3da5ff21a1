"""Large bodies through a hub and an agent, each a process of its own: both stay as small as they were."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..process import environment
from ..raw import Answer, Wire, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HERE = Path(__file__).parent
BLOB = "/api/blobs/sha256:" + "a" * 64
BLOCK = bytes(range(256)) * 4096
SIZE = 200 << 20
LARGE_SIZE = 10 << 30
"""It took 63 s dialed and 161 s joined on two busy cores; the hub grew by 1 MB, the agent by 3 MB."""
SLOW_SIZE = 48 << 20
MOST_GROWTH = 20 << 20


@dataclass
class Lab:
    """An engine, a hub and perhaps an agent, each a process."""

    port: int
    pids: dict[str, int]

    def reset_peaks(self) -> dict[str, int]:
        """Begin to note the largest size of each process; return the sizes now."""
        for pid in self.pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return {name: _status(pid, "VmRSS") for name, pid in self.pids.items()}

    def check_growth(self, before: dict[str, int]) -> None:
        grown = {name: _status(pid, "VmHWM") - before[name] for name, pid in self.pids.items()}
        assert all(size < MOST_GROWTH for size in grown.values()), grown


def _status(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


@contextmanager
def program(*arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(**more), cwd=HERE.parents[1],
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> list[str]:
    """Return the words of the next line that it writes."""
    assert process.stdout is not None
    return process.stdout.readline().split()


@contextmanager
def lab(link: str, rest: float = 0.0) -> Iterator[Lab]:
    """`rest`: how long the engine rests after each read."""
    with ExitStack() as stack:
        engine = stack.enter_context(program(str(HERE / "swallowing.py"), str(rest)))
        url = f"http://127.0.0.1:{line(engine)[0]}"
        hub = stack.enter_context(program("-m", "tests.net.passing", *([url] if link == "dialed" else [])))
        hub_port, port, key = line(hub)
        pids = {"hub": hub.pid}
        if link == "joined":
            agent = ("-m", "hive.cli", "node", "--hub", f"http://127.0.0.1:{hub_port}", "--engine", url)
            pids["agent"] = stack.enter_context(program(*agent, HIVE_KEY=key)).pid
        one = Lab(int(port), pids)
        eventually(lambda: post(one, 3).status == 200, 20)
        yield one


def post(lab: Lab, size: int, *, seconds: float = 60.0, more: str = "", rest: float = 0.0) -> Answer:
    """Send a body of this size; return the answer. `rest`: the client rests after each block."""
    with Wire(lab.port) as wire:
        wire.sock.settimeout(seconds)
        wire.send(f"POST {BLOB} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {size}\r\n\r\n".encode())
        for start in range(0, size, len(BLOCK)):
            wire.send(BLOCK[: size - start])
            time.sleep(rest)
        return wire.answer()


def sum_of(size: int) -> int:
    crc = 0
    for start in range(0, size, len(BLOCK)):
        crc = zlib.crc32(BLOCK[: size - start], crc)
    return crc


@pytest.fixture(params=["dialed", "joined"])
def link(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [SIZE, pytest.param(LARGE_SIZE, marks=pytest.mark.long)])
def test_a_large_blob_passes_in_constant_memory(size: int, link: str) -> None:
    with lab(link) as one:
        before = one.reset_peaks()
        answer = post(one, size, seconds=600)
        assert (answer.status, answer.json()) == (200, {"count": size, "crc": sum_of(size)})
        one.check_growth(before)


def test_a_slow_engine_costs_no_memory(link: str) -> None:
    with lab(link, rest=0.002) as one:
        before = one.reset_peaks()
        assert post(one, SLOW_SIZE).json()["count"] == SLOW_SIZE
        one.check_growth(before)


def test_many_at_once_cost_little(link: str) -> None:
    with lab(link, rest=0.001) as one:
        before = one.reset_peaks()
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(post(one, SLOW_SIZE // 4))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.json()["count"] for answer in answers] == [SLOW_SIZE // 4] * 8
        one.check_growth(before)


def test_a_slow_client_costs_no_memory(link: str) -> None:
    """It reads an answer a little at a time that its engine sends as fast as it can."""
    with lab(link) as one:
        before = one.reset_peaks()
        with Wire(one.port, receive_buffer=65536) as wire:
            head = (
                f"POST {BLOB} HTTP/1.1\r\nHost: localhost\r\nX-Answer-Bytes: {SLOW_SIZE}\r\nContent-Length: 1\r\n\r\n"
            )
            wire.send(head.encode() + b"x")
            wire.until(b"\r\n\r\n")
            left = SLOW_SIZE - len(wire._rest)
            while left:
                time.sleep(0.001)
                piece = wire.sock.recv(min(left, 65536))
                assert piece
                left -= len(piece)
        one.check_growth(before)
