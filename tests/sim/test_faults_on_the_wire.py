"""Each fault as a client sees it: which bytes come, and which do not."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hive.sim.faults import FaultKind
from hive.testing import SimOptions, ThreadedEngine, run_in_thread

ASK = {"model": "tiny", "prompt": "hello", "options": {"num_predict": 5}}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 5}
END = b"\r\n0\r\n\r\n"


@pytest.fixture
def engine() -> Iterator[ThreadedEngine]:
    with run_in_thread(SimOptions(slots=4)) as running:
        yield running


def tokens(data: bytes) -> int:
    return data.count(b'"done":false')


def test_freeze_holds_probes_and_begun_streams_until_it_is_cleared(
    engine: ThreadedEngine, client_of: type, read_until: Callable
) -> None:
    client = client_of(engine)
    engine.set_fault("freeze-stream", 2, count=1)
    with client.raw("/api/generate", ASK) as stream, client.raw("/api/version") as probe:
        begun = read_until(stream, b'"done":false}\n\r\n')
        read_until(probe, b"version")
        engine.set_fault("freeze")
        with client.raw("/api/version") as late:
            state = engine.until(lambda state: state.requests[-1].faults == ["freeze"])
            assert state.requests[-1].status == 0
            engine.clear_faults()
            read_until(late, b"version")
        assert tokens(begun + read_until(stream, END)) == 5


def test_freeze_for_some_seconds_ends_by_itself(engine: ThreadedEngine, client_of: type) -> None:
    engine.set_fault("freeze", 0.01, count=1)
    assert client_of(engine).ask("/api/version").status == 200


def test_a_client_may_leave_a_frozen_engine(engine: ThreadedEngine, client_of: type) -> None:
    engine.set_fault("freeze")
    with client_of(engine).raw("/api/version"):
        engine.until(lambda state: bool(state.requests))
    assert engine.until(lambda state: state.cancelled == 1).connections_open == 0


def test_freeze_stream_stops_after_its_tokens(engine: ThreadedEngine, client_of: type, read_until: Callable) -> None:
    engine.set_fault("freeze-stream", 3)
    with client_of(engine).raw("/api/generate", ASK) as link:
        data = b""
        while tokens(data) < 3:
            data += read_until(link, b"}\n\r\n")
        assert engine.until(lambda state: state.tokens == 3).running == 1
        engine.clear_faults()
        assert tokens(data + read_until(link, END)) == 5


@pytest.mark.parametrize("count", [0, 2, 99])
def test_drop_closes_after_its_tokens(engine: ThreadedEngine, client_of: type, read_all: Callable, count: int) -> None:
    engine.set_fault("drop", count)
    with client_of(engine).raw("/api/generate", ASK) as link:
        data = read_all(link)
    assert tokens(data) == min(count, 5)
    assert b'"done":true' not in data
    assert not data.endswith(END)
    assert bool(data) == bool(count)
    assert engine.state().cut == 1


def test_drop_closes_in_the_middle_of_a_whole_answer(engine: ThreadedEngine, client_of: type) -> None:
    engine.set_fault("drop")
    with pytest.raises(http.client.IncompleteRead):
        client_of(engine).ask("/api/generate", ASK | {"stream": False})


def test_reset_sends_rst(engine: ThreadedEngine, client_of: type, read_all: Callable) -> None:
    engine.set_fault("reset", 0)
    with client_of(engine).raw("/api/generate", ASK) as link, pytest.raises(ConnectionResetError):
        read_all(link)


def test_cut_line_closes_inside_a_line(engine: ThreadedEngine, client_of: type, read_all: Callable) -> None:
    engine.set_fault("cut-line", 2)
    with client_of(engine).raw("/api/generate", ASK) as link:
        data = read_all(link)
    lines = [line for line in data.split(b"\r\n") if line.startswith(b"{")]
    assert [line.endswith(b"\n") for line in lines] == [True, True, False]


def test_slow_multiplies_the_times(engine: ThreadedEngine, client_of: type) -> None:
    with run_in_thread(SimOptions(ttft=0.001)) as slow:
        client_of(slow).ask("/api/generate", ASK)
        slow.set_fault("slow", 3_600_000)
        with client_of(slow).raw("/api/generate", ASK):
            state = slow.until(lambda state: state.running == 1)
            assert state.tokens == 5


@pytest.mark.parametrize(
    ("fault", "argument", "path", "status", "text"),
    [
        ("error-500", "boom", "/api/chat", 500, {"error": "boom"}),
        ("bad-credentials", None, "/api/chat", 401, {"error": "unauthorized"}),
        ("lost-model", None, "/api/chat", 404, {"error": "model 'tiny' not found"}),
        ("load-fails", "x", "/api/chat", 500, {"error": "llama runner process has terminated: x"}),
        (
            "busy",
            None,
            "/api/chat",
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
        ),
        (
            "lost-model",
            None,
            "/v1/chat/completions",
            404,
            {
                "error": {
                    "message": "model 'tiny' not found",
                    "type": "not_found_error",
                    "param": None,
                    "code": None,
                }
            },
        ),
    ],
)
def test_errors_in_ollamas_words(
    engine: ThreadedEngine, client_of: type, fault: str, argument: str, path: str, status: int, text: object
) -> None:
    engine.set_fault(fault, argument, count=1)
    client = client_of(engine)
    answer = client.ask(path, CHAT)
    assert (answer.status, answer.json()) == (status, text)
    assert client.ask(path, CHAT).status == 200


def test_a_failed_load_leaves_nothing_loaded(engine: ThreadedEngine, client_of: type) -> None:
    client = client_of(engine)
    client.ask("/api/generate", ASK)
    engine.set_fault("load-fails")
    assert client.ask("/api/generate", ASK).status == 200
    assert client.ask("/api/generate", ASK | {"options": {"num_ctx": 8192}}).status == 500
    assert client.ask("/api/ps").json() == {"models": []}


@pytest.mark.parametrize(("path", "body"), [("/api/generate", ASK), ("/v1/chat/completions", CHAT)])
def test_malformed_is_one_bad_line_in_a_stream_that_goes_on(
    engine: ThreadedEngine, client_of: type, path: str, body: object
) -> None:
    client = client_of(engine)
    whole = client.ask(path, body).body.splitlines()
    engine.set_fault("malformed", 2)
    broken = client.ask(path, body).body.splitlines()
    bad = [line for line in broken if b",," in line]
    assert len(bad) == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(bad[0].removeprefix(b"data: "))
    assert len(list(filter(None, broken))) == len(list(filter(None, whole))) + 1


def test_error_line_ends_a_stream_cleanly(engine: ThreadedEngine, client_of: type) -> None:
    engine.set_fault("error-line", 2)
    lines = client_of(engine).ask("/api/generate", ASK).lines()
    assert len(lines) == 3
    assert lines[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}


def test_no_end_leaves_the_mark_out(engine: ThreadedEngine, client_of: type) -> None:
    engine.set_fault("no-end")
    client = client_of(engine)
    assert [line["done"] for line in client.ask("/api/generate", ASK).lines()] == [False] * 5
    assert client.ask("/api/generate", ASK | {"stream": False}).json()["done"] is False
    assert b"[DONE]" not in client.ask("/v1/chat/completions", CHAT).body


def test_refuse_closes_the_port_and_the_control_port_opens_it_again(engine: ThreadedEngine, client_of: type) -> None:
    client = client_of(engine)
    engine.set_fault("refuse")
    with pytest.raises(ConnectionRefusedError):
        client.ask("/api/version")
    port = int(engine.control_url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("DELETE", "/sim/fault")
    assert connection.getresponse().read() == b'{"faults":[]}'
    connection.close()
    assert client.ask("/api/version").status == 200


def test_trickle_sends_byte_by_byte(engine: ThreadedEngine, client_of: type, read_until: Callable) -> None:
    engine.set_fault("trickle", 3600)
    with client_of(engine).raw("/api/version") as link:
        assert link.recv(100) == b"H"
    engine.set_fault("trickle", 0)
    assert client_of(engine).ask("/api/version").json() == {"version": "0.33.0"}


def test_wrong_digest_shows_only_in_the_lists(engine: ThreadedEngine, client_of: type) -> None:
    client = client_of(engine)
    right = client.ask("/api/tags").json()["models"][0]["digest"]
    engine.set_fault("wrong-digest")
    wrong = client.ask("/api/tags").json()["models"][0]["digest"]
    assert (len(wrong), wrong != right) == (64, True)


@pytest.mark.parametrize(("lie", "path", "body"), [(7, "/api/version", None), (-7, "/api/generate", ASK)])
def test_lying_length(
    engine: ThreadedEngine, client_of: type, read_until: Callable, lie: int, path: str, body: object
) -> None:
    client = client_of(engine)
    engine.set_fault("lying-length", lie)
    with client.raw(path, body, "Connection: close\r\n") as link:
        data = b""
        while more := link.recv(65536):
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    assert length - len(rest) == lie


def test_endless_headers_never_end(engine: ThreadedEngine, client_of: type, read_until: Callable) -> None:
    engine.set_fault("endless-headers")
    with client_of(engine).raw("/api/version") as link:
        assert b"\r\n\r\n" not in read_until(link, b"X-Endless-70:")


@pytest.mark.parametrize("body", [ASK, ASK | {"stream": False}])
def test_bad_chunk_is_a_size_that_is_no_number(
    engine: ThreadedEngine, client_of: type, read_all: Callable, body: object
) -> None:
    engine.set_fault("bad-chunk", 1)
    with client_of(engine).raw("/api/generate", body) as link:
        data = read_all(link)
    assert b"Transfer-Encoding: chunked" in data
    assert b"\r\nzz\r\n" in data


def test_extra_bytes_follow_the_message(engine: ThreadedEngine, client_of: type, read_until: Callable) -> None:
    engine.set_fault("extra-bytes")
    with client_of(engine).raw("/api/generate", ASK) as link:
        assert END + b"HTTP/1.1 200 OK" in read_until(link, b"extra")


@pytest.mark.parametrize(("status", "line"), [(103, b"103 Early Hints"), (100, b"100 Continue")])
def test_early_hints_precede_the_answer(
    engine: ThreadedEngine, client_of: type, read_until: Callable, status: int, line: bytes
) -> None:
    engine.set_fault("early-hints", status)
    with client_of(engine).raw("/api/version") as link:
        data = read_until(link, b'"version"')
    assert data.startswith(b"HTTP/1.1 " + line + b"\r\n")
    assert data.count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize(("path", "body"), [("/api/version", None), ("/api/generate", ASK)])
def test_close_delimited_has_no_length(
    engine: ThreadedEngine, client_of: type, read_all: Callable, path: str, body: object
) -> None:
    engine.set_fault("close-delimited")
    with client_of(engine).raw(path, body) as link:
        head, _, rest = read_all(link).partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    assert b"chunked" not in head
    assert rest.rstrip().endswith(b"}")


def test_head_then_silence(engine: ThreadedEngine, client_of: type, read_until: Callable) -> None:
    engine.set_fault("head-then-silence")
    with client_of(engine).raw("/api/generate", ASK) as link:
        assert read_until(link, b"\r\n\r\n").endswith(b"\r\n\r\n")
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            link.recv(1)
        link.settimeout(20)
        engine.clear_faults()
        assert tokens(read_until(link, END)) == 5


def test_every_fault_has_been_tried_here() -> None:
    source = Path(__file__).read_text()
    assert [kind for kind in FaultKind if f'"{kind}"' not in source] == []


def test_a_slow_reader_delays_no_other_client(engine: ThreadedEngine, client_of: type) -> None:
    client = client_of(engine)
    with client.raw("/api/generate", ASK | {"options": {"num_predict": 200_000}}) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        answers = []
        other = threading.Thread(target=lambda: answers.append(client.ask("/api/generate", ASK)))
        other.start()
        other.join(20)
        assert answers[0].status == 200
        assert engine.state().running == 1
