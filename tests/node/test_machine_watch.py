"""What is said of the machine; GPUs that are there, are strange, or are not there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from hive.node import machine_watch as machine
from hive.node.machine_watch import (
    MachineWatch,
    NoGpus,
    NvidiaGpus,
    find_gpus,
    is_gpu_idle,
    may_have_unseen_gpu,
    models_folder,
)
from hive.wire.link_messages import Gpu

from ..process import environment
from .hub import run, until


class NVMLError(Exception):
    pass


def nvml(**more: object) -> types.ModuleType:
    """Return a driver with two GPUs; the second is a part of one, and knows no utilisation."""
    module = types.ModuleType("pynvml")

    def rates(device: int) -> object:
        if device == 1:
            raise NVMLError
        return types.SimpleNamespace(gpu=97)

    module.__dict__.update({
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda device: "NVIDIA RTX 4090" if device == 0 else b"MIG 1g",
        "nvmlDeviceGetMemoryInfo": lambda device: types.SimpleNamespace(total=100, used=40),
        "nvmlDeviceGetUtilizationRates": rates,
    } | more)  # fmt: skip
    return module


def test_gpus_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert find_gpus().look() == (Gpu("NVIDIA RTX 4090", 100, 40, 0.97), Gpu("MIG 1g", 100, 40, None))


def test_a_gpu_that_fell_off_the_bus_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: int) -> object:
        raise NVMLError

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlDeviceGetMemoryInfo=lost))
    assert NvidiaGpus().look() == ()


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=absent))
    assert find_gpus().look() == ()
    monkeypatch.setitem(sys.modules, "pynvml", None)  # type: ignore[arg-type]
    assert find_gpus().look() == ()


@pytest.mark.parametrize(
    ("shares", "expected"), [((), True), ((0.0, 0.0), True), ((0.0, 0.5), False), ((None, 0.5), False), ((None,), None)]
)
def test_gpus_are_idle_when_all_say_so(shares: tuple[float | None, ...], expected: bool | None) -> None:
    gpus = [Gpu("x", 1, 1, share) for share in shares]
    assert is_gpu_idle(gpus, may_be_more=False) is expected
    assert is_gpu_idle(gpus, may_be_more=True) is (expected if gpus else None)


def test_a_device_file_shows_a_gpu_that_nvml_does_not_report(tmp_path: Path) -> None:
    assert not may_have_unseen_gpu(tmp_path, "linux")
    assert may_have_unseen_gpu(tmp_path, "darwin")
    assert may_have_unseen_gpu(tmp_path, "win32")
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "card0").touch()
    assert not may_have_unseen_gpu(tmp_path, "linux"), "it only shows pictures"
    (tmp_path / "dri" / "renderD128").touch()
    assert may_have_unseen_gpu(tmp_path, "linux")


def test_the_first_look_knows_no_share_of_the_processors() -> None:
    watch = MachineWatch(lambda: 0.0, NoGpus)
    first, _ = watch.look()
    second, _ = watch.look()
    assert first.cpu is None
    assert second.cpu is not None
    assert 0 <= second.cpu <= 1
    assert second.memory_total_bytes
    assert second.memory_used_bytes
    assert second.memory_used_bytes < second.memory_total_bytes
    assert second.disk_free_bytes


def test_the_models_folder_is_ollamas_or_the_nearest_that_exists(tmp_path: Path) -> None:
    assert models_folder({"OLLAMA_MODELS": str(tmp_path / "not" / "yet")}, Path("/no")) == tmp_path
    models = tmp_path / ".ollama" / "models"
    models.mkdir(parents=True)
    assert models_folder({}, tmp_path) == models


def test_a_disk_that_cannot_be_seen_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MachineWatch(lambda: 0.0, NoGpus)

    def gone(path: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("psutil.disk_usage", gone)
    assert watch.look()[0].disk_free_bytes is None


# --- looking, again and again ---


class OddGpus:
    """A driver whose first look fails."""

    def __init__(self) -> None:
        self.looks = 0

    def look(self) -> tuple[Gpu, ...]:
        self.looks += 1
        if self.looks == 1:
            raise OSError("the driver is being replaced")
        return (Gpu(f"look {self.looks}", 1),)


def test_a_look_that_fails_is_told_and_the_next_one_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "LOOK_SECONDS", 0.01)

    async def main() -> None:
        watch = MachineWatch(lambda: 0.0, OddGpus)
        task = asyncio.create_task(watch.run())
        await until(lambda: watch.machine.gpus and watch.machine.gpus[0].name == "look 3")
        task.cancel()
        await asyncio.wait([task])

    run(main())
    assert "the driver is being replaced" in caplog.text


def test_a_watch_that_is_stopped_does_not_wait_for_a_look_that_hangs() -> None:
    class HungGpus:
        def look(self) -> tuple[Gpu, ...]:
            has_begun.set()
            may_return.wait()
            return ()

    has_begun, may_return = threading.Event(), threading.Event()

    async def main() -> None:
        task = asyncio.create_task(MachineWatch(lambda: 0.0, HungGpus).run())
        await until(has_begun.is_set)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled()

    before = set(threading.enumerate())
    try:
        run(main())
        threads = [each for each in threading.enumerate() if each.name == "machine" and each not in before]
    finally:
        may_return.set()  # and finds the loop closed
    assert [thread.daemon for thread in threads] == [True]
    threads[0].join(10)
    assert not threads[0].is_alive()


HUNG = """
import asyncio, threading
from hive.node.machine_watch import MachineWatch

class HungGpus:
    def look(self):
        has_begun.set()
        threading.Event().wait()

async def main():
    task = asyncio.create_task(MachineWatch(lambda: 0.0, HungGpus).run())
    await asyncio.to_thread(has_begun.wait)
    task.cancel()
    await asyncio.wait([task])

has_begun = threading.Event()
asyncio.run(main())
"""


def test_a_look_that_never_returns_does_not_keep_the_program() -> None:
    done = subprocess.run([sys.executable, "-c", HUNG], env=environment(), capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
