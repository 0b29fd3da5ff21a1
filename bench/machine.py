"""The machine of a run: which cores are used, and what a reader must know to compare figures."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from processes import BenchError
from proxies import BEFORE, BEFORE_JOINED, JOINED, NODE, version


def choose_cores() -> tuple[int, int]:
    """Return the core of the proxies and the core of load and engine."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise BenchError("The benchmark needs Linux: it pins processes and reads their memory from /proc.")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("The benchmark needs two cores: one for the proxy, one for load and engine.")
    return cores[0], cores[1]


def describe(proxies: Sequence[str]) -> str:
    """Return the machine and the versions in one paragraph; call it before the run, for the load average."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    facts = [
        f"{_cpu_model()}, {os.cpu_count()} cores (one for the proxy, one for load and engine)",
        f"Linux {kernel[0] if kernel else platform.release()}",
        f"load average before the run {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}",
        *(
            f"{proxy} {version(proxy)}"
            for proxy in proxies
            if proxy not in (JOINED, NODE, BEFORE, BEFORE_JOINED) or "hive" not in proxies
        ),
    ]
    if "hive" in proxies:
        facts += [f"{package} {metadata.version(package)}" for package in ("uvloop", "httptools")]
    return "; ".join(facts) + "."


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()
