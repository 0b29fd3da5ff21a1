"""The `hive` command as a whole: its help, its version, its exit codes, and how little it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hive import __version__

from .conftest import Run

HEAVY = ("httpx", "rich", "sqlalchemy", "alembic", "fastapi", "uvloop")


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version").out == f"hive {__version__}\n"


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    for arguments in ((), ("--help",)):
        shown = run(*arguments)
        assert shown.code == 0
        for command in ("serve", "keys", "nodes", "models", "ps", "sim", "demo"):
            assert f"\n  {command} " in shown.out
    assert "create" in run("keys").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), "hive: No such command 'nope'."),
        (("keys", "create"), "hive: Missing argument 'NAME'."),
        (("keys", "create", "a"), "hive: Missing option '--role'."),
        (
            ("keys", "create", "a", "--role", "king"),
            "hive: --role: expected one of admin, worker, client, got 'king'\n",
        ),
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_code_2(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == 1


def fresh(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["keys", "create", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        f"import sys\nfrom hive.cli import main\nmain({arguments})\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert fresh(script).endswith("loaded: []\n")


@pytest.mark.parametrize("arguments", [["serve"], ["keys", "create", "a", "--role", "client", "--data-dir", "d"]])
def test_a_missing_extra_is_one_sentence(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'httptools', 'fastapi', 'uvloop', 'structlog'):\n"
        "    sys.modules[name] = None\n"
        "sys.stderr = sys.stdout\n"
        f"from hive.cli import main\nprint(main({arguments}))"
    )
    said, code = fresh(script).splitlines()
    assert code == "1"
    assert said.startswith(f"hive: 'hive {arguments[0]}' needs ")
    assert said.endswith(": pip install 'hive-hub[hub]'")
