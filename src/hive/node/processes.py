"""An engine's processes on this machine: are they stopped, and for how long have they done nothing?

Found by the port that the engine listens on, where this user may see whose it is; children are its runners. Whatever
cannot be seen is not known, and nobody is blamed for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

SEARCH_SECONDS = 10.0
"""Between two searches for who listens: it reads every connection of the machine."""
IDLE_SHARE = 0.02
"""Of one processor: a runner that is asked for its health from time to time still does nothing."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine's processes do. `idle_s` is None when that is not known."""

    idle_s: float | None = None
    is_stopped: bool = False


class EngineProcesses:
    """The processes behind one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server: psutil.Process | None = None
        self._searched_at = float("-inf")
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None
        self._busy_at: float | None = None
        """When something was last seen to work."""

    def look(self, now: float, *, is_gpu_idle: bool | None) -> Activity:
        """Return what they do. `is_gpu_idle`: None when there are GPUs and nobody knows."""
        server = self._find(now)
        if server is None:
            self._looked_at = self._busy_at = None
            self._cpu = {}
            return Activity()
        try:
            children = server.children(recursive=True)
            processes = [server, *children]
            is_stopped = any(_is_stopped(process) for process in processes)
            # Questions of ours keep the server itself busy; work is done by its runners, if it has any.
            has_worked = self._has_worked(children or processes, now)
        except (psutil.Error, OSError):
            self._server = None
            return Activity()
        if has_worked or is_gpu_idle is not True or self._busy_at is None:
            self._busy_at = now
        return Activity(None if is_gpu_idle is None else now - self._busy_at, is_stopped)

    def _find(self, now: float) -> psutil.Process | None:
        if self._server is not None and self._server.is_running():
            return self._server
        self._server = None
        if now - self._searched_at >= SEARCH_SECONDS:
            self._searched_at = now
            self._server = _listener(self.port)
        return self._server

    def _has_worked(self, processes: Iterable[psutil.Process], now: float) -> bool:
        """Have they used more of a processor than nothing since the last look?"""
        used: dict[tuple[int, float], float] = {}
        for process in processes:
            try:
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        grown = sum(seconds - self._cpu.get(key, 0.0) for key, seconds in used.items())
        before, self._looked_at = self._looked_at, now
        self._cpu = used
        return before is None or grown > IDLE_SHARE * max(now - before, 0.5)


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _listener(port: int) -> psutil.Process | None:
    """Return the process that listens on a port, if this user may see it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS: only one's own processes
        return _own_listener(port)
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.pid and connection.status == psutil.CONN_LISTEN and _port(connection.laddr) == port:
            try:
                return psutil.Process(connection.pid)
            except psutil.Error:
                return None
    return None


def _own_listener(port: int) -> psutil.Process | None:
    for process in psutil.process_iter():
        try:
            connections = process.net_connections("tcp")
        except (psutil.Error, OSError):
            continue
        if any(each.status == psutil.CONN_LISTEN and _port(each.laddr) == port for each in connections):
            return process
    return None


def _port(address: object) -> int | None:
    return getattr(address, "port", None)
