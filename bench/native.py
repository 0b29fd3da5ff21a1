"""The C programs of the benchmark: compiling them, running the engine, running the load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

from processes import BenchError, on_core, running

HERE = Path(__file__).resolve().parent
CHUNKS = 100
LINES = CHUNKS + 1
"""The chunks of a stream and its last line."""
SPACING = 0.020
STREAM_SECONDS = CHUNKS * SPACING
SETTLE = 0.2
"""Seconds before and after a measurement. In them a proxy accepts connections, writes its log and becomes idle."""


@dataclass(frozen=True)
class Lab:
    """The place of a run: its temporary directory, its two cores and the programs compiled for it."""

    directory: Path
    proxy_core: int
    load_core: int
    engine: Path
    load: Path
    node: Path
    before: Path | None = None
    """The sources of an earlier commit, to be measured beside those of today."""


@dataclass(frozen=True)
class Load:
    """The requests of a load: `each` requests a connection or, if that is 0, as many as `seconds` allow."""

    connections: int
    body: Path
    seconds: float = 0.0
    each: int = 0
    ramp: float = 0.0
    is_streamed: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the load program saw: `requests` were answered whole with 200; `lines` came in `reads` reads."""

    requests: int
    failed: int
    broken: int
    lines: int
    reads: int
    peak: int
    seconds: float
    p50_us: float
    p99_us: float
    first_failure: str


def compile_programs(directory: Path) -> tuple[Path, Path, Path]:
    """Compile engine, load program and node into a directory and return where they are."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("Nothing can be measured without a C compiler (Debian: apt install gcc libc6-dev).")
    for name in ("engine", "load", "node"):
        command = [compiler, "-O2", "-Wall", "-o", str(directory / name), str(HERE / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"bench/{name}.c could not be compiled:\n{done.stderr}")
    return directory / "engine", directory / "load", directory / "node"


@contextmanager
def running_engine(lab: Lab, name: str) -> Iterator[int]:
    """Run a fake engine on the load's core while the block runs; yield its port."""
    command = [str(lab.engine), "0", str(CHUNKS), str(round(SPACING * 1e6))]
    with running(name, command, core=lab.load_core, directory=lab.directory) as process:
        deadline = time.monotonic() + 5
        while not (said := process.log.read_text()).endswith("\n"):
            if not process.is_running() or time.monotonic() > deadline:
                raise BenchError(f"The fake engine did not start: {said}")
            time.sleep(0.01)
        yield int(said)


def run_load(lab: Lab, load: Load, port: int, key: str, on_edge: Callable[[], None]) -> Outcome:
    """Run one load to its end. Call `on_edge` just before the first request and just after the last answer."""
    command = [str(lab.load), "--port", str(port), "--connections", str(load.connections)]
    command += ["--each", str(load.each)] if load.each else ["--seconds", str(load.seconds)]
    command += ["--ramp-ms", str(round(load.ramp * 1000)), "--lines", str(LINES if load.is_streamed else 0)]
    command += ["--key", key, "--body", str(load.body)]
    with on_core(lab.load_core):
        popen = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    with popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        assert popen.stderr is not None
        if popen.stdout.readline() != b"ready\n":
            raise BenchError(f"The load program did not start: {popen.stderr.read().decode()}")
        time.sleep(SETTLE)
        on_edge()
        popen.stdin.write(b"go\n")
        popen.stdin.flush()
        report = popen.stdout.readline()
        time.sleep(SETTLE)
        on_edge()
    return Outcome(**json.loads(report))
