"""The processes of an engine on this machine: are they stopped, and for how long have they been idle?

They are found by the port on which the engine listens, if this user may see its owner. Child processes are the
engine's runners. What cannot be seen is unknown, and never counts against an engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

SEARCH_SECONDS = 10.0
"""Seconds between two searches for the listening process: a search reads every connection of the machine."""
IDLE_SHARE = 0.02
"""The share of one processor that still counts as idle: a runner may be asked for its health now and then."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the processes of an engine do. `idle_s` is None if it is unknown."""

    idle_s: float | None = None
    is_stopped: bool = False


class EngineProcesses:
    """The processes that belong to one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server: psutil.Process | None = None
        self._searched_at = float("-inf")
        self._cpu: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None
        self._busy_at: float | None = None
        """When a process was last seen at work."""

    def look(self, now: float, *, is_gpu_idle: bool | None) -> Activity:
        """Return what the processes do. `is_gpu_idle` is None if that is unknown."""
        server = self._find(now)
        if server is None:
            self._looked_at = self._busy_at = None
            self._cpu = {}
            return Activity()
        try:
            children = server.children(recursive=True)
            processes = [server, *children]
            is_stopped = any(_is_stopped(process) for process in processes)
            # Our own probes keep the server process busy. If it has runners, only they count as work.
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
        """Have the processes used noticeable processor time since the last look?"""
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
    except psutil.AccessDenied:  # macOS shows a user only his own processes
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
