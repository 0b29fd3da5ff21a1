"""`hive serve` as a process: its first start, its port, its end."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hive.testing import SimOptions, run_in_thread
from hive.testing.agent_double import run_agent
from hive.testing.hub import run_hub
from hive.testing.scripted import Call, run_scripted

from .process import ADMIN_KEY, HIVE, environment, serving
from .raw import GENERATE, STREAM, Wire, ask, eventually, get, request


def test_sigterm_refuses_new_work_finishes_what_runs_and_exits_0(tmp_path: Path) -> None:
    may_end = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"a","done":false}\n')
        may_end.wait(10)
        call.chunk(b'{"response":"","done":true}\n')
        call.chunk(b"")

    with run_scripted(script) as engine, serving(tmp_path, "--node", f"a={engine.url}") as hub:
        eventually(lambda: ask(hub.port, get("/readyz")).status == 200)
        with Wire(hub.port) as runs, Wire(hub.port) as idle:
            assert idle.is_open()
            runs.send(request(body=STREAM))
            runs.until(b'"done":false}\n\r\n')
            hub.process.send_signal(signal.SIGTERM)
            assert idle.is_closed()
            with pytest.raises(ConnectionRefusedError):
                Wire(hub.port)
            assert hub.process.poll() is None
            may_end.set()
            assert runs.rest().endswith(b'"done":true}\n\r\n0\r\n\r\n')
        assert hub.process.wait(3) == 0
        assert "Traceback" not in hub.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_hub_ends_at_once_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as hub:
        ask(hub.port, get("/api/version"))
        began = time.monotonic()
        hub.process.send_signal(number)
        assert hub.process.wait(5) == 0
        assert time.monotonic() - began < 2
        assert "Traceback" not in hub.said()


def test_what_outlasts_the_drain_is_ended_and_the_exit_is_0(tmp_path: Path) -> None:
    with (
        run_in_thread(SimOptions(tokens_per_second=20, default_tokens=400)) as engine,
        serving(tmp_path, "--node", f"a={engine.url}", "--drain-timeout", "0.3") as hub,
    ):
        eventually(lambda: ask(hub.port, get("/readyz")).status == 200)
        with Wire(hub.port) as wire:
            wire.send(request(body=STREAM))
            wire.until(b'"done":false}\n\r\n')
            hub.process.send_signal(signal.SIGTERM)
            assert b'{"error":' in wire.rest()
        assert hub.process.wait(3) == 0


def test_a_second_sigterm_does_not_end_it_badly(tmp_path: Path) -> None:
    def script(call: Call) -> None:
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        serving(tmp_path, "--node", f"a={engine.url}", "--drain-timeout", "0.6") as hub,
    ):
        eventually(lambda: ask(hub.port, get("/readyz")).status == 200)
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            engine.call_number(0)
            hub.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            hub.process.send_signal(signal.SIGTERM)
            assert wire.answer().status == 503
        assert hub.process.wait(3) == 0


def test_ctrl_c_again_ends_it_at_once_and_honestly(tmp_path: Path) -> None:
    def script(call: Call) -> None:
        call.wait_for_departure()

    with run_scripted(script) as engine, serving(tmp_path, "--node", f"a={engine.url}") as hub:
        eventually(lambda: ask(hub.port, get("/readyz")).status == 200)
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            engine.call_number(0)
            hub.process.send_signal(signal.SIGINT)
            eventually(lambda: "waiting up to 30 s for 1 exchange under way" in hub.said())
            hub.process.send_signal(signal.SIGINT)
            assert wire.answer().status == 503
        assert hub.process.wait(3) == 0


OK = b'{"response":"whole","done":true}'


@pytest.mark.parametrize("link", ["dialed", "joined"])
def test_a_body_that_still_arrives_at_the_end_is_served_when_it_is_whole_in_time(link: str) -> None:
    data = request(body=GENERATE)
    with (
        run_scripted(lambda call: call.answer(OK)) as engine,
        run_hub({"a": engine.url}, link=link, drain_timeout=5) as hub,
        Wire(hub.port) as wire,
        Wire(hub.port) as idle,
    ):
        assert idle.is_open()
        hub.until(lambda server: all(node.pool.spares for node in server.hub.joining.nodes.values()))
        wire.send(data[:-10])
        hub.until(lambda server: server.server.held_body_bytes > 0)
        hub.begin_stop()
        assert idle.is_closed()
        wire.send(data[-10:])
        answer = wire.answer()
        assert (answer.status, answer.body, answer.header("Connection")) == (200, OK, "close")


def test_a_body_that_is_not_whole_in_time_is_503() -> None:
    with run_hub({}, drain_timeout=0.3, linger_timeout=0.2) as hub, Wire(hub.port) as wire:
        wire.send(request(body=GENERATE)[:-10])
        hub.until(lambda server: server.server.held_body_bytes > 0)
        hub.begin_stop()
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (503, "close")
        assert b"shutting down" in answer.body


def test_a_body_that_came_whole_while_the_hub_ends_gets_an_answer_whatever_its_engine_does() -> None:
    data = request(body=GENERATE)

    def script(call: Call) -> None:
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, drain_timeout=0.6) as hub,
        Wire(hub.port) as wire,
        Wire(hub.port) as idle,
    ):
        assert idle.is_open()
        wire.send(data[:-10])
        hub.until(lambda server: server.server.held_body_bytes > 0)
        hub.begin_stop()
        assert idle.is_closed()
        wire.send(data[-10:])
        engine.call_number(0)
        assert wire.answer().status == 503


def test_a_refusal_that_is_held_back_is_answered_at_the_end() -> None:
    with run_hub({}, local_access="off", wait=False, drain_timeout=0.2) as hub, Wire(hub.port) as wire:
        for number in range(5):
            assert ask(hub.port, get("/api/tags", f"Authorization: Bearer guess-{number}\r\n")).status == 401
        wire.send(get("/api/tags", "Authorization: Bearer wrong\r\n"))
        hub.until(lambda server: any(connection.is_busy for connection in server.server.connections))
        hub.begin_stop()
        assert wire.answer().status in (401, 503)


def test_a_log_that_nobody_reads_stops_neither_the_hub_nor_its_end(tmp_path: Path) -> None:
    command = [HIVE, "serve", "--port", "0", "--data-dir", tmp_path / "data", "--drain-timeout", "0"]
    nobody, err = os.pipe()
    fcntl.fcntl(nobody, fcntl.F_SETPIPE_SZ, 4096)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, env=environment(), cwd=tmp_path)
        assert process.stdout is not None
        with process, process.stdout:
            try:
                said = process.stdout.readline() + process.stdout.readline()
                port = int(said.partition(b"127.0.0.1:")[2].split()[0])
                for _ in range(60):
                    assert ask(port, request(body={"model": "nope"})).status == 404
                process.send_signal(signal.SIGTERM)
                assert process.wait(5) == 0
            finally:
                process.kill()
    finally:
        os.close(nobody)
        os.close(err)


def test_a_taken_port_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [HIVE, "serve", "--port", str(port), "--data-dir", tmp_path / "data"],
            capture_output=True, text=True, env=environment(), timeout=20, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert str(port) in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_the_hub_takes_as_many_sockets_as_it_may(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with serving(tmp_path) as hub:
            assert resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sigterm_closes_the_links_of_nodes_and_exits_0(tmp_path: Path) -> None:
    with run_in_thread(SimOptions(tokens_per_second=100, default_tokens=60)) as engine, serving(tmp_path) as hub:
        head = f"Authorization: Bearer {ADMIN_KEY}\r\nContent-Type: application/json\r\n"
        made = ask(hub.port, request("/hive/v1/keys", {"name": "desk", "role": "worker"}, head=head))
        with run_agent(f"http://127.0.0.1:{hub.port}", str(made.json()["key"]), {"e": engine.url}) as agent:
            eventually(lambda: b"tiny" in ask(hub.port, get("/api/tags")).body)
            with Wire(hub.port) as runs:
                runs.send(request(body=STREAM))
                runs.until(b'"done":false}\n\r\n')
                hub.process.send_signal(signal.SIGTERM)
                assert runs.rest().endswith(b"\n\r\n0\r\n\r\n")
            assert hub.process.wait(3) == 0
            assert agent.call(lambda one: one.byes) == ["the hub stops"]
            assert agent.closes[0] == (1001, "the hub stops")
        assert "Traceback" not in hub.said()


def test_a_start_without_nodes_says_how_to_get_some(tmp_path: Path) -> None:
    with serving(tmp_path) as hub:
        wanted = "(nodes: none yet: --node NAME=URL for machines that the hub can reach, hive node for others)"
        assert wanted in hub.said()


def test_the_first_start_shows_an_admin_key_once(tmp_path: Path) -> None:
    with serving(tmp_path, admin_key=None) as hub:
        line = next(line for line in hub.said().splitlines() if "key" in line.lower())
        key = line.rsplit(" ", 1)[1]
        head = f"Authorization: Bearer {key}\r\n"
        assert ask(hub.port, request("/hive/v1/keys", method="GET", head=head, host="hub.example")).status == 200
    with serving(tmp_path, admin_key=None) as hub:
        assert key not in hub.said()
        assert "admin key" not in hub.said().lower()
        assert ask(hub.port, request("/hive/v1/keys", method="GET", head=head, host="hub.example")).status == 200
    database = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file())
    assert key.encode() not in database
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
