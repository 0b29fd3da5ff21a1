"""What the reader of answers accepts from an engine, and what it takes for garbled."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.responses import GarbledAnswer, ResponseHead, ResponseReader

from .feeding import MAX_HEAD_BYTES, cuts, mutations, one_by_one, read_answer

OK = b"HTTP/1.1 200 OK\r\n"
COUNTED = OK + b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    OK + b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Trailer: 1\r\nContent-Type: text/evil\r\nSet-Cookie: a=b\r\n\r\n"
)
CLOSED = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + COUNTED
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n"
LAST_OF_CONNECTION = OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
WHOLE = [COUNTED, CHUNKED, INTERIM, EMPTY, NOT_MODIFIED, LAST_OF_CONNECTION]


def test_reads_a_counted_answer() -> None:
    read = read_answer([COUNTED])
    content_type = b"application/json; charset=utf-8"
    fields = [(b"content-type", content_type), (b"content-length", b"5")]
    assert read.head == ResponseHead(200, fields, content_type, content_length=5, is_chunked=False)
    assert (read.body, read.is_complete, read.can_be_reused) == (b"hello", True, True)
    assert not read.head.is_close_delimited


def test_reads_a_chunked_answer_without_extensions_and_trailers() -> None:
    read = read_answer([CHUNKED])
    content_type = b"application/x-ndjson"
    fields = [(b"content-type", content_type), (b"transfer-encoding", b"chunked")]
    assert read.head == ResponseHead(200, fields, content_type, content_length=None, is_chunked=True)
    assert (read.body, read.is_complete, read.can_be_reused) == (b"hello", True, True)


def test_repeated_fields_stay_apart() -> None:
    lines = b"Set-Cookie: a=1\r\nSET-COOKIE: b=2\r\nX-Empty:\r\nX: y\r\nContent-Length: 0\r\n"
    read = read_answer([OK + lines + b"\r\n"])
    assert read.head is not None
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert read.head.fields == [*cookies, (b"x-empty", b""), (b"x", b"y"), (b"content-length", b"0")]


def test_only_the_close_ends_a_body_that_has_no_length() -> None:
    assert not read_answer([CLOSED]).is_complete
    read = read_answer([CLOSED], then_closed=True)
    assert read.head is not None
    assert read.head.is_close_delimited
    assert (read.body, read.is_complete, read.can_be_reused) == (b"hello", True, False)


def test_interim_answers_are_skipped() -> None:
    read = read_answer([INTERIM])
    assert read.head is not None
    assert (read.head.status, len(read.head.fields), read.body) == (200, 2, b"hello")
    assert read.can_be_reused


@pytest.mark.parametrize("data", [EMPTY, NOT_MODIFIED], ids=["204", "304"])
def test_204_and_304_have_no_body(data: bytes) -> None:
    read = read_answer([data])
    assert read.head is not None
    assert not read.head.is_close_delimited
    assert (read.body, read.is_complete, read.can_be_reused) == (b"", True, True)


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_to_head_ends_with_its_head(fields: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n%b\r\n" % fields
    for pieces in ([data], one_by_one(data)):
        reader = ResponseReader(MAX_HEAD_BYTES)
        reader.begin(is_bodiless=True)
        for piece in pieces:
            assert not reader.is_complete
            assert reader.feed(piece) == b""
        assert reader.is_complete
        assert not reader.can_be_reused


def test_a_connection_is_reused_only_when_both_sides_keep_it() -> None:
    assert not read_answer([LAST_OF_CONNECTION]).can_be_reused
    old = b"HTTP/1.0 200 OK\r\n%bContent-Length: 0\r\n\r\n"
    assert not read_answer([old % b""]).can_be_reused
    assert read_answer([old % b"Connection: keep-alive\r\n"]).can_be_reused
    assert not read_answer([COUNTED[:-1]]).can_be_reused


def test_reads_one_answer_after_the_other() -> None:
    reader = ResponseReader(MAX_HEAD_BYTES)
    for data in (COUNTED, CHUNKED, INTERIM, EMPTY, COUNTED):
        reader.begin()
        assert (reader.head, reader.is_complete) == (None, False)
        body = b"".join(reader.feed(piece) for piece in one_by_one(data))
        assert (reader.head, body) == (read_answer([data]).head, read_answer([data]).body)
        assert reader.can_be_reused


def test_shows_the_head_before_the_body_and_passes_pieces_on_as_they_come() -> None:
    reader = ResponseReader(MAX_HEAD_BYTES)
    reader.begin()
    assert reader.feed(COUNTED[:-5]) == b""
    assert reader.head is not None
    assert [reader.feed(piece) for piece in (b"he", b"ll", b"", b"o")] == [b"he", b"ll", b"", b"o"]
    assert reader.is_complete


# --- what is garbled ---

GARBLED: dict[str, bytes] = {
    "nonsense": b"hello there\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2 settings": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 Odd\r\nContent-Length: 5\r\n\r\nhello" + COUNTED,
    "switch of protocols": b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxx",
    "bare switch of protocols": b"HTTP/1.1 101 Switch\r\n\r\nxx",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "NUL": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"nonsense\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two different lengths": OK + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
    "two lengths in one": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "empty length": OK + b"Content-Length:\r\n\r\nhello",
    "endless length": OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "length, then chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, then length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    "bad chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "negative chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "chunk size of 68 bits": OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
    "chunk longer than said": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    "body of an interim answer": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + COUNTED,
    "chunks of an interim answer": CHUNKED.replace(b"200 OK", b"103 Hi") + COUNTED,
}  # fmt: skip


@pytest.mark.parametrize("data", GARBLED.values(), ids=GARBLED.keys())
def test_a_malformed_answer_is_garbled(data: bytes) -> None:
    for pieces in ([data], one_by_one(data)):
        read = read_answer(pieces)
        assert read.is_garbled
        assert read.body in b"hello"


def test_bytes_behind_a_counted_answer_make_its_length_doubtful() -> None:
    assert read_answer([COUNTED + b"X"]).is_garbled
    assert read_answer([COUNTED + COUNTED]).is_garbled


def test_bytes_behind_a_chunked_answer_end_the_connection_but_not_the_answer() -> None:
    read = read_answer([CHUNKED + b"HTTP/1.1 500 Smuggled\r\n\r\n"])
    assert read.head is not None
    assert (read.head.status, read.body, read.is_complete, read.can_be_reused) == (200, b"hello", True, False)


@pytest.mark.parametrize("data", [COUNTED, CHUNKED], ids=["counted", "chunked"])
def test_even_an_empty_line_after_an_answer_ends_the_connection(data: bytes) -> None:
    """Any byte after a message ends the connection. If it comes in a later read, the connection is idle then."""
    assert not read_answer([data + b"\r\n"]).can_be_reused


def test_bytes_without_a_request_are_garbled() -> None:
    with pytest.raises(GarbledAnswer):
        ResponseReader(MAX_HEAD_BYTES).feed(COUNTED)
    assert read_answer([COUNTED, b"\r\n"]).is_garbled


@pytest.mark.parametrize("data", [COUNTED, CHUNKED, INTERIM], ids=["counted", "chunked", "interim"])
def test_an_early_close_is_garbled_wherever_it_comes(data: bytes) -> None:
    places = range(len(data))
    assert [place for place in places if not read_answer([data[:place]], then_closed=True).is_garbled] == []


def test_a_close_after_the_end_changes_nothing() -> None:
    assert read_answer([COUNTED], then_closed=True).is_complete


# --- bounds ---

ENDLESS = {
    "value": (OK + b"X: ", b"a"),
    "spaces in a value": (OK + b"X:", b" "),
    "name": (OK, b"a"),
    "fields": (OK, b"X: y\r\n"),
    "reason": (b"HTTP/1.1 200 ", b"a"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
@pytest.mark.parametrize("piece_bytes", [1000, 65536])
def test_endless_heads_extensions_and_trailers_are_garbled(start: bytes, more: bytes, piece_bytes: int) -> None:
    piece = more * (piece_bytes // len(more))
    fed = itertools.count()
    pieces = (start if not n else piece for n in fed if n * len(piece) < 13_000_000)
    assert read_answer(pieces).is_garbled
    assert next(fed) * len(piece) <= MAX_HEAD_BYTES + 2 * len(piece)


@pytest.mark.parametrize("filling", [b"a", b" "], ids=["letters", "spaces"])
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["no body", "body in the same read"])
def test_a_head_over_the_bound_is_garbled_at_any_cut(filling: bytes, body: bytes) -> None:
    data = OK + b"X:" + filling * 4000 + b"a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for pieces in ([data], [data[:150], data[150:]], one_by_one(data)):
        assert read_answer(pieces, max_head_bytes=200).is_garbled
        assert not read_answer(pieces, max_head_bytes=5000).is_garbled


# --- any cut, and fuzz ---


@given(st.sampled_from([*WHOLE, CLOSED]).flatmap(lambda data: st.tuples(st.just(data), cuts(data))))
@settings(deadline=None, max_examples=150)
def test_any_cut_gives_the_same_answer(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    assert read_answer(pieces, then_closed=True).same() == read_answer([whole], then_closed=True).same()


@pytest.mark.parametrize("data", [*WHOLE, CLOSED])
def test_every_single_cut_gives_the_same_answer(data: bytes) -> None:
    whole = read_answer([data], then_closed=True).same()
    for place in range(1, len(data)):
        assert read_answer([data[:place], data[place:]], then_closed=True).same() == whole


STATUSES = st.integers(200, 599).filter(lambda status: status not in (204, 304))


@given(status=STATUSES, chunks=st.lists(st.binary(min_size=1)), data=st.data())
@settings(deadline=None, max_examples=100)
def test_the_reader_returns_what_was_sent(status: int, chunks: list[bytes], data: st.DataObject) -> None:
    framed = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    message = b"HTTP/1.1 %d Odd\r\nTransfer-Encoding: chunked\r\n\r\n%b" % (status, framed)
    read = read_answer(data.draw(cuts(message)))
    assert read.head is not None
    assert (read.head.status, read.body, read.is_complete) == (status, b"".join(chunks), True)


@given(st.lists(st.binary(max_size=40), max_size=5))
@settings(deadline=None, max_examples=150)
def test_arbitrary_bytes_raise_only_garbled_answers(pieces: list[bytes]) -> None:
    read_answer(pieces, then_closed=True)


@given(mutations([*WHOLE, CLOSED, *GARBLED.values()]).flatmap(cuts))
@settings(deadline=None, max_examples=400)
def test_damaged_answers_raise_only_garbled_answers(pieces: list[bytes]) -> None:
    read_answer(pieces, then_closed=True)
