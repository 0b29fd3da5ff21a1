"""Engines that misbehave, byte by byte: one whole answer or one honest error, and the hub stays well."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from hive.app import HubServer
from hive.config import NodeSettings
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, Script, ScriptedEngine, run_scripted

from ..node.engine import ANSWER, RawEngine
from ..node.engine import Call as RawCall
from ..node.hub import post, run, until
from ..raw import GENERATE, STREAM, Answer, Wire, ask, eventually, metric, request
from .test_resend import Sink, end_of, link_to

DONE = b'{"response":"","done":true}\n'
TOKEN = b'{"response":"a","done":false}\n'
OK = b'{"response":"whole","done":true}'


def good(call: Call) -> None:
    """Answer as an engine should."""
    if json.loads(call.body).get("stream") is False:
        call.answer(OK)
        return
    call.begin()
    call.chunk(TOKEN)
    call.chunk(DONE)
    call.chunk(b"")


def bytes_then(data: bytes, end: Callable[[Call], object] = Call.close) -> Script:
    def script(call: Call) -> None:
        call.send(data)
        end(call)

    return script


def wait(call: Call) -> None:
    call.wait_for_departure(3)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def counted(length: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % length


BROKEN: dict[str, Script] = {
    "closes without a byte": Call.close,
    "resets without a byte": Call.reset,
    "closes inside the head": bytes_then(b"HTTP/1.1 200 OK\r\nContent-T"),
    "resets inside the head": bytes_then(b"HTTP/1.1 200 OK\r\nContent-T", Call.reset),
    "closes after the head": bytes_then(counted(len(OK))),
    "a length too long": bytes_then(counted(len(OK) + 10) + OK),
    "a length too long, reset": bytes_then(counted(len(OK) + 10) + OK[:5], Call.reset),
    "a length too short": bytes_then(counted(len(OK) - 10) + OK, wait),
    "two lengths": bytes_then(HEAD + b"Content-Length: 5\r\nContent-Length: 32\r\n\r\n" + OK, wait),
    "length and chunks": bytes_then(
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + OK + b"\r\n0\r\n\r\n", wait
    ),
    "a negative length": bytes_then(HEAD + b"Content-Length: -1\r\n\r\n" + OK, wait),
    "an endless head": bytes_then(HEAD + b"X-A: b\r\n" * 20_000, wait),
    "an endless field": bytes_then(HEAD + b"X-A: " + b"b" * 100_000, wait),
    "interim answers without end": bytes_then(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3_000, wait),
    "no HTTP": bytes_then(b"220 mail.example ESMTP\r\n", wait),
    "an odd version": bytes_then(b"HTTP/4.2 200 OK\r\nContent-Length: 0\r\n\r\n", wait),
    "no status": bytes_then(b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", wait),
    "NUL in the head": bytes_then(HEAD + b"X-A: \0\r\nContent-Length: 32\r\n\r\n" + OK, wait),
    "a bad chunk size": bytes_then(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + OK, wait),
    "a chunk that is too long": bytes_then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n" + OK, wait),
    "no last chunk": bytes_then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(OK), OK)),
    "an unknown coding": bytes_then(HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + OK),
    "a switch of protocols": bytes_then(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + OK, wait
    ),
    "half of the JSON, then the end": bytes_then(HEAD + b"\r\n" + OK[:-5]),
    "a redirect": bytes_then(
        b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", lambda _: None
    ),
}


def two(bad: Script, scenario: Callable[[int, ScriptedEngine, ScriptedEngine], None], **settings: object) -> None:
    """Run a scenario over an engine that misbehaves and one that is good."""
    with (
        run_scripted(bad, bad, good) as broken,  # twice: the first may die on a connection of the probes
        run_scripted(good) as whole,
        run_hub({"broken": broken.url, "whole": whole.url}, slots=1, **settings) as hub,
    ):
        scenario(hub.port, broken, whole)


def ask_until_broken(port: int, broken: ScriptedEngine, body: object) -> Answer:
    """Send requests, one at a time, until the broken engine had its first one; return that one's answer."""
    for _ in range(40):
        answer = ask(port, request(body=body))
        if broken.calls:
            return answer
    raise AssertionError("the broken engine was never asked")


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_is_retried_elsewhere(script: Script) -> None:
    def scenario(port: int, broken: ScriptedEngine, whole: ScriptedEngine) -> None:
        answer = ask_until_broken(port, broken, GENERATE)
        assert (answer.status, answer.body, answer.header("X-Hive-Node")) == (200, OK, "whole")

    two(script, scenario)


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_is_one_honest_error_without_another_engine(script: Script) -> None:
    has_recovered = threading.Event()

    def broken_then_good(call: Call) -> None:
        (good if has_recovered.is_set() else script)(call)

    with run_scripted(broken_then_good) as engine, run_hub({"a": engine.url}) as hub:
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            answer = wire.answer()
            assert (answer.status, answer.is_whole) in ((502, True), (504, True))
            assert isinstance(answer.json()["error"], str)
            assert wire.is_open()
        has_recovered.set()
        assert ask(hub.port, request(body=GENERATE)).body == OK


def test_bytes_after_a_chunked_answer_reach_no_client_and_end_the_connection() -> None:
    def script(call: Call) -> None:
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK), OK)
        call.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"HTTP/1.1 200 OK\r\n\r\nEVIL")
        wait(call)

    with run_scripted(script, good) as engine, run_hub({"a": engine.url}) as hub:
        answers = [ask(hub.port, request(body=GENERATE)) for _ in range(2)]
        assert [(answer.status, answer.body) for answer in answers] == [(200, OK)] * 2
        assert engine.calls[0].connection != engine.calls[1].connection


def test_bytes_while_idle_reach_no_client_and_end_the_connection() -> None:
    def script(call: Call) -> None:
        call.answer(OK)
        time.sleep(0.05)
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
        assert call.wait_for_departure(3) < 1

    with run_scripted(script, good) as engine, run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        assert ask(hub.port, request(body=GENERATE)).body == OK
        eventually(lambda: engine.calls[0].is_over and engine.open_connections == 0, 3)
        assert ask(hub.port, request(body=GENERATE)).body == OK


def test_interim_answers_are_skipped() -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    def script(call: Call) -> None:
        call.send(hints)
        call.send(hints + counted(len(OK)) + OK)

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.body, answer.interim) == (200, OK, [])
        assert answer.header("Link") is None


def test_a_body_that_the_connection_ends_is_whole() -> None:
    def script(call: Call) -> None:
        is_stream = json.loads(call.body).get("stream") is not False
        kind = b"application/x-ndjson" if is_stream else b"application/json"
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n\r\n" % kind + (TOKEN + DONE if is_stream else OK))
        call.close()

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=GENERATE)).body == OK
        answer = ask(hub.port, request(body=STREAM))
        assert (answer.body, answer.is_whole) == (TOKEN + DONE, True)


def test_a_body_that_a_reset_ends_is_not_whole() -> None:
    with (
        run_scripted(bytes_then(HEAD + b"\r\n" + OK, Call.reset), good) as engine,
        run_hub({"a": engine.url}) as hub,
    ):
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.body, answer.header("X-Hive-Attempts")) == (OK, "2")


def test_an_answer_that_comes_a_byte_at_a_time_is_whole() -> None:
    def script(call: Call) -> None:
        data = STREAM_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in (TOKEN, DONE)) + b"0\r\n\r\n"
        for start in range(0, len(data), 3):
            call.send(data[start : start + 3])
            time.sleep(0.0005)

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=STREAM))
        assert (answer.body, answer.is_whole) == (TOKEN + DONE, True)


def test_an_empty_body_without_length_answers_204_and_304_do_not_hang() -> None:
    with (
        run_scripted(bytes_then(b"HTTP/1.1 204 No Content\r\n\r\n", lambda _: None), good) as engine,
        run_hub({"a": engine.url}) as hub,
    ):
        assert ask(hub.port, request(body=GENERATE)).status in (204, 502)
        assert ask(hub.port, request(body=GENERATE)).body == OK


# --- the end mark ---


@pytest.mark.parametrize("end", [Call.close, Call.reset, wait], ids=["close", "reset", "silence"])
@pytest.mark.parametrize("framing", ["chunked", "a length too long"])
def test_a_stream_with_its_end_mark_is_whole_whatever_the_engine_does_then(
    framing: str, end: Callable[[Call], object]
) -> None:
    def script(call: Call) -> None:
        if framing == "chunked":
            call.begin()
            call.chunk(TOKEN)
            time.sleep(0.02)
            call.chunk(DONE)
        else:
            size = len(TOKEN + DONE) + 10
            call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % size)
            call.send(TOKEN)
            time.sleep(0.02)
            call.send(DONE)
        time.sleep(0.02)
        end(call)

    with run_scripted(script) as engine, run_hub({"a": engine.url}, stream_gap_timeout=0.3) as hub:
        answer = ask(hub.port, request(body=STREAM))
        assert (answer.body, answer.is_whole) == (TOKEN + DONE, True)  # done, or an error: never both


# --- silence ---


def test_a_head_and_silence_ends_in_an_error_when_the_first_byte_is_due() -> None:
    with (
        run_scripted(bytes_then(STREAM_HEAD, wait), good) as engine,
        run_hub({"a": engine.url}, first_byte_timeout=0.3) as hub,
    ):
        began = time.monotonic()
        answer = ask(hub.port, request(body=STREAM))
        assert (answer.status, time.monotonic() - began < 2) == (504, True)
        assert ask(hub.port, request(body=GENERATE)).body == OK


def test_silence_before_the_first_byte_is_tried_elsewhere() -> None:
    def scenario(port: int, broken: ScriptedEngine, whole: ScriptedEngine) -> None:
        answer = ask_until_broken(port, broken, STREAM)
        assert (answer.status, answer.body, answer.header("X-Hive-Node")) == (200, TOKEN + DONE, "whole")

    two(bytes_then(STREAM_HEAD, wait), scenario, first_byte_timeout=0.3)


def test_a_begun_stream_that_falls_silent_ends_with_an_error_line() -> None:
    def script(call: Call) -> None:
        call.begin()
        call.chunk(TOKEN)
        wait(call)

    with run_scripted(script) as engine, run_hub({"a": engine.url}, stream_gap_timeout=0.3) as hub:
        answer = ask(hub.port, request(body=STREAM))
        assert answer.ndjson()[0]["response"] == "a"
        assert list(answer.ndjson()[-1]) == ["error"]
        with Wire(hub.port) as wire:  # with tools the gap may be longer
            wire.send(request("/api/chat", {"model": "tiny", "messages": [], "tools": [{"type": "function"}]}))
            wire.until(TOKEN)
            wire.sock.settimeout(1.2)
            with pytest.raises(TimeoutError):
                wire.sock.recv(1)


# --- pooled connections ---


def test_a_connection_is_used_again() -> None:
    with run_scripted(good) as engine, run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        for body in (GENERATE, STREAM, GENERATE):
            assert ask(hub.port, request(body=body)).status == 200
        assert len({call.connection for call in engine.calls}) == 1


def test_a_stale_pooled_connection_is_redialed_once_and_the_client_sees_no_failure() -> None:
    def dies(call: Call) -> None:
        call.close()  # what a server does that closed the idle connection just now

    with (
        run_scripted(good, dies, good) as engine,
        run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub,
    ):
        answers = [ask(hub.port, request(body=GENERATE)) for _ in range(2)]
        assert [answer.body for answer in answers] == [OK, OK]
        assert [call.number for call in engine.calls] == [0, 1, 2]
        assert metric(hub.port, "hive_attempts_total", hub.admin_key) == 2


def test_a_connection_that_the_engine_closed_while_idle_is_not_used() -> None:
    with run_scripted(good) as engine, run_hub({"a": engine.url}, probe_interval=60) as hub:
        for _ in range(3):
            assert ask(hub.port, request(body=GENERATE)).body == OK
            engine.drop_connections()
        assert len(engine.calls) == 3


def test_a_redialed_connection_that_breaks_counts_as_an_attempt() -> None:
    with (
        run_scripted(good, Call.close, Call.close, good) as engine,
        run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub,
    ):
        assert ask(hub.port, request(body=GENERATE)).body == OK
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.body, answer.header("X-Hive-Attempts")) == (OK, "2")
        assert len(engine.calls) == 4


def test_connection_close_is_obeyed() -> None:
    def script(call: Call) -> None:
        call.answer(OK, more="Connection: close\r\n")
        call.close()

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        for _ in range(3):
            assert ask(hub.port, request(body=GENERATE)).body == OK
        assert len({call.connection for call in engine.calls}) == 3


# --- early answers of an engine ---


@contextmanager
def run_deaf(status: str, has_ended: threading.Event) -> Iterator[str]:
    """An engine that answers a POST after its head, reads nothing of the body, and keeps the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock:
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    more = sock.recv(1024)
                    if not more:
                        return
                    data += more
                if data.startswith(b"GET"):
                    sock.sendall(helper.probe_answer(data.split(b" ")[1].decode()))
                    continue
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
                sock.sendall(head.encode() + b"Content-Length: 27\r\n\r\n" + b'{"error":"too much for me"}')
                has_ended.wait(10)
                return

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    threads = [threading.Thread(target=accept, daemon=True)]
    threads[0].start()
    with run_scripted(good) as helper:
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            has_ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for thread in threads:
                thread.join()


BIG = {**GENERATE, "prompt": "x" * 20_000_000}


@pytest.mark.parametrize("status", ["413 Too Large", "400 Bad Request"])
def test_an_engine_may_answer_before_it_has_read_the_body(status: str) -> None:
    has_ended = threading.Event()
    with run_deaf(status, has_ended) as url, run_hub({"a": url}, use_uvloop=False) as hub:
        answer = ask(hub.port, request(body=BIG))
        assert (answer.status, answer.body) == (int(status[:3]), b'{"error":"too much for me"}')
        has_ended.set()


def test_after_an_early_answer_of_an_engine_nothing_of_the_body_is_kept() -> None:
    has_ended = threading.Event()
    with run_deaf("413 Too Large", has_ended) as url, run_hub({"a": url}, use_uvloop=False) as hub:
        assert ask(hub.port, request(body=BIG)).status == 413
        # run_hub raises HubNotClean at the end for the socket that still wants to send 20 MB


# --- the simulated engine's faults ---

BEFORE_THE_FIRST_LINE = [
    ("drop", 0), ("reset", 0), ("bad-chunk", 0), ("no-end", 0), ("lying-length", -10),
    ("endless-headers", None), ("error-500", "model runner has unexpectedly stopped"), ("lost-model", None),
    ("bad-credentials", None),
    ("busy", None),
]  # fmt: skip
PATHS = (
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
)


def body_for(path: str, *, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": "hello"}]
    more: dict[str, object] = (
        {"prompt": "hello"} if path in ("/api/generate", "/v1/completions") else {"messages": messages}
    )
    if path == "/v1/responses":
        more = {"input": "hello"}
    if path == "/v1/messages":
        more["max_tokens"] = 24
    return {"model": "tiny", "stream": stream, **more}


def text_of(answer: Answer, path: str) -> str:
    """Return what a streamed answer says, whatever the dialect."""
    said = []
    for line in answer.body.decode().splitlines():
        data = line.removeprefix("data: ")
        if not data.startswith("{"):
            continue
        event = json.loads(data)
        delta = event.get("delta")
        said += [
            event.get("response") if isinstance(event.get("response"), str) else None,
            (event.get("message") or {}).get("content") if path == "/api/chat" else None,
            *[c.get("text") or (c.get("delta") or {}).get("content") for c in event.get("choices", [])],
            delta if isinstance(delta, str) else (delta or {}).get("text"),
        ]
    return "".join(part for part in said if isinstance(part, str))


@pytest.fixture
def bad_and_spare() -> Iterator[tuple[ThreadedEngine, ThreadedEngine, ThreadedHub]]:
    """An engine to be bad, another one with a single slot and a model of its own, and a hub over both."""
    with (
        run_in_thread(SimOptions(slots=4)) as bad,
        run_in_thread(SimOptions(slots=4, models=("tiny", "other"))) as spare,
        loaded((bad, "tiny"), (spare, "tiny"), (spare, "other")),
        run_hub({"bad": bad.url, "spare": NodeSettings(name="spare", url=spare.url, slots=1)}, slots=4) as hub,
    ):
        yield bad, spare, hub


@contextmanager
def loaded(*models: tuple[ThreadedEngine, str]) -> Iterator[None]:
    """Engines with these models in memory."""
    for engine, model in models:
        assert ask(engine.port, request("/api/embed", {"model": model})).status == 200
    yield


def ask_bad_first(hub: ThreadedHub, spare: ThreadedEngine, data: bytes) -> Answer:
    """Ask while the slot of the spare is taken: it comes free when the bad one has failed."""
    spare.set_fault("head-then-silence")
    with Wire(hub.port) as holder, Wire(hub.port) as wire:
        holder.send(request(body={"model": "other", "prompt": "hello"}))
        hub.until(
            lambda server: any(engine.running.count for engine in server.hub.fleet.engines if engine.node == "spare")
        )
        wire.send(data)
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        spare.clear_faults()
        return wire.answer()


def end_rests(server: HubServer) -> None:
    for engine in server.hub.fleet.engines:
        engine.running.rests_until = 0.0


@pytest.mark.parametrize(("fault", "argument"), BEFORE_THE_FIRST_LINE)
def test_a_stream_cut_before_its_first_line_is_whole_from_another_node(
    fault: str, argument: object, bad_and_spare: tuple[ThreadedEngine, ThreadedEngine, ThreadedHub]
) -> None:
    bad, spare, hub = bad_and_spare
    for path in PATHS:
        bad.clear_faults()
        data = request(path, body_for(path, stream=True))
        expected = text_of(ask(hub.port, data), path)
        assert expected
        bad.set_fault(fault, argument, path=path)  # type: ignore[arg-type]
        hub.call(end_rests)  # of a bad one that said busy on the path before
        hub.until(lambda server: all(engine.takes_work for engine in server.hub.fleet.engines))
        answer = ask_bad_first(hub, spare, data)
        assert (answer.status, answer.header("X-Hive-Node"), text_of(answer, path)) == (200, "spare", expected)
        assert any(seen.faults for seen in bad.state().requests if seen.path == path)


@pytest.mark.parametrize("fault", ["cut-line", "malformed"])
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_a_line_that_is_cut_or_malformed_first_is_whole_from_another_node(
    path: str, fault: str, bad_and_spare: tuple[ThreadedEngine, ThreadedEngine, ThreadedHub]
) -> None:
    bad, spare, hub = bad_and_spare
    bad.set_fault(fault, 0, path=path)
    answer = ask_bad_first(hub, spare, request(path, body_for(path, stream=True)))
    assert (answer.status, answer.header("X-Hive-Node"), ends(path, answer)) == (200, "spare", "whole")
    assert any(seen.faults for seen in bad.state().requests)


def test_a_load_that_fails_is_tried_elsewhere() -> None:
    with (
        run_in_thread(SimOptions()) as bad,
        run_in_thread(SimOptions()) as spare,
        run_hub({"bad": bad.url, "spare": spare.url}) as hub,
    ):
        bad.set_fault("load-fails")
        spare.set_fault("load-fails", count=1)  # whichever is first
        for _ in range(3):
            answer = ask(hub.port, request(body=GENERATE))
            if answer.status == 200:
                assert answer.header("X-Hive-Node") == "spare"
                break
        else:
            raise AssertionError("never answered")


def ends(path: str, answer: Answer) -> str:
    """Return how a stream ended for its client: whole, error, or silently."""
    body = answer.body.decode()
    if path.startswith("/api/"):
        last = answer.ndjson()[-1] if answer.body else {}
        return "whole" if last.get("done") else "error" if list(last) == ["error"] else "silently"
    events = [event for event in body.split("\n\n") if event.strip()]
    last_event = events[-1] if events else ""
    data = next((line[5:].strip() for line in last_event.splitlines() if line.startswith("data:")), "")
    if data == "[DONE]":
        return "whole"
    decoded = json.loads(data) if data.startswith("{") else {}
    if path == "/v1/messages":
        named = "event: error\n" in last_event + "\n"
        if decoded.get("type") == "message_stop":
            return "whole"
        return "error" if named and decoded.get("type") == "error" and "error" in decoded else "silently"
    if path == "/v1/responses":
        kind = decoded.get("type")
        return "whole" if kind == "response.completed" else "error" if kind == "response.failed" else "silently"
    return "error" if isinstance(decoded.get("error"), dict) else "silently"


AFTER_THE_FIRST_LINE = ("drop", "reset", "cut-line", "bad-chunk", "no-end", "malformed")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fault", AFTER_THE_FIRST_LINE)
def test_a_stream_cut_after_its_first_line_ends_with_the_error_of_its_dialect(
    fault: str, path: str, paced: tuple[ThreadedEngine, ThreadedEngine, ThreadedHub]
) -> None:
    *engines, hub = paced
    before = sum(each.state().received.get(path, 0) for each in engines)
    for each in engines:
        each.clear_faults()
        each.set_fault(fault, 5, path=path)
    with Wire(hub.port) as wire:
        wire.send(request(path, body_for(path, stream=True)))
        answer = wire.answer()
        assert (answer.status, answer.is_whole, ends(path, answer)) == (200, True, "error")
        assert text_of(answer, path)
        assert wire.is_open()
    assert sum(each.state().received.get(path, 0) for each in engines) == before + 1  # nobody computed it twice


@pytest.fixture(scope="module")
def paced() -> Iterator[tuple[ThreadedEngine, ThreadedEngine, ThreadedHub]]:
    """Two engines whose tokens arrive apart, and a hub over them."""
    options = SimOptions(slots=8, tokens_per_second=150)
    with (
        run_in_thread(options) as first,
        run_in_thread(options) as second,
        run_hub({"a": first.url, "b": second.url}) as hub,
    ):
        yield first, second, hub


@pytest.mark.parametrize("path", PATHS)
def test_an_error_line_of_the_engine_itself_comes_through_once(path: str, engine: ThreadedEngine) -> None:
    engine.set_fault("error-line", 5, path=path)
    with run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(path, body_for(path, stream=True)))
        assert answer.status == 200
        assert answer.body.count(b"unexpected EOF") == 1


@pytest.mark.parametrize("fault", ["drop", "reset", "lying-length", "bad-chunk", "close-delimited", "early-hints"])
@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/v1/messages"])
def test_an_unstreamed_answer_is_whole_whatever_one_engine_does(
    fault: str, path: str, engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    with run_hub({"a": engine.url, "b": second_engine.url}, stream_gap_timeout=0.3) as hub:
        engine.set_fault(fault, path=path)
        for _ in range(4):
            answer = ask(hub.port, request(path, body_for(path, stream=False)))
            assert (answer.status, answer.is_whole) == (200, True)
            assert answer.json()


# --- the connection alone ---


def test_a_request_in_pieces_whose_answer_comes_early_leaves_no_connection_behind() -> None:
    async def early(call: RawCall) -> None:
        await call.send(ANSWER)
        await call.gone()

    async def main() -> None:
        async with RawEngine(early) as raw:
            link, sink = link_to(raw), Sink()
            connection = await link.dial()
            connection.begin(post("/api/chat", bytes(100))[:-90], sink)
            assert await end_of(sink) is None
            connection.write(b"late")
            await until(lambda: not raw.writers)
            assert link.take_idle() is None

    run(main())


def test_a_raw_answer_is_its_bytes_as_they_came() -> None:
    async def main() -> None:
        async with RawEngine() as raw:
            link, sink = link_to(raw), Sink()
            connection = await link.dial()
            connection.send(post("/api/chat", b"abc"), b"", sink, is_raw=True)
            assert await end_of(sink) is None
            assert b"".join(sink.heard) == ANSWER
            again = Sink()
            connection.send(post("/api/chat", b"abc"), b"", again)
            assert await end_of(again) is None
            assert again.heard == [b"{}"]

    run(main())


def test_the_sink_hears_when_the_engine_takes_no_more_of_the_request() -> None:
    async def slow(call: RawCall) -> None:
        await may_read.wait()
        await call.read_body()
        await call.send(ANSWER)

    may_read = asyncio.Event()

    class Noting(Sink):
        full: tuple[bool, ...] = ()

        def on_full(self, is_full: bool) -> None:
            self.full += (is_full,)

    async def main() -> None:
        async with RawEngine(slow) as raw:
            sink, size = Noting(), 32 << 20
            connection = await link_to(raw).dial()
            connection.begin(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, sink)
            connection.write(bytes(size))
            assert sink.full == (True,)
            connection.finish()
            may_read.set()
            assert await end_of(sink) is None
            assert sink.full == (True,)  # the request is whole: there is nothing to hold back

    run(main())
