"""What is said of the machine; GPUs that are there, are strange, or are not there."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from hive.node.machine import MachineWatch, NoGpus, NvidiaGpus, find_gpus, is_gpu_idle, models_folder
from hive.wire.link_messages import Gpu


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
    assert is_gpu_idle(Gpu("x", 1, 1, share) for share in shares) is expected


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
