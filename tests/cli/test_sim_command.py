"""`hive sim`: its defaults, its one-sentence errors and its exit codes."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys

from hive.cli.sim_command import sim
from hive.sim.faults import FaultKind
from hive.sim.options import SimOptions

PATIENCE = 30.0
COMMAND = (sys.executable, "-m", "hive.cli", "sim")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*COMMAND, *arguments), capture_output=True, text=True, timeout=PATIENCE)


def test_a_taken_port_is_one_sentence_and_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port))
    assert (ended.returncode, ended.stderr) == (1, f"hive sim: port {port} of 127.0.0.1 is taken\n")


def test_an_unknown_fault_is_one_sentence_and_2() -> None:
    ended = run("--fault", "nonsense")
    assert ended.returncode == 2
    assert ended.stderr.startswith("hive sim: fault 'nonsense' is unknown; allowed are freeze, ")
    assert ended.stderr.count("\n") == 1


def test_the_defaults_shown_are_the_defaults_that_hold() -> None:
    shown = {name: parameter.default for name, parameter in inspect.signature(sim).parameters.items()}
    options = SimOptions()
    names = set(shown) & set(SimOptions.__dataclass_fields__) - {"tool_call"}
    assert len(names) >= 9
    assert {name: shown[name] for name in names} == {name: getattr(options, name) for name in names}


def test_an_option_that_cannot_be_is_one_sentence_and_2() -> None:
    ended = run("--port", "0", "--slots", "0")
    assert (ended.returncode, ended.stderr) == (2, "hive sim: slots: expected at least 1, got 0\n")


def test_the_faults_are_listed_without_an_engine() -> None:
    ended = run("--list-faults")
    assert ended.returncode == 0
    assert [kind for kind in FaultKind if kind not in ended.stdout] == []
