"""Looks at the machine every two seconds, in a thread of its own.

A driver that hangs must stop neither heartbeats nor the end of the program.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import psutil

from hive.node.processes import Activity, EngineProcesses
from hive.wire.link_messages import Gpu, MachineState, one_line

LOOK_SECONDS = 2.0
MAX_GPUS = 64

_log = logging.getLogger(__name__)


class Gpus(Protocol):
    """The graphics processors of one vendor."""

    def look(self) -> tuple[Gpu, ...]:
        """Return the present state of each GPU."""


class NoGpus:
    """Stands for a machine without GPUs, or with GPUs that the agent cannot read."""

    def look(self) -> tuple[Gpu, ...]:
        return ()


class NvidiaGpus:
    """GPUs as NVML reports them. Raises `Exception` when there is no driver."""

    def __init__(self) -> None:
        self._nvml = nvml = importlib.import_module("pynvml")  # the package has no types
        nvml.nvmlInit()
        count = min(nvml.nvmlDeviceGetCount(), MAX_GPUS)
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def look(self) -> tuple[Gpu, ...]:
        return tuple(gpu for gpu in map(self._look_at, self._devices) if gpu is not None)

    def _look_at(self, device: object) -> Gpu | None:
        nvml = self._nvml
        try:
            name = nvml.nvmlDeviceGetName(device)
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
        except nvml.NVMLError:
            return None
        try:
            share = min(1.0, nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
        except nvml.NVMLError:  # a part of a GPU (MIG) does not report it
            share = None
        shown = one_line(name if isinstance(name, str) else name.decode(errors="replace"), 128)
        return Gpu(shown, int(memory.total), int(memory.used), share)


def find_gpus() -> Gpus:
    """Return the NVIDIA GPUs of this machine. GPUs of other vendors are not reported."""
    try:
        return NvidiaGpus()
    except Exception as error:  # no driver, no library, or another version of it: NVML has an error for each
        _log.debug("no NVIDIA GPUs: %s", error)
        return NoGpus()


def models_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder where models are kept, or its nearest parent that exists."""
    folder = Path(environ["OLLAMA_MODELS"]) if environ.get("OLLAMA_MODELS") else home / ".ollama" / "models"
    service = Path("/usr/share/ollama/.ollama/models")  # Ollama's own installer for Linux uses this folder
    if sys.platform == "linux" and not folder.exists() and service.exists():
        folder = service
    for each in (folder, *folder.parents):
        if each.exists():
            return each
    return Path(folder.anchor or ".")


def may_have_unseen_gpu(devices: Path = Path("/dev"), platform: str = sys.platform) -> bool:
    """Could there be a GPU that NVML does not report? On Linux it would have a device file."""
    return platform != "linux" or any(any(devices.glob(name)) for name in ("kfd", "dri/renderD*", "accel*", "nvidia*"))


def is_gpu_idle(gpus: Iterable[Gpu], *, may_be_more: bool) -> bool | None:
    """Is every GPU idle? None if a GPU does not report it, or if no GPU is reported but there may be one.

    If NVML reports a GPU, a further one is assumed to serve only the screen.
    """
    shares = [gpu.utilization for gpu in gpus]
    if any(shares):
        return False
    return None if None in shares or (may_be_more and not shares) else True


class MachineWatch:
    """Holds the last look at the machine and at the engines' processes."""

    def __init__(self, now: Callable[[], float], gpus: Callable[[], Gpus] = find_gpus) -> None:
        self.machine = MachineState()
        self.activity: dict[str, Activity] = {}
        """What the processes do, by engine."""
        self._now = now
        self._find_gpus = gpus
        self._gpus: Gpus | None = None
        self._folder = models_folder(os.environ, Path.home())
        self._processes: dict[str, EngineProcesses] = {}
        self._has_cpu = False
        self._may_have_unseen_gpu = may_have_unseen_gpu()

    def watch(self, engine: str, port: int) -> None:
        """Look at the processes of an engine, too."""
        self._processes[engine] = EngineProcesses(port)

    async def run(self) -> None:
        """Look for ever. A cancellation ends it at once, even while a look hangs."""
        loop = asyncio.get_running_loop()
        is_over = threading.Event()
        # Not a thread of an executor: the interpreter would wait for it at its end, and a driver may never return.
        threading.Thread(target=self._look_on, args=(loop, is_over), name="machine", daemon=True).start()
        try:
            await loop.create_future()
        finally:
            is_over.set()

    def _look_on(self, loop: asyncio.AbstractEventLoop, is_over: threading.Event) -> None:
        """Look until `is_over` is set. Runs in the thread."""
        while not is_over.is_set():
            try:
                found = self.look()
            except Exception:
                _log.exception("looking at the machine")
            else:
                try:
                    loop.call_soon_threadsafe(self._take, found)
                except RuntimeError:  # the loop was closed while the look hung
                    return
            is_over.wait(LOOK_SECONDS)

    def _take(self, found: tuple[MachineState, dict[str, Activity]]) -> None:
        self.machine, self.activity = found

    def look(self) -> tuple[MachineState, dict[str, Activity]]:
        """Return the state of the machine, and what the engines' processes do."""
        if self._gpus is None:
            self._gpus = self._find_gpus()
        gpus = self._gpus.look()
        idle = is_gpu_idle(gpus, may_be_more=self._may_have_unseen_gpu)
        now = self._now()
        activity = {name: each.look(now, is_gpu_idle=idle) for name, each in list(self._processes.items())}
        memory = psutil.virtual_memory()
        machine = MachineState(self._cpu(), memory.total, memory.total - memory.available, self._disk_free(), gpus)
        return machine, activity

    def _cpu(self) -> float | None:
        """Return the used share of all processors since the last look; None for the first look."""
        percent = psutil.cpu_percent(interval=None)
        is_first, self._has_cpu = not self._has_cpu, True
        return None if is_first else min(1.0, max(0.0, percent / 100))

    def _disk_free(self) -> int | None:
        try:
            return int(psutil.disk_usage(str(self._folder)).free)
        except OSError:
            return None
