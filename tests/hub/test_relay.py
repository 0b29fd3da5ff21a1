"""What of an engine's answer reaches the client, and when: whole lines and events, one end, nothing twice."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive.fleet.engines import Engine
from hive.fleet.kinds import EngineKind, routes_of
from hive.testing.hub import run_hub
from hive.testing.scripted import Call, Script, run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, request

TOKEN = b'{"response":"a","done":false}\n'
DONE = b'{"response":"","done":true}\n'
PACE = 0.02
"""Seconds between two pieces, so that they arrive apart."""


def lines(*pieces: bytes, end: bool = True, kind: str = "application/x-ndjson") -> Script:
    """A script that sends these pieces apart, each as a chunk, then ends the answer or the connection."""

    def script(call: Call) -> None:
        call.begin(kind)
        for piece in pieces:
            call.chunk(piece)
            time.sleep(PACE)
        if end:
            call.chunk(b"")
        else:
            call.close()

    return script


def stream_of(*pieces: bytes, end: bool = True, path: str = "/api/generate", kind: str = "application/x-ndjson"):
    with run_scripted(lines(*pieces, end=end, kind=kind)) as engine, run_hub({"a": engine.url}) as hub:
        return ask(hub.port, request(path, STREAM))


def test_a_cut_inside_a_line_drops_the_piece_and_ends_with_an_error_line() -> None:
    answer = stream_of(TOKEN, TOKEN + b'{"response":"canary', end=False)
    assert answer.is_whole
    assert answer.body.startswith(TOKEN + TOKEN)
    assert b"canary" not in answer.body
    assert list(answer.ndjson()[-1]) == ["error"]


@pytest.mark.parametrize("piece", [b'{"response":"canary', b'{"', b'{"done":true'])
def test_a_clean_end_inside_a_line_is_a_failure_too(piece: bytes) -> None:
    answer = stream_of(TOKEN, piece)
    assert answer.body.startswith(TOKEN)
    assert list(answer.ndjson()[-1]) == ["error"]
    assert len(answer.body.splitlines()) == 2


def test_a_last_line_without_its_line_end_is_whole() -> None:
    answer = stream_of(TOKEN, DONE.rstrip())
    assert answer.body == TOKEN + DONE


def test_a_line_in_pieces_arrives_as_one() -> None:
    answer = stream_of(TOKEN[:3], TOKEN[3:20], TOKEN[20:] + DONE[:5], DONE[5:])
    assert answer.body == TOKEN + DONE


def test_half_a_line_is_held_until_it_is_whole() -> None:
    may_go_on = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        call.chunk(TOKEN + TOKEN[:10])
        may_go_on.wait(5)
        call.chunk(TOKEN[10:] + DONE)
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        wire.until(TOKEN + b"\r\n")
        wire.sock.settimeout(0.15)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
        wire.sock.settimeout(5)
        may_go_on.set()
        assert wire.until(b"0\r\n\r\n").count(b'"response"') == 2


@pytest.mark.parametrize(
    "pieces",
    [
        (b"\n", TOKEN, b"\n", DONE),
        (TOKEN + b"\n" + DONE + b"\n",),
        (b"\r\n" + TOKEN, b"\n\n\n", DONE),
        (TOKEN, b"  \n", DONE),
        (TOKEN.rstrip() + b"\r\n\r\n", DONE),
    ],
)
def test_a_blank_line_never_reaches_a_client(pieces: tuple[bytes, ...]) -> None:
    answer = stream_of(*pieces)
    assert [json.loads(line) for line in answer.body.splitlines() if line.strip()] == [
        json.loads(TOKEN), json.loads(DONE),
    ]  # fmt: skip
    assert all(line.strip() for line in answer.body.split(b"\n")[:-1])
    assert answer.ndjson()[-1]["done"] is True


@pytest.mark.parametrize("bad", [b"nonsense\n", b"[1]\n", b'"text"\n', b'{"model":,,\n', b"\0\n", b"1\n"])
def test_a_malformed_line_ends_the_stream_with_an_error(bad: bytes) -> None:
    answer = stream_of(TOKEN, bad, DONE)
    assert answer.body.startswith(TOKEN)
    assert bad not in answer.body
    assert list(answer.ndjson()[-1]) == ["error"]


def test_what_go_writes_and_strict_parsers_refuse_passes() -> None:
    odd = b'{"response":"\\ud83d","done":false}\n', b'{"response":"\xff","done":false}\n'
    answer = stream_of(*odd, DONE)
    assert answer.body == b"".join(odd) + DONE


@pytest.mark.parametrize("size", [60_000, 155_000, 2_000_000])
def test_a_long_line_passes_whole(size: int) -> None:
    long = b'{"response":"' + b"x" * size + b'","done":false}\n'
    answer = stream_of(TOKEN, long, DONE)
    assert answer.body == TOKEN + long + DONE


@pytest.mark.parametrize("size", [60_000, 155_000, 2_000_000])
def test_a_long_last_line_is_an_end(size: int) -> None:
    """/api/generate returns the context in its last line: 155 KB for 32,000 tokens."""
    last = b'{"model":"tiny","response":"","done":true,"context":[' + b"1," * (size // 2) + b"1]}\n"
    answer = stream_of(TOKEN, last)
    assert answer.body == TOKEN + last


@pytest.mark.parametrize("size", [60_000, 155_000, 2_000_000])
def test_a_long_line_that_is_cut_is_an_error_on_a_line_of_its_own(size: int) -> None:
    answer = stream_of(TOKEN, b'{"response":"' + b"x" * size, end=False)
    assert answer.is_whole
    assert list(json.loads(answer.body.splitlines()[-1])) == ["error"]


def test_a_long_event_of_155_kilobytes_passes() -> None:
    event = b'event: response.completed\ndata: {"type":"response.completed","response":{"x":"%b"}}\n\n'
    start = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    answer = stream_of(start, event % (b"x" * 155_000), path="/v1/responses", kind="text/event-stream")
    assert answer.body == start + event % (b"x" * 155_000)


def test_an_event_in_pieces_and_with_crlf_passes() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"a"}}]}'
    done = b"data: [DONE]"
    for end in (b"\n\n", b"\r\n\r\n"):
        data = chunk + end + chunk + end + done + end
        pieces = [data[start : start + 13] for start in range(0, len(data), 13)]
        answer = stream_of(*pieces, path="/v1/chat/completions", kind="text/event-stream")
        assert answer.body == data


EVENT_END = [(end, cut) for end in (b"\n\n", b"\r\n\r\n") for cut in range(len(end) + 1)]


@pytest.mark.parametrize(("end", "cut"), EVENT_END)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_long_event_ends_where_its_blank_line_is_and_the_end_mark_after_it_counts(
    end: bytes, cut: int, is_first: bool
) -> None:
    """`cut`: how many bytes of the blank line come with the event, the others in another read."""
    chunk = b'data: {"choices":[{"delta":{"content":"a"}}]}'
    long = b'data: {"id":"%b"}' % (b"a" * 100_000)
    pieces = [] if is_first else [chunk + end]
    pieces += [long + end[:cut], end[cut:] + chunk + end + b"data: [DONE]" + end]
    answer = stream_of(*pieces, path="/v1/chat/completions", kind="text/event-stream")
    assert answer.is_whole
    assert answer.body == b"".join(pieces)


def test_comments_pass_and_do_not_begin_an_answer() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    data = (b": ping\n\n", chunk, b": ping\n\n", b"data: [DONE]\n\n")
    answer = stream_of(*data, path="/v1/chat/completions", kind="text/event-stream")
    assert chunk in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("how", ["empty", "close", "clean"])
def test_a_stream_without_a_line_is_retried_and_then_an_error(how: str) -> None:
    def script(call: Call) -> None:
        call.begin()
        if how == "clean":
            call.chunk(b"\n")
        if how == "close":
            call.close()
        else:
            call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url, "b": engine.url}) as hub:
        answer = ask(hub.port, request(body=STREAM))
        assert answer.status == 502
        assert len(engine.calls) == 3


def test_an_error_line_first_with_status_200_is_the_engines_word() -> None:
    """Ollama tells of what fails after its head in a line."""
    error = b'{"error":"a bad option"}\n'
    answer = stream_of(error)
    assert answer.body == error


NOT_JSON = {
    "nothing": (b"", "application/json"),
    "spaces": (b"   ", "application/json"),
    "a page": (b"<html>Welcome</html>", "text/html"),
    "half of it": (b'{"response":"who', "application/json"),
    "a stream under another name": (b'data: {"choices":[]}\n\n', "text/plain"),
}


@pytest.mark.parametrize(("body", "kind"), NOT_JSON.values(), ids=NOT_JSON.keys())
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages", "/api/embed"])
def test_what_is_neither_a_stream_nor_json_is_no_answer(body: bytes, kind: str, path: str) -> None:
    with (
        run_scripted(lambda call: call.answer(body, kind=kind)) as bad,
        run_scripted(lambda call: call.answer(b'{"fine":true}')) as good,
        run_hub({"bad": bad.url, "good": good.url}, policy="round_robin") as hub,
    ):
        asked = request(path, {"model": "tiny", "stream": True, "input": "x"})
        for _ in range(3):
            answer = ask(hub.port, asked)
            assert (answer.status, answer.body) == (200, b'{"fine":true}')
        hub.call(lambda server: server.hub.node_cases.drain("good", True))
        assert ask(hub.port, asked).status == 502


def test_a_long_answer_that_does_not_begin_as_json_is_no_answer() -> None:
    with (
        run_scripted(lambda call: call.answer(b"<html>" * 1000, kind="text/html")) as engine,
        run_hub({"a": engine.url}, held_answer_bytes=1000) as hub,
    ):
        assert ask(hub.port, request(body=GENERATE)).status == 502


@pytest.mark.parametrize("body", [b'{"value": NaN}', b"\n[1]\n", b'{"text":"\xff"}', b"[" * 5000 + b"]" * 5000])
def test_json_as_clients_read_it_is_an_answer(body: bytes) -> None:
    with run_scripted(lambda call: call.answer(body)) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.body) == (200, body)


def become_openai(engine: Engine) -> None:
    engine.known.kind, engine.known.routes = EngineKind.OPENAI, routes_of(EngineKind.OPENAI, "")


def test_audio_and_what_was_heard_in_it_is_no_json() -> None:
    with (
        run_scripted(lambda call: call.answer(b"RIFF\0", kind="audio/wav")) as engine,
        run_hub({"a": engine.url}) as hub,
    ):
        speech = {"model": "tiny", "input": "hello"}
        hub.call(lambda server: become_openai(server.hub.fleet.engines[0]))
        answer = ask(hub.port, request("/v1/audio/speech", speech))
        assert (answer.status, answer.body) == (200, b"RIFF\0")


DIED = b"llama runner process has terminated: exit status 2"
OPENED = {
    "/v1/chat/completions": b'data: {"error":{"message":"%b","type":"api_error"}}\n\n' % DIED,
    "/v1/messages": b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"%b"}}\n\n' % DIED,
    "/v1/responses": b'event: response.failed\ndata: {"type":"response.failed","response":{"error":"%b"}}\n\n' % DIED,
}


@pytest.mark.parametrize("path", OPENED)
def test_a_stream_of_events_that_opens_with_the_death_of_its_runner_moves_elsewhere(path: str) -> None:
    def died(call: Call) -> None:
        call.begin("text/event-stream")
        call.chunk(OPENED[path])
        call.chunk(b"")

    def works(call: Call) -> None:
        call.answer(b'{"fine":true}')

    with (
        run_scripted(died) as bad,
        run_scripted(works) as good,
        run_hub({"bad": bad.url, "good": good.url}, policy="round_robin") as hub,
    ):
        for _ in range(3):
            assert ask(hub.port, request(path, {"model": "tiny", "stream": True})).body == b'{"fine":true}'
        assert bad.calls


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize("size", [1_000_000, 3_000_000])
def test_an_unstreamed_answer_of_any_size_is_whole(size: int, is_chunked: bool) -> None:
    body = b'{"response":"' + b"x" * size + b'","done":true}'

    def script(call: Call) -> None:
        if is_chunked:
            call.begin("application/json")
            call.chunk(body)
            call.chunk(b"")
        else:
            call.answer(body)

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:
        wire.send(request(body=GENERATE))
        assert wire.answer().body == body
        assert wire.is_open()


@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
def test_a_large_unstreamed_answer_that_is_cut_is_never_taken_for_a_whole_one(framing: str) -> None:
    part = b'{"response":"' + b"x" * 1_500_000

    def script(call: Call) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        head += {"length": "Content-Length: 9000000\r\n", "chunks": "Transfer-Encoding: chunked\r\n", "close": ""}[
            framing
        ]
        call.send(head.encode() + b"\r\n")
        call.chunk(part) if framing == "chunks" else call.send(part)
        time.sleep(PACE)
        call.close()

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert not answer.is_whole


def test_streams_are_not_buffered_by_proxies() -> None:
    assert stream_of(TOKEN, DONE).header("X-Accel-Buffering") == "no"


DATA = b"".join(b'{"response":"%d \xc3\xa9","done":false}\n' % number for number in range(12)) + DONE


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(1, len(DATA) - 1), max_size=8, unique=True))
def test_any_cut_of_the_stream_gives_the_same_bytes(cutting: tuple[list[list[int]], int], cuts: list[int]) -> None:
    orders, port = cutting
    orders[:] = [sorted(cuts)]
    assert ask(port, request(body=STREAM)).body == DATA


@pytest.fixture(scope="module")
def cutting():
    """An engine that cuts its answer as it is told, and the port of a hub over it."""
    orders: list[list[int]] = []

    def script(call: Call) -> None:
        call.begin()
        places = [0, *orders[0], len(DATA)]
        for start, end in pairwise(places):
            call.chunk(DATA[start:end])
            time.sleep(0.001)
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        yield orders, hub.port
