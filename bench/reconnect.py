"""Restarts a hub with many joined nodes, and measures when all are back and what running streams notice."""

from __future__ import annotations

import http.client
import json
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from native import Lab
from processes import BenchError, Process, running
from proxies import Target, free_port, make_keys, running_hub
from results import DIRECT, Reconnect

NODES = 500
STREAMS = 20
TIMEOUT = 60.0
CALM_SECONDS = 2.0
"""Seconds for which streams run beside idle joined nodes, for comparison, and at least beside returning nodes."""
AGENTS = Path(__file__).resolve().parent / "agents.py"


def measure(lab: Lab, engine: int, body: Path) -> Reconnect:
    """Join the nodes to a hub, restart the hub, and wait until all nodes are back."""
    port, admin_key = free_port(), "hk_" + secrets.token_urlsafe(32)
    keys = lab.directory / "worker-keys"
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        hub = first.enter_context(running_hub(lab, "reconnect", [engine], port, admin_key))
        names = [f"far-{number}" for number in range(NODES)]
        keys.write_text("\n".join(make_keys(hub, names, "worker")))
        command = [sys.executable, str(AGENTS), str(port), str(keys)]
        agents = stack.enter_context(running("agents", command, core=lab.load_core, directory=lab.directory))
        _wait_until_all_ready(agents, 1)
        with _streaming(hub, body) as calm:
            time.sleep(CALM_SECONDS)
        began = time.monotonic()
        first.close()
        stopped = time.monotonic()
        hub = stack.enter_context(running_hub(lab, "reconnect", [engine], port, admin_key))
        direct = Target(DIRECT, engine, "none", None)
        with _streaming(direct, body) as alone, _streaming(hub, body) as busy:
            until = time.monotonic() + CALM_SECONDS
            back = _wait_until_all_ready(agents, 2)
            time.sleep(max(0.0, until - time.monotonic()))
        return Reconnect(NODES, back - began, stopped - began, _joined(hub), STREAMS, max(calm), max(busy), max(alone))


def _joined(hub: Target) -> int:
    """Return how many of the nodes the hub itself calls ready."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
    connection.request("GET", "/hive/v1/nodes", headers={"Authorization": f"Bearer {hub.admin_key}"})
    nodes = json.loads(connection.getresponse().read())["nodes"]
    connection.close()
    return sum(node["name"].startswith("far-") and node["status"] == "ready" for node in nodes)


def _wait_until_all_ready(agents: Process, times: int) -> float:
    """Return the moment when all nodes were ready for the `times`-th time."""
    deadline = time.monotonic() + TIMEOUT
    while len(said := agents.log.read_text().splitlines(keepends=True)) < times or not said[-1].endswith("\n"):
        if not agents.is_running() or time.monotonic() > deadline:
            raise BenchError(f"Not all of {NODES} nodes became ready; they said:\n{agents.last_words()}")
        time.sleep(0.05)
    try:
        return float(said[times - 1])
    except ValueError:
        raise BenchError(f"The nodes failed:\n{agents.last_words()}") from None


@contextmanager
def _streaming(hub: Target, body: Path) -> Iterator[list[float]]:
    """Keep some streams running while the block runs. At its end the list holds the largest gap in each, in seconds."""
    gaps: list[float] = []
    is_over = threading.Event()
    reader = threading.Thread(target=_read_streams, args=(hub, body.read_bytes(), is_over, gaps))
    reader.start()
    try:
        yield gaps
    finally:
        is_over.set()
        reader.join()
    if len(gaps) < STREAMS:
        raise BenchError(f"Of {STREAMS} streams beside {NODES} joined nodes only {len(gaps)} ran to the end.")


def _read_streams(hub: Target, body: bytes, is_over: threading.Event, gaps: list[float]) -> None:
    """Ask for streams again and again. Note the largest gap between two reads of one stream."""
    head = f"POST /api/chat HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {hub.key}\r\nContent-Length: {len(body)}"
    request = head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        streams = [
            Stream(stack.enter_context(socket.create_connection(("127.0.0.1", hub.port)))) for _ in range(STREAMS)
        ]
        for stream in streams:
            stream.ask(request)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while not is_over.is_set():
            for ready, _ in selector.select(0.1):
                stream = ready.data
                if not stream.read():
                    return
                if stream.is_complete:
                    stream.ask(request)
        gaps.extend(stream.largest for stream in streams)


class Stream:
    """A connection with one answer at a time. It holds the largest gap of all its answers."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.largest = 0.0
        self.is_complete = False
        self._read_at = 0.0
        self._last = b""

    def ask(self, request: bytes) -> None:
        """Begin the next answer."""
        self.socket.sendall(request)
        self._read_at, self._last, self.is_complete = 0.0, b"", False

    def read(self) -> bool:
        """Read what has come. Return False if it is not part of a good answer."""
        data, now = self.socket.recv(65536), time.monotonic()
        is_good = bool(data) and (bool(self._read_at) or data.startswith(b"HTTP/1.1 200 "))
        if self._read_at:
            self.largest = max(self.largest, now - self._read_at)
        self._read_at, self._last = now, (self._last + data)[-5:]
        self.is_complete = self._last == b"0\r\n\r\n"
        return is_good
