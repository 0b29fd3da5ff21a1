"""What the reader of requests refuses. It raises only `Fault` and keeps its bounds, whatever bytes come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .feeding import MAX_HEAD_BYTES, cut_at, cuts, mutations, one_by_one, read_request
from .test_requests import BARE, COUNTED, OLD, PIPELINED, READABLE
from .test_requests import CHUNKED as CHUNKED_REQUEST

LINE = b"POST /api/chat HTTP/1.1\r\n"
HOST = b"Host: hub\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
CHUNKED = LINE + HOST + TE + b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

REFUSED: dict[str, bytes] = {
    "no Host": LINE + b"\r\n",
    "empty Host": LINE + b"Host:\r\n\r\n",
    "two Hosts": LINE + HOST + HOST + b"\r\n",
    "two Hosts in one": LINE + b"Host: a, b\r\n\r\n",
    "Host with user": LINE + b"Host: a@b\r\n\r\n",
    "Host with path": LINE + b"Host: a/b\r\n\r\n",
    "Host with space": LINE + b"Host: a b\r\n\r\n",
    "Host after bracket": LINE + b"Host: [::1].evil\r\n\r\n",
    "Host that is no name": LINE + b"Host: \xc3\xa9\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "absolute-form": b"GET http://hub/api/tags HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority-form": b"CONNECT hub:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: hub\n\n",
    "bare LF after the line": b"GET / HTTP/1.1\nHost: hub\r\n\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: hub\nX: y\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: hub\r\n\n",
    "bare CR in a value": LINE + HOST + b"X: a\rb\r\n\r\n",
    "obs-fold": LINE + HOST + b"X: a\r\n b\r\n\r\n",
    "obs-fold by tab": LINE + HOST + b"X: a\r\n\tb\r\n\r\n",
    "obs-fold of nothing": LINE + HOST + b"X:\r\n b\r\n\r\n",
    "line of a space": LINE + HOST + b" \r\nContent-Length: 5\r\n\r\nhello",
    "line of a tab at the end": LINE + HOST + b"Content-Length: 5\r\n\t\r\n\r\nhello",
    "line of spaces in place of the end": LINE + HOST + b"  \r\nGET /k/hk_abc/ HTTP/1.1\r\nHost: hub\r\n\r\n",
    "folded first line": LINE + b" " + HOST + b"\r\n",
    "folded Transfer-Encoding": LINE + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST_CHUNK,
    "NUL in a value": LINE + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": LINE + HOST + b"X\0: a\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character": LINE + HOST + b"X: a\x01b\r\n\r\n",
    "space before the colon": LINE + b"Host : hub\r\n\r\n",
    "no colon": LINE + HOST + b"nonsense\r\n\r\n",
    "no name": LINE + HOST + b": a\r\n\r\n",
    "name that is no token": LINE + HOST + b"X\xc3\xa9: a\r\n\r\n",
    "non-ASCII target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab for a space": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "RTSP": b"GET / RTSP/1.0\r\n" + HOST + b"\r\n",
    "ICE": b"SOURCE / ICE/1.0\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "NUL first": b"\0GET / HTTP/1.1\r\n",
    "two lengths": LINE + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "two different lengths": LINE + HOST + b"Content-Length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "two lengths in one": LINE + HOST + b"Content-Length: 1, 1\r\n\r\nx",
    "positive length": LINE + HOST + b"Content-Length: +1\r\n\r\nx",
    "negative length": LINE + HOST + b"Content-Length: -1\r\n\r\nx",
    "length in hex": LINE + HOST + b"Content-Length: 0x1\r\n\r\nx",
    "length with underscore": LINE + HOST + b"Content-Length: 1_0\r\n\r\nx",
    "length with space": LINE + HOST + b"Content-Length: 1 0\r\n\r\nx",
    "empty length": LINE + HOST + b"Content-Length:\r\n\r\n",
    "endless length": LINE + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "length, then chunked": LINE + HOST + b"Content-Length: 5\r\n" + TE + b"\r\n" + LAST_CHUNK,
    "chunked, then length": LINE + HOST + TE + b"Content-Length: 5\r\n\r\n" + LAST_CHUNK,
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + TE + b"\r\n" + LAST_CHUNK,
    "two Authorizations": LINE + HOST + b"Authorization: Bearer a\r\nauthorization: Bearer a\r\n\r\n",
    "two X-Api-Keys": LINE + HOST + b"x-api-key: a\r\nX-Api-Key: b\r\n\r\n",
    "two Origins": LINE + HOST + b"Origin: http://localhost\r\nOrigin: http://localhost\r\n\r\n",
    "chunk size that is none": CHUNKED + b"xyz\r\nabc\r\n" + LAST_CHUNK,
    "no chunk size": CHUNKED + b"\r\nabc\r\n" + LAST_CHUNK,
    "negative chunk size": CHUNKED + b"-3\r\nabc\r\n" + LAST_CHUNK,
    "chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n" + LAST_CHUNK,
    "chunk size with space": CHUNKED + b" 3\r\nabc\r\n" + LAST_CHUNK,
    "chunk size of 68 bits": CHUNKED + b"fffffffffffffffff\r\nabc",
    "chunk longer than said": CHUNKED + b"3\r\nabcd\r\n" + LAST_CHUNK,
    "chunk ended by bare LF": CHUNKED + b"3\r\nabc\n" + LAST_CHUNK,
    "chunk size ended by bare LF": CHUNKED + b"3\nabc\r\n" + LAST_CHUNK,
    "chunk extension ended by bare LF": CHUNKED + b"3;a\nabc\r\n" + LAST_CHUNK,
    "last chunk ended by bare LF": CHUNKED + b"3\r\nabc\r\n0\r\n\n",
    "NUL in a trailer": CHUNKED + b"0\r\nX: \0\r\n\r\n",
} | {
    f"Transfer-Encoding: {value.decode()!r}": LINE + HOST + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % value
    for value in (
        b"gzip",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, chunked",
        b"identity",
        b"xchunked",
        b"chunked;q=1",
        b"",
        b"chunke",
        b'"chunked"',
        b"\x0bchunked",
        b"chunked\r\nTransfer-Encoding: chunked",
        b"chunked\r\nTransfer-Encoding: identity",
        b"identity\r\ntransfer-encoding: chunked",
    )
}  # fmt: skip


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    for pieces in ([data], one_by_one(data), cut_at(data, range(0, len(data), 7))):
        read = read_request(pieces)
        assert (read.status, read.head) == (400, None)


ODD_LINES = {
    "unknown method": (b"FROBNICATE / HTTP/1.1\r\n", 405),
    "method in lower case": (b"get / HTTP/1.1\r\n", 405),
    "unknown method after an empty line": (b"\r\nFROBNICATE / HTTP/1.1\r\n", 405),
    "HTTP/0.9": (b"GET /\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n", 505),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n", 505),
}


@pytest.mark.parametrize(("line", "status"), ODD_LINES.values(), ids=ODD_LINES.keys())
def test_an_odd_request_line_gets_the_same_answer_at_any_cut(line: bytes, status: int) -> None:
    data = line + HOST + b"\r\n"
    assert read_request([data]).status == status
    assert {read_request([data[:place], data[place:]]).status for place in range(1, len(data))} == {status}
    assert read_request(one_by_one(data)).status == status


# --- bounds ---

ENDLESS = {
    "value": (LINE + HOST + b"X: ", b"a"),
    "spaces in a value": (LINE + HOST + b"X:", b" "),
    "name": (LINE + HOST, b"a"),
    "fields": (LINE + HOST, b"X: y\r\n"),
    "target": (b"GET /", b"a"),
    "method": (b"A", b"A"),
    "empty lines": (b"\r\n", b"\r\n"),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
@pytest.mark.parametrize("piece_bytes", [1000, 65536])
def test_a_head_of_13_mb_is_refused_early(start: bytes, more: bytes, piece_bytes: int) -> None:
    piece = more * (piece_bytes // len(more))
    fed = itertools.count()
    pieces = (start if not n else piece for n in fed if n * len(piece) < 13_000_000)
    assert read_request(pieces).status in (400, 405, 431)
    assert next(fed) * len(piece) <= MAX_HEAD_BYTES + 2 * len(piece)


@pytest.mark.parametrize("after", [b"", b"x" * 300], ids=["alone", "body in the same read"])
@pytest.mark.parametrize("filling", [b"a", b" "], ids=["letters", "spaces"])
def test_the_bound_on_a_head_counts_every_byte_at_any_cut(filling: bytes, after: bytes) -> None:
    start = LINE + HOST + b"Content-Length: 300\r\nX:"
    for size, is_refused in ((200, False), (201, True), (4000, True)):
        head = start + filling * (size - len(start) - 5) + b"a\r\n\r\n"
        assert len(head) == size
        for pieces in ([head + after], [head[:50], head[50:] + after], one_by_one(head + after)):
            assert (read_request(pieces, max_head_bytes=200).status == 431) is is_refused


@pytest.mark.parametrize(
    "start",
    [b"3;", b"3;a=", b'3;a="', b"0\r\nX: ", b"0\r\n"],
    ids=["extension", "value", "quoted", "trailer", "trailers"],
)
def test_endless_chunk_extensions_and_trailers_are_refused_early(start: bytes) -> None:
    more = b"X: y\r\n" if start == b"0\r\n" else b"a"
    piece = more * (1000 // len(more))
    fed = itertools.count()
    pieces = (CHUNKED + start if not n else piece for n in fed if n < 1000)
    assert read_request(pieces).status in (400, 413, 431)
    assert next(fed) * len(piece) <= MAX_HEAD_BYTES + 2 * len(piece)


# --- fuzz ---

SECRETS = [
    b"GET /k/hk_secret/api/tags HTTP/1.1\r\nHost: hub\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer hk_secret\r\nContent-Length: 2\r\n\r\n{}",
    LINE + HOST + b"x-api-key: hk_secret\r\n" + TE + b"\r\n" + LAST_CHUNK,
]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
@settings(deadline=None, max_examples=150)
def test_arbitrary_bytes_raise_only_faults(pieces: list[bytes]) -> None:
    read = read_request(pieces)
    assert read.head is not None or not read.is_complete


@given(mutations(READABLE + SECRETS + list(REFUSED.values())).flatmap(cuts))
@settings(deadline=None, max_examples=400)
def test_damaged_requests_raise_only_faults_without_secrets(pieces: list[bytes]) -> None:
    read = read_request(pieces)
    assert read.status in (0, 400, 405, 413, 431, 505)
    assert "hk_secret" not in read.message


@given(
    mutations([BARE, COUNTED, CHUNKED_REQUEST, OLD, PIPELINED]).flatmap(
        lambda data: st.tuples(st.just(data), cuts(data))
    )
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_request_is_read_the_same_at_any_cut(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    first, second = read_request([whole]), read_request(pieces)
    assert bool(first.status) == bool(second.status)
    if not first.status:
        assert second.same() == first.same()
