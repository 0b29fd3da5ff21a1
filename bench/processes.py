"""Processes of the benchmark. Each is started on one core, measured from outside, and stopped by its own id."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT = 35.0
"""A hub may drain for 30 s."""
FILES_WANTED = 20_000
"""A proxy holds two sockets a stream. The usual limit of 1,024 files is too few for 1,000 streams."""


class BenchError(Exception):
    """The benchmark cannot go on; the message is for a person."""


@dataclass(frozen=True)
class Memory:
    """The memory of a process and its children, in bytes. A page shared by n processes counts 1/n in `pss`."""

    rss: int
    pss: int


@dataclass(frozen=True)
class Process:
    """A running program; its output is in `log`."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far by the process and its living children, user and system."""
        if not self.is_running():
            raise BenchError(f"{self.name} has ended by itself; it said:\n{self.last_words()}")
        return sum(_cpu_seconds(pid) for pid in _family(self.popen.pid))

    def memory(self) -> Memory:
        """Return the memory that the process and its living children use now."""
        parts = [_memory(pid) for pid in _family(self.popen.pid)]
        return Memory(sum(part.rss for part in parts), sum(part.pss for part in parts))

    def last_words(self, lines: int = 8) -> str:
        """Return the last lines of the program's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    core: int,
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a program on one core, with its output in a file, while the block runs."""
    log = directory / f"{name}.log"
    with log.open("wb") as output, on_core(core):
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory, env=environment
        )
    try:
        yield Process(name, popen, log)
    finally:
        popen.terminate()
        try:
            popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process, and all processes that it starts in the block, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_files() -> None:
    """Raise the limit of open files, as a service's unit file would. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _family(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    family = [pid]
    for parent in family:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            family.extend(int(child) for child in children.read_text().split())
    return family


def _cpu_seconds(pid: int) -> float:
    # What clock_getcpuclockid(3) computes: the complemented id, shifted, and 2 for CPUCLOCK_SCHED. This clock
    # has the nanoseconds of all threads, ended ones too; /proc/PID/stat has only hundredths of a second.
    return time.clock_gettime((~pid << 3) | 2)


def _memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return Memory(_kilobytes(fields["Rss"]), _kilobytes(fields["Pss"]))


def _kilobytes(field: str) -> int:
    return int(field.split()[0]) * 1024
