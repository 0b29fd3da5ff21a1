"""A client's connection to the engine: one request after the other, and what a departure ends."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from hive.testing import SimOptions, run_in_thread

ASK = {"model": "tiny", "prompt": "hello"}


@pytest.mark.parametrize("leave", [socket.socket.close, lambda link: link.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_stops_the_generation(client_of: type, read_until: Callable, leave: Callable) -> None:
    with run_in_thread(SimOptions(tokens_per_second=200)) as engine:
        client = client_of(engine)
        with client.raw("/api/generate", ASK | {"options": {"num_predict": 100_000}}) as link:
            read_until(link, b'"done":false')
            assert engine.state().running == 1
            leave(link)
            state = engine.until(lambda state: state.cancelled == 1)
        assert (state.running, state.finished, state.requests[-1].outcome) == (0, 0, "cancelled")
        assert state.tokens < 10_000


def test_requests_follow_one_another_on_a_connection(client_of: type, read_until: Callable) -> None:
    with run_in_thread() as engine:
        with client_of(engine).raw("/api/generate", ASK | {"options": {"num_predict": 1}}) as link:
            read_until(link, b"\r\n0\r\n\r\n")
            link.sendall(b"GET /api/version HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b'"version":"0.33.0"' in (rest := read_until(link, b"Ollama is running"))
            assert b"Connection: close" in rest
            assert link.recv(1) == b""
        assert engine.state().connections_total == 1


def test_a_chunked_body_may_come_after_100_continue(read_until: Callable) -> None:
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(b"POST /api/show HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_until(link, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(b'10\r\n{"model":"tiny"}\r\n0\r\n\r\n')
        assert b"200 OK" in read_until(link, b"capabilities")


def test_a_client_of_http_1_0_reads_until_the_end(read_all: Callable) -> None:
    body = json.dumps(ASK).encode()
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head, _, rest = read_all(link).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert json.loads(rest.splitlines()[-1])["done"] is True


def test_what_is_no_request_is_refused_and_the_connection_closed(read_all: Callable) -> None:
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(b"nonsense\r\n\r\n")
        answer = read_all(link)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_a_request_behind_another_waits_for_its_answer(read_until: Callable) -> None:
    ask = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(ask % b"/api/version" + ask % b"/")
        data = read_until(link, b"Ollama is running")
    assert data.index(b'"version"') < data.index(b"Ollama is running")


def test_connections_are_counted_while_they_are_open() -> None:
    with run_in_thread() as engine:
        with socket.create_connection(("127.0.0.1", engine.port), timeout=20):
            engine.until(lambda state: state.connections_open == 1)
        state = engine.until(lambda state: state.connections_open == 0)
    assert state.connections_total == 1
