"""The engine's HTTP reader: bytes in, requests out."""

from __future__ import annotations

import pytest

from hive.sim.wire import BadRequest, RequestParser, SimRequest, chunk, head_bytes

PLAIN = b"POST /api/chat?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: 1\r\n\r\n"
BARE = b"GET / HTTP/1.0\r\n\r\n"


def requests(*parts: bytes) -> list[SimRequest]:
    parser = RequestParser()
    found = []
    for part in parts:
        parser.feed(part)
        while request := parser.take():
            found.append(request)
    return found


def test_reads_lengths_chunks_and_requests_without_a_body() -> None:
    first, second, third = requests(PLAIN + CHUNKED + BARE)
    assert (first.method, first.target, first.path, bytes(first.body)) == (
        "POST",
        "/api/chat?x=1",
        "/api/chat",
        b"hello",
    )
    assert (second.path, bytes(second.body)) == ("/b", b"hello")
    assert (third.method, third.is_http_1_0, third.wants_close) == ("GET", True, True)


def test_any_cut_of_the_bytes_gives_the_same_requests() -> None:
    whole = PLAIN + CHUNKED + PLAIN
    expected = [(r.target, bytes(r.body)) for r in requests(whole)]
    for place in range(len(whole)):
        assert [(r.target, bytes(r.body)) for r in requests(whole[:place], whole[place:])] == expected


def test_shows_the_head_before_the_body_has_come() -> None:
    parser = RequestParser()
    parser.feed(PLAIN[:-1])
    assert parser.head is not None
    assert parser.take() is None
    parser.feed(PLAIN[-1:])
    assert parser.take() is not None


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
    ],
)
def test_refuses_what_is_no_request(data: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestParser().feed(data)


def test_writes_heads_and_chunks() -> None:
    assert head_bytes(404, (("A", "b"),)) == b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n"
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
