"""The agent runs on Windows and macOS: no module of Unix is needed, and there are wheels of all it depends on."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLATFORMS = {"win_amd64": "win32", "macosx_11_0_arm64": "darwin", "macosx_11_0_x86_64": "darwin"}

IMPORTS = """
import asyncio, psutil, sys  # these have a part for each platform
for name in ("uvloop", "fcntl", "termios", "resource", "pwd", "grp", "tty", "pty", "posix_ipc"):
    sys.modules[name] = None
import pkgutil, importlib, hive.node, hive.cli.node_command
for module in pkgutil.iter_modules(hive.node.__path__, "hive.node."):
    importlib.import_module(module.name)
heavy = {"httpx", "rich", "fastapi", "pydantic", "sqlalchemy", "prometheus_client"} & set(sys.modules)
assert not heavy, heavy
from hive.node.agent import run_agent
"""
RUNS = (
    IMPORTS
    + """
import asyncio, os, signal
from hive.node.agent_options import Given, read_options
def no_handlers(*_):
    raise NotImplementedError
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = no_handlers
from hive.node import agent
async def stop_soon(self):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(30)
agent.Agent._stay_joined = stop_soon
sys.exit(run_agent(read_options(Given("http://127.0.0.1:1", "k", engines=("http://127.0.0.1:1",)), {})))
"""
)


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_no_module_of_unix_is_needed_and_nothing_heavy_is_loaded() -> None:
    done = run_python(IMPORTS)
    assert done.returncode == 0, done.stderr


def test_without_loop_signals_the_agent_still_ends_in_order() -> None:
    """Windows' event loops have no `add_signal_handler`."""
    done = run_python(RUNS)
    assert done.returncode == 0, done.stderr


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [str(each) for each in project["dependencies"]]


def test_the_base_has_no_dependency_of_one_platform() -> None:
    assert not [each for each in dependencies() if "uvloop" in each or ";" in each]


@pytest.mark.long
@pytest.mark.timeout(280)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_there_are_wheels_of_all_dependencies(platform: str, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:",
        "--platform", platform, "--python-version", "3.11", "--implementation", "cp", "--dest", str(tmp_path),
    ]  # fmt: skip
    environment = dict(os.environ) | {"PIP_NO_INPUT": "1", "PIP_RETRIES": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*command, *dependencies()], capture_output=True, text=True, timeout=270, check=False, env=environment
    )
    if any(mark in done.stderr for mark in ("Connection", "Temporary failure", "Max retries", "timed out")):
        pytest.skip("the package index cannot be reached from here")
    assert done.returncode == 0, done.stderr
    names = {file.name.split("-")[0].lower() for file in tmp_path.iterdir()}
    assert {"httptools", "psutil", "nvidia_ml_py", "msgspec", "websockets"} <= names
    assert all(file.suffix == ".whl" for file in tmp_path.iterdir())
