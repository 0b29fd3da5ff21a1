"""The engine as a program: its one line, its end, and how it reads what it is told."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request

import pytest

from hive.sim import program
from hive.sim.options import OptionError, ToolCall

PATIENCE = 30.0
COMMAND = (sys.executable, "-m", "hive.cli", "sim")


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


def test_reads_a_tool_call() -> None:
    assert program.read_tool_call("") is None
    assert program.read_tool_call("now") == ToolCall("now")
    assert program.read_tool_call('weather:{"city": "Paris"}') == ToolCall("weather", {"city": "Paris"})
    with pytest.raises(OptionError, match="tool-call"):
        program.read_tool_call("weather:Paris")


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"allowed are ollama, llama\.cpp, vllm, openai"):
        program.read_kind("olama")
