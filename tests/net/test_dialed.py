"""The dialed link: how the hub reaches an engine, how many connections it keeps, and what it does when it cannot."""

from __future__ import annotations

import socket
import threading
import time

from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import run_hub
from hive.testing.scripted import run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, metric, request

OK = b'{"response":"whole","done":true}'


def test_the_path_of_a_url_precedes_every_request() -> None:
    with (
        run_scripted(lambda call: call.answer(OK)) as engine,
        run_hub({"a": f"{engine.url}/behind/proxy/"}, link="dialed") as hub,
    ):
        assert ask(hub.port, request(body=GENERATE)).body == OK
        assert engine.calls[0].path == "/behind/proxy/api/generate"
        assert all(b" /behind/proxy/" in head for head in engine.probe_heads)


def test_the_pool_is_bounded_by_the_slots() -> None:
    slots = 4
    options = SimOptions(slots=16, ttft=0.05, tokens_per_second=1_000)
    with run_in_thread(options) as engine, run_hub({"a": engine.url}, link="dialed", slots=slots) as hub:
        for _ in range(3):
            wires = [Wire(hub.port) for _ in range(16)]
            for wire in wires:
                wire.send(request(body=STREAM))
            for wire in wires:
                assert wire.answer().is_whole
                wire.sock.close()
        assert engine.state().connections_open <= slots + 4
        assert engine.state().connections_total <= 3 * (slots + 4)


def test_sequential_requests_use_one_connection(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        ask(hub.port, request(body=GENERATE))
        before = engine.state().connections_total
        for body in (GENERATE, STREAM) * 10:
            assert ask(hub.port, request(body=body)).status == 200
        assert engine.state().connections_total <= before + 1


def test_a_node_that_refuses_is_passed_over_and_named_honestly(engine: ThreadedEngine) -> None:
    with run_hub({"dead": "http://127.0.0.1:1", "a": engine.url}, link="dialed") as hub:
        for _ in range(4):
            assert ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") == "a"
        assert metric(hub.port, "hive_node_ready", hub.admin_key, node="dead") == 0


def test_a_connect_that_hangs_has_an_end(engine: ThreadedEngine) -> None:
    """A listener whose backlog is full: the system drops the SYN."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        time.sleep(0.05)
        nodes = {"deaf": f"http://127.0.0.1:{address[1]}", "a": engine.url}
        began = time.monotonic()
        with run_hub(nodes, link="dialed", connect_timeout=0.3, probe_timeout=0.3) as hub:
            assert time.monotonic() - began < 2
            assert ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") == "a"
        for filler in fillers:
            filler.close()


def test_departures_leave_no_connection_behind() -> None:
    options = SimOptions(slots=8, tokens_per_second=50, default_tokens=400)
    with run_in_thread(options) as engine, run_hub({"a": engine.url}, link="dialed", slots=8, probe_interval=60) as hub:
        for _ in range(3):
            wires = [Wire(hub.port) for _ in range(8)]
            for wire in wires:
                wire.send(request(body=STREAM))
            engine.until(lambda state: state.running == 8)
            for wire in wires:
                wire.reset()
            engine.until(lambda state: state.running == 0, 1)
        eventually(lambda: engine.state().connections_open <= 2, 1)


def test_a_departure_while_the_hub_dials_leaves_nothing(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        before = engine.state().connections_open

        def come_and_go() -> None:
            for turn in range(15):
                wire = Wire(hub.port)
                wire.send(request(body=GENERATE))
                time.sleep(turn * 0.0001)
                wire.reset()

        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hub.until(lambda server: not server.hub.register.running)
        eventually(lambda: engine.state().running == 0, 1)
        assert engine.state().connections_open <= before + 12
        assert ask(hub.port, request(body=GENERATE)).status == 200
