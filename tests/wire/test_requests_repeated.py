"""A client repeats its head: the reader's result is that of a new reader."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.errors import Fault
from hive.wire.forwarding import request_head
from hive.wire.requests import RequestReader

from .feeding import MAX_HEAD_BYTES, ReadRequest, cut_at, cuts, mutations, read_request
from .test_requests import COUNTED, KEYED, READABLE

START = b"POST /api/chat HTTP/1.1\r\nHost: hub\r\n"
FIRST = START + b"Content-Length: 5\r\nAuthorization: Bearer hk_x\r\n\r\nhello"
LAST_LINE = START + b"X-One: 1\r\ncontent-length:5\r\n\r\nhello"
SPACED = START + b"Content-Length: 5\t \r\nX-One: 1\r\n\r\nhello"
HIDDEN = START + b"X-One: content-length: 7\r\nContent-Length: 5\r\n\r\nhello"
WAITING = START + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
FIRSTS = [FIRST, LAST_LINE, SPACED, HIDDEN, WAITING, COUNTED, KEYED]


def read_after(first: bytes, pieces: list[bytes]) -> ReadRequest:
    """Feed pieces to a reader that has read one request before."""
    reader = RequestReader(MAX_HEAD_BYTES)
    reader.feed(first)
    assert reader.is_complete
    reader.take_body()
    reader.restart()
    try:
        for piece in pieces:
            reader.feed(piece)
    except Fault as fault:
        return ReadRequest(None, b"", False, False, fault.kind.status, str(fault))
    return ReadRequest(reader.head, reader.take_body(), reader.is_complete, reader.has_excess)


@pytest.mark.parametrize("first", FIRSTS)
def test_a_repeated_head_is_read_the_same_at_every_cut(first: bytes) -> None:
    whole = read_request([first])
    for place in range(len(first)):
        assert read_after(first, cut_at(first, [place] if place else [])) == whole


@pytest.mark.parametrize("body", [b"", b"x", b"hallo", b"x" * 12, b"x" * 70_000])
def test_a_head_that_differs_in_its_length_is_read_right(body: bytes) -> None:
    second = FIRST.replace(b"Length: 5", b"Length: %d" % len(body))[:-5] + body
    read = read_after(FIRST, [second])
    assert read == read_request([second])
    assert read.head is not None
    assert read.head.fields[b"content-length"] == b"%d" % len(body)
    assert (read.head.content_length, read.body, read.is_complete) == (len(body), body, True)


def test_a_long_body_comes_in_pieces() -> None:
    second = FIRST.replace(b"Length: 5", b"Length: 6000")[:-5]
    pieces = [second, *(b"%04d" % number for number in range(1500))]
    read = read_after(FIRST, pieces)
    assert (read.body, read.is_complete, read.has_excess) == (b"".join(pieces[1:]), True, False)
    assert not read_after(FIRST, pieces[:-1]).is_complete
    assert read_after(FIRST, [*pieces, b"x"]).has_excess


@pytest.mark.parametrize("digits", [b"", b" ", b"-1", b"+5", b"0x5", b"5 5", b"5,5", b"9" * 16, b"9" * 30, b"\xb2"])
def test_an_odd_length_gets_the_parser_s_answer(digits: bytes) -> None:
    second = FIRST.replace(b"Length: 5", b"Length: " + digits)
    assert read_after(FIRST, [second]).same() == read_request([second]).same()


@pytest.mark.parametrize(
    "after", [b"GET / HTTP/1.1\r\n", b"x", b"\0", b"\r\n", b"\r\n\r\n", b"\r\n\r\nx", b"\n", b"FROB / HTTP/1.1\r\n\r\n"]
)
def test_bytes_behind_a_repeated_request_are_excess(after: bytes) -> None:
    fresh = read_request([FIRST, after])
    assert read_after(FIRST, [FIRST + after]) == read_after(FIRST, [FIRST, after]) == fresh


def test_many_requests_in_a_row_and_others_in_between() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    for data in [FIRST, FIRST, KEYED, FIRST, READABLE[0], FIRST, LAST_LINE, READABLE[2], LAST_LINE, LAST_LINE] * 3:
        reader.feed(data)
        seen = ReadRequest(reader.head, reader.take_body(), reader.is_complete, reader.has_excess)
        assert seen == read_request([data])
        reader.restart()


def test_the_head_for_the_engine_is_that_of_its_own_request() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    other = FIRST.replace(b"Host: hub\r\n", b"Host: hub\r\nUser-Agent: other\r\n")
    longer = FIRST.replace(b"Length: 5", b"Length: 6") + b"!"
    for data in (FIRST, longer, other, FIRST, longer):
        reader.feed(data)
        assert reader.head is not None
        sent = request_head(b"/api/chat", b"engine:1", b"", reader.head, reader.body_bytes)
        fresh = read_request([data])
        assert fresh.head is not None
        assert sent == request_head(b"/api/chat", b"engine:1", b"", fresh.head, len(fresh.body))
        assert b"hk_x" not in sent
        reader.restart()


@given(
    st.sampled_from(FIRSTS[:5]).flatmap(
        lambda first: st.tuples(st.just(first), mutations([first, first + first, *READABLE]).flatmap(cuts))
    )
)
@settings(deadline=None, max_examples=300)
def test_a_damaged_repetition_is_read_as_on_a_new_connection(case: tuple[bytes, list[bytes]]) -> None:
    first, pieces = case
    assert read_after(first, pieces).same() == read_request(pieces).same()
