"""The engine as a program: its options, its line of output, its exit codes."""

from __future__ import annotations

import inspect
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from hive.cli.sim_command import sim
from hive.sim import program
from hive.sim.options import OptionError, SimOptions, ToolCall

PATIENCE = 30.0
COMMAND = (sys.executable, "-m", "hive.cli", "sim")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*COMMAND, *arguments), capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_says_its_url_in_one_line_and_ends_with_0(end: signal.Signals) -> None:
    with subprocess.Popen((*COMMAND, "--port", "0", "--model", "m"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        with urllib.request.urlopen(f"{url}/api/tags", timeout=PATIENCE) as answer:
            assert b'"m:latest"' in answer.read()
        process.send_signal(end)
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == ""


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


def test_reads_a_tool_call() -> None:
    assert program.read_tool_call("") is None
    assert program.read_tool_call("now") == ToolCall("now")
    assert program.read_tool_call('weather:{"city": "Paris"}') == ToolCall("weather", {"city": "Paris"})
    with pytest.raises(OptionError, match="tool-call"):
        program.read_tool_call("weather:Paris")


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"allowed are ollama, llama\.cpp, vllm, openai"):
        program.read_kind("olama")
