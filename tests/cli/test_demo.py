"""`hive demo`: it shows a failover, every suggested command works, and it ends at once and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from hive.cli.demo.hints import hive_command
from hive.cli.demo.machines import find_engines
from hive.testing import SimKind, SimOptions, run_in_thread

HIVE = (sys.executable, "-c", "from hive.cli import main; raise SystemExit(main())")
USUAL_PORT = 4483

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@contextmanager
def taken(port: int) -> Iterator[int]:
    """Hold a port (0: any free one). If another program has the port, it is taken already."""
    with socket.socket() as sock:
        with suppress(OSError):
            sock.bind(("127.0.0.1", port))
            sock.listen()
        yield sock.getsockname()[1] or port


@contextmanager
def demo(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo with its temporary files in a directory of the test."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "default", "NO_PROXY": "*"}
    with subprocess.Popen(
        [*HIVE, "demo", *arguments], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the demo's output up to the first line that begins so."""
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if line.startswith(beginning):
            return shown
    raise AssertionError(f"no line {beginning!r} in {shown!r}")


def test_demo_once_answers_every_request_and_shows_a_failover(tmp_path: Path) -> None:
    with taken(USUAL_PORT), demo(tmp_path, "--once") as process:
        out, err = process.communicate(timeout=30)
    lines = out.splitlines()
    assert (process.returncode, err) == (0, "")
    assert lines[-1] == "All 10 requests were answered."
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert f"({USUAL_PORT} is taken), and the nodes that dialed out and joined it:" in lines[1]
    assert [line.split()[0] for line in lines[4:7]] == ["lab-gpu", "office-mac", "old-laptop"]
    assert len(re.findall(r" \d\.\d\d  ok ", out)) == 9
    (moved,) = re.findall(r"^Ollama +sim-code +(\S+) .*  moved ", out, re.MULTILINE)
    assert re.search(rf"^(?!{moved})\S+ broke off; Hive asked {moved}\. ", out, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@posix_only
@pytest.mark.long
def test_every_suggested_command_works_and_ctrl_c_ends_the_demo(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as process:
        shown = read_until(process, "Every request")
        assert max(map(len, shown.splitlines())) <= 100
        chat = found(r"^curl (\S+/api/chat) \\$", shown)
        body = found(r"^  -d '(.*)'$", shown)
        assert '"done":true' in httpx.post(chat, content=body, trust_env=False).text
        assert process.stdout is not None
        process.stdout.readline()
        assert re.match(r"Ollama +sim-chat +\S+ .* ok ", process.stdout.readline())

        host = found(r"^OLLAMA_HOST=(\S+) ollama run sim-chat ", shown)
        assert httpx.get(host, trust_env=False).text == "Ollama is running"

        base_url, key = found(r'base_url="(.*)",', shown), found(r'api_key="(.*)"\)', shown)
        answer = httpx.get(f"{base_url}/models", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
        assert {"sim-chat", "sim-code"} <= {model["id"].partition(":")[0] for model in answer.json()["data"]}

        exported = dict(re.findall(r"^export (\w+)=(\S+)$", shown, re.MULTILINE))
        nodes = subprocess.run(
            [*HIVE, "nodes", "--wide"], env={**os.environ, **exported}, capture_output=True, text=True
        )
        assert len(re.findall(r"^(?:lab-gpu|office-mac|old-laptop) +ready +joined ", nodes.stdout, re.MULTILINE)) == 3

        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@posix_only
@pytest.mark.long
def test_the_suggested_commands_that_join_a_node_work(tmp_path: Path) -> None:
    key_file = tmp_path / "desk.key"
    with run_in_thread(SimOptions()) as engine, demo(tmp_path, "--port", "0") as process:
        shown = read_until(process, "Every request")
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", shown, re.MULTILINE))
        environment = {**os.environ, **exported, "HIVE_ENGINE": engine.url}
        create = found(r"^\S*hive (keys create .*) > desk.key$", shown).split()
        made = subprocess.run([*HIVE, *create], env=environment, capture_output=True, text=True, check=True)
        key_file.write_text(made.stdout)

        arguments = found(r"^\S*hive (node --hub .*)$", shown).split()
        with subprocess.Popen(
            [*HIVE, *arguments], env=environment, cwd=tmp_path, text=True, stderr=subprocess.PIPE
        ) as agent:
            try:
                assert agent.stderr is not None
                assert any(f"joined {exported['HIVE_HUB']} as desk " in line for line in agent.stderr)
                agent.send_signal(signal.SIGINT)
                assert agent.wait(10) == 0
            finally:
                agent.kill()
        assert "hub: node desk has left: the agent stops" in read_until(process, "hub: node desk has left")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    key_file.unlink()
    assert list(tmp_path.iterdir()) == []


@posix_only
@pytest.mark.long
def test_the_demo_says_that_a_node_with_a_revoked_key_has_ended(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as process:
        shown = read_until(process, "Every request")
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", shown, re.MULTILINE))
        revoke = [*HIVE, "keys", "revoke", "lab-gpu"]
        subprocess.run(revoke, env={**os.environ, **exported}, check=True, capture_output=True)
        read_until(process, "agent: lab-gpu has ended: ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")


@posix_only
@pytest.mark.long
def test_ctrl_c_waits_only_a_moment_for_a_running_request(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as process:
        chat = found(r"^curl (\S+/api/chat) \\$", read_until(process, "Every request"))
        body = {"model": "sim-chat", "messages": [], "options": {"num_predict": 100_000}}
        with httpx.stream("POST", chat, json=body, trust_env=False) as answer:
            next(answer.iter_raw())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def found(pattern: str, text: str) -> str:
    """Return the text of the pattern's only group."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match, f"no {pattern} in {text}"
    return match[1]


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.long
def test_a_signal_ends_the_demo_in_the_middle_of_the_show(tmp_path: Path, name: str) -> None:
    with demo(tmp_path, "--port", "0") as process:
        read_until(process, "Six at once")
        process.send_signal(signal.Signals[name])
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with taken(0) as port, demo(tmp_path, "--port", str(port)) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (1, "", f"hive: port {port} on 127.0.0.1 is taken\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SimKind)
def test_a_real_engine_of_any_kind_is_found(kind: SimKind) -> None:
    with run_in_thread(SimOptions(kind=kind)) as engine:
        port = int(engine.url.rpartition(":")[2])
        assert asyncio.run(find_engines({"one": port})) == {"one": engine.url}


def test_ports_that_are_dead_silent_or_no_engine_are_passed_over() -> None:
    with taken(0) as silent, run_in_thread(SimOptions()) as refusing:
        refusing.set_fault("error-500", path="/v1/models")
        ports = {"dead": 1, "silent": silent, "web": int(refusing.url.rpartition(":")[2])}
        assert asyncio.run(find_engines(ports)) == {}


def test_hive_is_named_by_its_path_where_the_shell_does_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "hive"), "demo"])
    assert hive_command() == str(Path(".venv", "bin", "hive"))
