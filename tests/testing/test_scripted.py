"""The scripted engine: which script a request gets, what is shown of it, and how an answer can end."""

from __future__ import annotations

import json
import socket

import pytest

from hive.testing.scripted import Call, run_scripted

from ..raw import Wire, ask, get, request


def numbered(text: bytes) -> object:
    return lambda call: call.answer(text + b"%d" % call.number)


def test_requests_for_work_get_the_scripts_in_turn_and_the_last_for_ever() -> None:
    with run_scripted(numbered(b"a"), numbered(b"b")) as engine:  # type: ignore[arg-type]
        answers = [ask(engine.port, request()).body for _ in range(3)]
    assert answers == [b"a0", b"b1", b"b2"]


def test_a_call_shows_what_arrived() -> None:
    with run_scripted(lambda call: call.answer(b"")) as engine:
        ask(engine.port, request("/api/chat?x=1", b'{"a":1}', head="X-Test: yes\r\n"))
        call = engine.call_number(0)
    assert (call.path, call.body, call.fields["x-test"], call.number, call.connection) == (
        "/api/chat?x=1",
        b'{"a":1}',
        "yes",
        0,
        0,
    )


def test_probes_are_answered_as_an_ollama_does_and_are_no_work() -> None:
    with run_scripted(models=("tiny:latest", "far:latest")) as engine:
        engine.relayed = ("far:latest",)
        engine.loaded = ("tiny:latest",)
        tags = ask(engine.port, get("/api/tags")).json()["models"]
        loaded = ask(engine.port, get("/api/ps")).json()["models"]
        assert "version" in ask(engine.port, get("/base/api/version")).json()
        assert ask(engine.port, get("/props")).status == 404
        assert [("remote_host" in each) for each in tags] == [False, True]  # type: ignore[attr-defined]
        assert [each["name"] for each in loaded] == ["tiny:latest"]  # type: ignore[attr-defined]
        assert (engine.calls, len(engine.probe_heads)) == ([], 4)


def test_a_load_is_no_work_and_has_a_script_of_its_own() -> None:
    with run_scripted(numbered(b"work")) as engine:  # type: ignore[arg-type]
        assert ask(engine.port, request("/api/embed", {"model": "tiny"})).json() == {"embeddings": []}
        engine.on_load = lambda call: call.answer(b"{}", status="503 Busy")
        assert ask(engine.port, request("/api/embed", {"model": "tiny"})).status == 503
        assert ask(engine.port, request("/api/embed", {"model": "tiny", "input": "x"})).body == b"work0"
        assert (len(engine.loads), len(engine.calls)) == (2, 1)


def test_a_chunked_answer_is_sent_piece_by_piece() -> None:
    def script(call: Call) -> None:
        call.begin("text/event-stream", "X-More: yes\r\n")
        for piece in (b"one", b"two", b""):
            call.chunk(piece)

    with run_scripted(script) as engine:
        answer = ask(engine.port, request())
    assert (answer.body, answer.is_whole) == (b"onetwo", True)
    assert (answer.header("Content-Type"), answer.header("X-More")) == ("text/event-stream", "yes")


def test_a_connection_carries_several_requests_until_a_script_ends_it() -> None:
    def script(call: Call) -> None:
        call.answer(b"%d" % call.connection)
        if call.number == 1:
            call.close()

    with run_scripted(script) as engine:
        with Wire(engine.port) as wire:
            for _ in range(2):
                wire.send(request())
                assert wire.answer().body == b"0"
            assert wire.is_closed()
        assert ask(engine.port, request()).body == b"1"
        assert engine.connections == 2


def test_a_reset_is_no_end_in_good_order() -> None:
    with run_scripted(Call.reset) as engine, Wire(engine.port) as wire:
        wire.send(request())
        with pytest.raises(ConnectionResetError):
            wire.rest()


def test_a_script_can_wait_for_the_departure_of_its_client() -> None:
    left = []
    with run_scripted(lambda call: left.append(call.wait_for_departure())) as engine:
        with Wire(engine.port) as wire:
            wire.send(request())
            engine.call_number(0)
        engine.until(lambda one: one.open_connections == 0)
    assert len(left) == 1


def test_a_client_that_stays_is_told_to_the_script() -> None:
    seen = []

    def script(call: Call) -> None:
        with pytest.raises(TimeoutError):
            call.wait_for_departure(0.05)
        seen.append("it stays")

    with run_scripted(script) as engine, Wire(engine.port) as wire:
        wire.send(request())
        assert wire.is_closed()
    assert seen == ["it stays"]


def test_what_a_script_raises_fails_the_test() -> None:
    def script(call: Call) -> None:
        raise ZeroDivisionError

    def play() -> None:
        with run_scripted(script) as engine, Wire(engine.port) as wire:
            wire.send(request())
            assert wire.is_closed()

    with pytest.raises(ZeroDivisionError):
        play()


def test_an_engine_drops_its_idle_connections() -> None:
    with run_scripted() as engine, Wire(engine.port) as wire:
        wire.send(get("/api/version"))
        assert json.loads(wire.answer().body)
        engine.drop_connections()
        assert wire.is_closed()


def test_an_engine_may_close_after_each_probe() -> None:
    with run_scripted() as engine, Wire(engine.port) as wire:
        engine.closes_after_probe = True
        wire.send(get("/api/version"))
        assert wire.answer().status == 200
        assert wire.is_closed()


def test_a_port_is_free_after_the_block() -> None:
    with run_scripted() as engine:
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", engine.port), timeout=10)
