"""The server protocol from outside: what a client may send, how long it may take, and what it gets back."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from ..raw import GENERATE, STREAM, Answer, Wire, ask, eventually, get, metric, request

SHORT = {"head_timeout": 0.3, "body_timeout": 0.3, "keep_alive_timeout": 0.3, "linger_timeout": 0.3}
"""The sweep adds half a second at most."""
LATEST = 2.0


@pytest.fixture(scope="module")
def hurried(shared_engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    """A hub with short time-outs."""
    with run_hub({"a": shared_engine.url}, slots=64, **SHORT) as hub:
        yield hub


def test_a_request_is_answered_and_the_connection_stays(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        for body in (GENERATE, STREAM, GENERATE):
            wire.send(request(body=body))
            answer = wire.answer()
            assert (answer.status, answer.is_whole, answer.header("X-Hive-Node")) == (200, True, "a")
            assert answer.ndjson()[-1]["done"] is True
        assert wire.is_open()


def test_head_requests_and_http_1_0_are_answered(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.answer(is_head=True).status == 200
        assert wire.is_open()
    with Wire(shared_hub.port) as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        assert wire.answer().body == b"Ollama is running"
        assert wire.is_closed()


def test_a_stream_for_http_1_0_has_no_chunks_and_ends_with_the_connection() -> None:
    lines = b'{"response":"a","done":false}\n', b'{"response":"","done":true}\n'

    def script(call: Call) -> None:
        call.begin()
        for line in (*lines, b""):
            call.chunk(line)

    with run_scripted(script) as engine, run_hub({"a": engine.url}, open=True) as hub, Wire(hub.port) as wire:
        body = json.dumps(STREAM).encode()
        wire.send(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head = wire.until(b"\r\n\r\n").lower()
        assert b"transfer-encoding" not in head
        assert wire.rest() == b"".join(lines)


# --- what could be read in two ways, or not at all: 400 and close ---

LENGTH_4 = b"Content-Length: 4\r\n"
POST = b"POST /api/generate HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"

MALFORMED = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "two different Hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: localhost/a\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: me@localhost\r\n\r\n",
    "two names in one Host": b"GET / HTTP/1.1\r\nHost: localhost, evil\r\n\r\n",
    "absolute form": b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "authority form": b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "length and chunked": POST + HOST + LENGTH_4 + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST + HOST + b"Transfer-Encoding: chunked\r\n" + LENGTH_4 + b"\r\n0\r\n\r\n",
    "gzip, chunked": POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": POST + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": POST + HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after a vertical tab": POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunked under 1.0": b"POST /api/generate HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + HOST + LENGTH_4 + b"Content-Length: 5\r\n\r\nabcde",
    "the same length twice": POST + HOST + LENGTH_4 + LENGTH_4 + b"\r\nabcd",
    "a list of lengths": POST + HOST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": POST + HOST + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": POST + HOST + b"Content-Length: -4\r\n\r\nabcd",
    "a hexadecimal length": POST + HOST + b"Content-Length: 0x4\r\n\r\nabcd",
    "an empty length": POST + HOST + b"Content-Length:\r\n\r\nabcd",
    "a length beyond 64 bits": POST + HOST + b"Content-Length: 18446744073709551620\r\n\r\nabcd",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n",
    "obs-fold with a tab": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n\tc\r\n\r\n",
    "a fold at the start": b"GET / HTTP/1.1\r\n X-A: b\r\nHost: localhost\r\n\r\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "bare LF in the request line": b"GET / HTTP/1.1\nHost: localhost\r\n\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: localhost\r\n\n",
    "bare CR in a field": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\rc\r\n\r\n",
    "NUL in a field": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\0c\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: localhost\r\nX\0A: b\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL first": b"\0GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\x01c\r\n\r\n",
    "a field without a name": b"GET / HTTP/1.1\r\nHost: localhost\r\n: b\r\n\r\n",
    "a field without a colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nHost: localhost\r\nX A: b\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an odd version": b"GET / HTTX/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "random bytes": bytes(range(128, 256)) * 4,
    "two keys": b"GET / HTTP/1.1\r\nHost: localhost\r\nx-api-key: a\r\nx-api-key: b\r\n\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_400_and_the_end(shared_hub: ThreadedHub, data: bytes) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(data)
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (400, "close")
        assert "error" in answer.json()
        assert wire.rest() == b""


@pytest.mark.parametrize("cut", [1, 3, 16, 20])
@pytest.mark.parametrize("name", ["length and chunked", "bare LF after a field", "absolute form", "obs-fold"])
def test_what_is_malformed_is_400_in_pieces_too(shared_hub: ThreadedHub, name: str, cut: int) -> None:
    data = MALFORMED[name]
    with Wire(shared_hub.port) as wire:
        wire.send(data[:cut])
        time.sleep(0.01)
        wire.send_anyway(data[cut:])
        assert wire.answer().status == 400


BAD_CHUNKS = {
    "no number": b"zz\r\nabcd\r\n0\r\n\r\n",
    "a negative one": b"-4\r\nabcd\r\n0\r\n\r\n",
    "a 0x before it": b"0x4\r\nabcd\r\n0\r\n\r\n",
    "beyond 64 bits": b"fffffffffffffffff\r\nabcd\r\n0\r\n\r\n",
    "too small": b"3\r\nabcd\r\n0\r\n\r\n",
    "an empty size": b"\r\nabcd\r\n0\r\n\r\n",
    "bare LF after the size": b"4\nabcd\r\n0\r\n\r\n",
    "bare LF after the data": b"4\r\nabcd\n0\r\n\r\n",
    "a space before the size": b" 4\r\nabcd\r\n0\r\n\r\n",
    "NUL in the extension": b"4;a=\0\r\nabcd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_a_bad_chunk_is_400_and_the_end(shared_hub: ThreadedHub, data: bytes) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        wire.send(data)
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (400, "close")


def test_http_2_is_505(shared_hub: ThreadedHub) -> None:
    assert ask(shared_hub.port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 505
    assert ask(shared_hub.port, b"GET /\r\n\r\n").status in (400, 505)
    assert ask(shared_hub.port, b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n").status == 505


@pytest.mark.parametrize("method", [b"BREW", b"get", b"PROPFIND", b"TRACE", b"G" * 40])
def test_an_odd_method_is_a_client_error(shared_hub: ThreadedHub, method: bytes) -> None:
    assert ask(shared_hub.port, method + b" /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n").status in (
        400,
        405,
    )


# --- heads ---


def test_a_head_of_13_megabytes_is_431_before_it_is_read(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        sender = threading.Thread(target=wire.send_anyway, args=(b"X-A: " + b"a" * 995 + b"\r\n",) * 1)
        sender.start()
        sender.join()
        flood = threading.Thread(target=wire.send_anyway, args=((b"X-A: " + b"a" * 993 + b"\r\n") * 13_000,))
        flood.start()
        answer = wire.answer()
        flood.join()
        assert (answer.status, answer.header("Connection")) == (431, "close")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"GET / HTTP/1.1\r\nX-"])
def test_one_endless_line_is_431(shared_hub: ThreadedHub, start: bytes) -> None:
    assert ask(shared_hub.port, start + b"a" * 40_000).status == 431


def test_empty_lines_without_end_before_a_request_are_bounded(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send_anyway(b"\r\n" * 40_000)
        assert wire.answer().status in (400, 431)


@pytest.mark.parametrize("size", [31 * 1024, 33 * 1024])
def test_the_bound_of_a_head_is_32_kib_however_it_arrives(shared_hub: ThreadedHub, size: int) -> None:
    body = json.dumps(GENERATE).encode()
    head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nX-A: " % len(body)
    data = head + b"a" * (size - len(head) - 4) + b"\r\n\r\n" + body
    expected = 200 if size < 32 * 1024 else 431
    assert ask(shared_hub.port, data).status == expected
    with Wire(shared_hub.port) as wire:
        for start in range(0, len(data), 7000):
            wire.send_anyway(data[start : start + 7000])
            time.sleep(0.002)
        assert wire.answer().status == expected


def test_a_large_body_in_the_segment_of_the_head_does_not_count_as_head(shared_hub: ThreadedHub) -> None:
    assert ask(shared_hub.port, request(body={**GENERATE, "prompt": "x" * 200_000})).status == 200


# --- bodies ---


def test_a_body_over_the_limit_is_413_before_it_is_sent(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(POST + HOST + b"Content-Length: 64000001\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (413, "close")
        assert "error" in answer.json()


def test_a_body_over_the_limit_is_413_without_100(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(POST + HOST + b"Content-Length: 64000001\r\nExpect: 100-continue\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.interim) == (413, [])


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/chat/completions", "invalid_request_error"), ("/v1/messages", "request_too_large")],
)
def test_413_speaks_the_dialect(shared_hub: ThreadedHub, path: str, kind: str) -> None:
    answer = ask(
        shared_hub.port,
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64000001\r\n\r\n".encode(),
    )
    error = answer.json()["error"]
    assert isinstance(error, dict)
    assert (answer.status, error["type"]) == (413, kind)


@pytest.fixture(scope="module")
def small(shared_engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    """A hub that takes little."""
    limits = {"max_body_bytes": 20_000, "max_bodies_bytes": 30_000}
    with run_hub({"a": shared_engine.url}, slots=64, **limits) as hub:
        yield hub


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def test_a_chunked_body_over_the_limit_is_413(small: ThreadedHub) -> None:
    with Wire(small.port) as wire:
        wire.send(POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[b"a" * 5_000] * 4)[:-5])
        wire.send_anyway(b"1\r\na\r\n")
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (413, "close")


def test_a_chunk_that_announces_too_much_is_413_at_the_latest_when_it_is_there(small: ThreadedHub) -> None:
    with Wire(small.port) as wire:
        wire.send(POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n")
        wire.send_anyway(b"a" * 25_000)
        assert wire.answer().status == 413


def test_a_body_of_exactly_the_limit_is_taken(small: ThreadedHub) -> None:
    body = json.dumps(GENERATE).encode()
    body += b" " * (20_000 - len(body))
    assert ask(small.port, request(body=body)).status == 200
    head = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert ask(small.port, head + chunked(body[:7_000], body[7_000:])).status == 200


def test_chunk_extensions_and_trailers_are_dropped_and_bounded(small: ThreadedHub) -> None:
    body = json.dumps(GENERATE).encode()
    head = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    fine = b"%x;name=value\r\n%b\r\n0\r\nX-Trailer: a\r\n\r\n" % (len(body), body)
    with Wire(small.port) as wire:
        wire.send(head + fine)
        assert wire.answer().status == 200
        assert wire.is_open()
    for flood in (b"1;" + b"a" * 600_000, b"%x\r\n%b\r\n0\r\n" % (len(body), body) + b"X-A: b\r\n" * 100_000):
        with Wire(small.port) as wire:
            wire.send_anyway(head + flood)
            assert wire.answer().status in (400, 413, 431)


def test_many_bodies_at_once_are_503_beyond_the_sum_and_the_memory_comes_back(small: ThreadedHub) -> None:
    def held() -> float:
        return metric(small.port, "hive_request_body_bytes_held", small.admin_key)

    with Wire(small.port) as first, Wire(small.port) as second:
        for wire in (first, second):
            wire.send(POST + HOST + b"Content-Length: 19000\r\n\r\n" + b"a" * 12_000)
        eventually(lambda: held() >= 24_000)
        with Wire(small.port) as third:
            third.send(POST + HOST + b"Content-Length: 19000\r\n\r\n" + b"a" * 12_000)
            answer = third.answer()
            assert (answer.status, answer.header("Retry-After") is not None) == (503, True)
    eventually(lambda: held() == 0)
    assert ask(small.port, request(body=GENERATE)).status == 200


# --- 100-continue ---


def test_100_is_sent_once_when_the_request_may_go_on(shared_hub: ThreadedHub) -> None:
    body = json.dumps(GENERATE).encode()
    with Wire(shared_hub.port) as wire:
        wire.send(POST + HOST + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(body[:10])
        wire.send(body[10:])
        answer = wire.answer()
        assert (answer.status, answer.interim) == (200, [])
        assert wire.is_open()


def test_401_comes_before_100() -> None:
    with run_hub({}, local_access="off", wait=False) as hub, Wire(hub.port) as wire:
        wire.send(POST + HOST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.interim, answer.header("Connection")) == (401, [], "close")


def test_404_and_405_come_before_100(shared_hub: ThreadedHub) -> None:
    for path, status in (("/nowhere", 404), ("/api/tags", 405)):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        answer = ask(shared_hub.port, head.encode())
        assert (answer.status, answer.interim) == (status, [])


def test_another_expectation_is_417(shared_hub: ThreadedHub) -> None:
    assert ask(shared_hub.port, request(head="Expect: a-miracle\r\n")).status == 417


def test_an_expectation_of_http_1_0_is_ignored(shared_engine: ThreadedEngine) -> None:
    """RFC 9110, 10.1.1: a server that receives 100-continue in HTTP/1.0 must ignore it."""
    body = json.dumps(GENERATE).encode()
    with run_hub({"a": shared_engine.url}, open=True) as hub:
        for expected in (b"100-continue", b"a-miracle"):
            head = b"POST /api/generate HTTP/1.0\r\nExpect: %b\r\nContent-Length: %d\r\n\r\n" % (expected, len(body))
            answer = ask(hub.port, head + body)
            assert (answer.status, answer.interim) == (200, [])


# --- early answers ---


def test_an_early_answer_arrives_whole_while_the_client_still_sends_5_megabytes(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n")
        sender = threading.Thread(target=wire.send_anyway, args=(b"a" * 5_000_000,))
        sender.start()
        answer = wire.answer()
        assert (answer.status, answer.body, answer.header("Connection")) == (
            404,
            b"404 page not found",
            "close",
        )
        sender.join()


def test_an_early_answer_can_be_read_after_half_a_megabyte_was_sent_first(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n")
        wire.send(b"a" * 500_000)
        assert wire.answer().status == 404
        assert wire.rest() == b""  # a half-close, no reset


def test_after_an_early_answer_the_hub_half_closes_and_does_not_wait_for_ever(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        wire.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n")
        assert wire.answer().status == 404
        assert wire.is_closed()
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT012
            while time.monotonic() - began < LATEST:
                wire.send(b"a" * 1000)
                time.sleep(0.02)
        assert time.monotonic() - began < LATEST


def test_after_an_early_answer_the_rest_is_never_read_as_a_request(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(POST + HOST + b"Content-Length: 64000001\r\n\r\n" + get("/api/version"))
        data = wire.rest()
    assert data.count(b"HTTP/1.1 ") == 1


def test_a_refusal_that_is_held_back_arrives_although_the_client_still_sends() -> None:
    with run_hub({}, local_access="off", wait=False) as hub:
        for number in range(6):
            ask(hub.port, get("/api/tags", f"Authorization: Bearer guess-{number}\r\n"))
        with Wire(hub.port) as wire:
            wire.send(POST + HOST + b"Authorization: Bearer wrong\r\nContent-Length: 5000000\r\n\r\n")
            sender = threading.Thread(target=wire.send_anyway, args=(b"a" * 5_000_000,))
            sender.start()
            try:
                assert wire.answer().status == 401
            finally:
                sender.join()


ANNOUNCED = b"Content-Length: 600000\r\n\r\n"
PREFLIGHT = b"Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n"
NEEDS_NO_BODY = {
    "from memory": (b"GET /healthz HTTP/1.1\r\n" + HOST + ANNOUNCED, 200),
    "a redirect": (b"POST //api/chat HTTP/1.1\r\n" + HOST + ANNOUNCED, 307),
    "a preflight": (b"OPTIONS /api/chat HTTP/1.1\r\n" + HOST + PREFLIGHT + ANNOUNCED, 204),
}


@pytest.mark.parametrize("begun", [b"", b"x" * 1000], ids=["head alone", "with a part of it"])
@pytest.mark.parametrize(("head", "status"), NEEDS_NO_BODY.values(), ids=NEEDS_NO_BODY.keys())
def test_what_needs_no_body_is_answered_without_it(
    shared_engine: ThreadedEngine, head: bytes, status: int, begun: bytes
) -> None:
    with run_hub({"a": shared_engine.url}, local_access="off") as hub, Wire(hub.port) as wire:
        wire.sock.settimeout(2)
        wire.send(head + begun)
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (status, "close")
        wire.send_anyway(b"x" * 100_000)
        assert hub.call(lambda server: server.server.held_body_bytes) == 0
        assert wire.rest() == b""


def test_what_needs_no_body_does_not_ask_for_it(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.interim, answer.header("Connection")) == (200, [], "close")


def test_a_whole_body_that_the_hub_does_not_need_does_not_end_the_connection(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\n" + HOST + LENGTH_4 + b"\r\nabcd")
        assert wire.answer().status == 200
        assert wire.is_open()


# --- one request at a time ---


def test_of_pipelined_requests_the_first_is_answered_and_the_second_never_started() -> None:
    def script(call: Call) -> None:
        call.answer(b'{"done":true}')

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        for first in (GENERATE, STREAM):
            with Wire(hub.port) as wire:
                wire.send(request(body=first) + request("/api/chat", {"model": "tiny", "messages": []}))
                answer = wire.answer()
                assert (answer.status, answer.header("Connection")) == (200, "close")
                assert wire.rest() == b""
        assert [call.path for call in engine.calls] == ["/api/generate"] * 2


REFUSED = {
    "a path that is not there": get("/nowhere"),
    "an origin": get("/api/tags", "Origin: http://evil.example\r\n"),
    "an expectation": get("/api/tags", "Expect: a-miracle\r\n"),
    "a body, too": request("/nowhere", {"model": "tiny"}),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_behind_a_refused_one_is_never_started(shared_hub: ThreadedHub, refused: bytes) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(refused + get("/api/version"))
        answer = wire.answer()
        assert answer.status >= 400
        assert answer.header("Connection") == "close"
        assert wire.rest() == b""


def test_the_body_of_a_request_behind_a_refused_one_is_never_read_as_a_request(shared_hub: ThreadedHub) -> None:
    hidden = get("/api/version")
    with Wire(shared_hub.port) as wire:
        wire.send(get("/nowhere") + POST + HOST + b"Content-Length: %d\r\n\r\n" % len(hidden))
        assert wire.answer().status == 404
        wire.send_anyway(hidden)
        assert wire.rest() == b""


def test_a_second_request_that_comes_during_the_first_answer_is_never_started() -> None:
    may_go_on = threading.Event()

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"a","done":false}\n')
        may_go_on.wait(5)
        call.chunk(b'{"response":"","done":true}\n')
        call.chunk(b"")

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        begun = wire.until(b'"a","done":false}\n')
        wire.send(request(body=STREAM))
        time.sleep(0.05)
        may_go_on.set()
        rest = wire.rest()
        assert rest.endswith(b"0\r\n\r\n")
        assert (begun + rest).count(b"HTTP/1.1 ") == 1
        assert len(engine.calls) == 1


def test_a_slow_reader_gets_the_whole_first_answer_although_it_pipelined() -> None:
    body = b'{"response":"' + b"x" * 12_000_000 + b'","done":true}'

    with (
        run_scripted(lambda call: call.answer(body)) as engine,
        run_hub({"a": engine.url}, linger_timeout=0.2, held_answer_bytes=1 << 26) as hub,
        Wire(hub.port, receive_buffer=4096) as wire,
    ):
        wire.send(request(body=GENERATE) + get("/api/version"))
        engine.call_number(0)
        time.sleep(1.0)  # longer than the hub lingers
        answer = wire.answer()
        assert (answer.status, answer.is_whole, len(answer.body)) == (200, True, len(body))


def test_empty_lines_between_requests_are_no_request(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(request(body=GENERATE) + b"\r\n")
        assert wire.answer().header("Connection") is None
        wire.send(b"\r\n" + get("/api/version"))
        assert wire.answer().status == 200


# --- time ---


def test_a_connection_that_never_speaks_is_closed(hurried: ThreadedHub) -> None:
    began = time.monotonic()
    with Wire(hurried.port) as wire:
        assert wire.is_closed()
    assert 0.2 < time.monotonic() - began < LATEST


def test_an_idle_connection_is_closed(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        assert wire.is_open()
        began = time.monotonic()
        assert wire.is_closed()
    assert 0.2 < time.monotonic() - began < LATEST


def trickle(wire: Wire, data: bytes, interval: float) -> float:
    """Send a byte at a time until the hub answers; return after how long it did."""
    began = time.monotonic()
    wire.sock.setblocking(False)
    for byte in data:
        try:
            wire.sock.send(bytes([byte]))
            wire.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            time.sleep(interval)
        else:
            break
    wire.sock.settimeout(5)
    return time.monotonic() - began


def test_a_head_that_comes_a_byte_at_a_time_is_408(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        took = trickle(wire, b"GET /" + b"a" * 200, 0.02)
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (408, "close")
        assert 0.2 < took < LATEST


def test_a_body_without_a_byte_for_the_time_out_is_408(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        wire.send(POST + HOST + b"Content-Length: 100\r\n\r\n{")
        began = time.monotonic()
        assert wire.answer().status == 408
        assert 0.2 < time.monotonic() - began < LATEST


def test_a_body_that_keeps_coming_may_take_longer_than_the_time_out(hurried: ThreadedHub) -> None:
    body = json.dumps(GENERATE).encode()
    with Wire(hurried.port) as wire:
        wire.send(POST + HOST + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 3):
            wire.send(body[start : start + 3])
            time.sleep(0.05)
        assert wire.answer().status == 200


def test_408_speaks_the_dialect(hurried: ThreadedHub) -> None:
    with Wire(hurried.port) as wire:
        wire.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = wire.answer()
        assert (answer.status, answer.json()["type"]) == (408, "error")


# --- half-closed clients ---


def test_a_half_close_before_the_end_of_a_request_ends_it_quietly(shared_hub: ThreadedHub) -> None:
    for data in (b"", b"GET / HT", POST + HOST + LENGTH_4 + b"\r\nab"):
        with Wire(shared_hub.port) as wire:
            if data:
                wire.send(data)
            wire.half_close()
            wire.rest()


def test_a_half_close_after_the_request_is_a_departure() -> None:
    gone: list[float] = []

    with (
        run_scripted(lambda call: gone.append(call.wait_for_departure())) as engine,
        run_hub({"a": engine.url}) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM))
        engine.call_number(0)
        wire.half_close()
        wire.rest()
        eventually(lambda: bool(gone), 2)
        assert gone[0] < 1
        assert metric(hub.port, "hive_exchanges_running", hub.admin_key) == 0


def test_a_half_close_together_with_the_request_is_a_departure_that_is_counted() -> None:
    with (
        run_scripted(lambda call: call.answer(b'{"done":true}')) as engine,
        run_hub({"a": engine.url}) as hub,
    ):
        for _ in range(5):
            with Wire(hub.port) as wire:
                # corked: the bytes and the end arrive together
                wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                wire.send(request(body=GENERATE))
                wire.half_close()
                wire.rest()

        def counted() -> bool:
            return metric(hub.port, "hive_exchanges_total", hub.admin_key) == 5

        eventually(counted, 2)
        assert metric(hub.port, "hive_exchanges_running", hub.admin_key) == 0


# --- upgrades ---


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_offer_to_upgrade_is_ignored(shared_hub: ThreadedHub, is_cut: bool) -> None:
    """Java's HttpClient offers h2c with every first request."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
    data = request(body=GENERATE, head=offer)
    cut = data.index(b"\r\n\r\n") + 4 if is_cut else len(data)
    with Wire(shared_hub.port) as wire:
        wire.send(data[:cut])
        time.sleep(0.01)
        wire.send(data[cut:])
        answer = wire.answer()
        assert (answer.status, answer.is_whole) == (200, True)
        assert answer.json()["done"] is True


def test_an_offer_to_upgrade_without_a_body_is_ignored(shared_hub: ThreadedHub) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(get("/api/tags", "Connection: Upgrade\r\nUpgrade: h2c\r\n"))
        assert wire.answer().status == 200
        assert wire.is_open()


def test_a_body_after_an_offer_to_upgrade_is_never_read_as_a_request(shared_hub: ThreadedHub) -> None:
    hidden = get("/api/version")
    data = request(body=hidden, head="Connection: Upgrade\r\nUpgrade: h2c\r\n")
    cut = data.index(hidden)
    with Wire(shared_hub.port) as wire:
        wire.send(data[:cut])
        time.sleep(0.05)
        wire.send_anyway(data[cut:])
        wire.sock.settimeout(0.3)
        seen = b""
        try:
            while more := wire.sock.recv(65536):
                seen += more
        except (TimeoutError, ConnectionError):
            pass
    assert b'{"version"' not in seen


def test_a_websocket_on_v1_responses_is_426(shared_hub: ThreadedHub) -> None:
    offer = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    offer += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    assert ask(shared_hub.port, get("/v1/responses", offer)).status == 426


# --- at any cut, and after anything ---

VALID = {
    "counted": request(body=GENERATE),
    "chunked": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[
        json.dumps(GENERATE).encode()[start : start + 9] for start in range(0, len(json.dumps(GENERATE)), 9)
    ]),
    "with a trailer": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    + chunked(json.dumps(GENERATE).encode())[:-2] + b"X-A: b\r\n\r\n",
    "get": get("/v1/models/tiny"),
    "refused": request("/api/pull", {"model": "tiny"}),
    "unknown": request("/nowhere", {"model": "tiny"}),
    "bad json": request(body=b'{"model":"tiny"'),
}  # fmt: skip


def gist(answer: Answer) -> object:
    kind = answer.header("Content-Type")
    text = answer.json().get("response") if answer.status == 200 else answer.body
    return answer.status, kind, text, answer.is_whole, answer.header("Connection")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(VALID)), places=st.lists(st.floats(0, 1), max_size=4))
def test_a_request_in_any_pieces_gets_the_same_answer(shared_hub: ThreadedHub, name: str, places: list[float]) -> None:
    data = VALID[name]
    whole = gist(ask(shared_hub.port, data))
    cuts = [0, *sorted(int(place * len(data)) for place in places), len(data)]
    with Wire(shared_hub.port) as wire:
        for start, end in pairwise(cuts):
            if start != end:
                wire.send_anyway(data[start:end])
                time.sleep(0.001)
        in_pieces = gist(wire.answer())
    if name in ("refused", "unknown"):  # answered at the end of the head: the rest may or may not be there
        whole, in_pieces = whole[:3], in_pieces[:3]  # type: ignore[index]
    assert in_pieces == whole


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(VALID)),
    place=st.floats(0, 1),
    length=st.integers(0, 12),
    junk=st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                b"\r\n",
                b"\n",
                b"\0",
                b"\r\n\r\n",
                b": ",
                b"Content-Length: 3\r\n",
                b"chunked",
                b"\xff\xfe",
                b"/../",
            ]
        ),
    ),
)
def test_after_a_mutated_request_the_hub_answers_the_next_good_one(
    hurried: ThreadedHub, name: str, place: float, length: int, junk: bytes
) -> None:
    data = VALID[name]
    at = int(place * len(data))
    with Wire(hurried.port) as wire:
        wire.send_anyway(data[:at] + junk + data[at + length :])
        wire.sock.settimeout(0.05)
        try:
            first = wire.sock.recv(12)
        except (TimeoutError, ConnectionError):
            first = b""
        assert first == b"" or first.startswith(b"HTTP/1.")
        assert not first.startswith(b"HTTP/1.1 500")
    assert ask(hurried.port, request(body=GENERATE)).status == 200
