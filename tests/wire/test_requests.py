"""What the reader of requests understands, at any cut of the bytes: heads, bodies, keys in paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.requests import RequestHead, RequestReader, split_key

from .feeding import MAX_HEAD_BYTES, cuts, one_by_one, read_request

BARE = b"GET /api/tags?x=1&y=/?z HTTP/1.1\r\nHost: hub:4483\r\nUser-Agent: ollama/0.33.0\r\n\r\n"
COUNTED = b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /api/chat HTTP/1.1\r\nHost: [::1]:4483\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;name=value;quoted="a;b"\r\nhel\r\n02\r\nlo\r\n0;last\r\n'
    b"Authorization: Bearer hk_trailer\r\nX-Api-Key: hk_trailer\r\nHost: evil\r\nHost: evil\r\n\r\n"
)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
H2C_BARE = b"GET /api/tags HTTP/1.1\r\nHost: hub\r\n" + H2C + b"\r\n"
H2C_COUNTED = b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n" + H2C + b"\r\nhello"
H2C_CHUNKED = (
    b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n" + H2C + b"\r\n5\r\nhello\r\n0\r\n\r\n"
)
OLD = b"POST /api/chat HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"
KEYED = b"POST /k/hk_abc/v1/messages?beta=true HTTP/1.1\r\nHost: hub\r\nContent-Length: 2\r\n\r\n{}"
PIPELINED = COUNTED + BARE


def head_of(data: bytes) -> RequestHead:
    read = read_request([data])
    assert (read.status, read.message) == (0, "")
    assert read.head is not None
    return read.head


def test_reads_a_request_without_a_body() -> None:
    read = read_request([BARE])
    assert read.head == RequestHead(
        method="GET",
        path="/api/tags",
        query="x=1&y=/?z",
        is_http11=True,
        fields={b"host": b"hub:4483", b"user-agent": b"ollama/0.33.0"},
    )
    assert (read.body, read.is_complete, read.has_excess) == (b"", True, False)
    assert not head_of(BARE).has_body


def test_reads_a_counted_body() -> None:
    read = read_request([COUNTED])
    assert read.head is not None
    assert (read.head.content_length, read.head.is_chunked, read.head.has_body) == (5, False, True)
    assert (read.body, read.is_complete) == (b"hello", True)


def test_reads_a_chunked_body_and_drops_its_extensions() -> None:
    read = read_request([CHUNKED])
    assert read.head is not None
    assert (read.head.content_length, read.head.is_chunked, read.head.has_body) == (None, True, True)
    assert (read.body, read.is_complete, read.has_excess) == (b"hello", True, False)


def test_a_key_in_a_trailer_is_ignored() -> None:
    assert head_of(CHUNKED).fields == {b"host": b"[::1]:4483", b"transfer-encoding": b"chunked"}


def test_shows_the_head_before_the_body_and_counts_its_bytes() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    assert reader.is_idle
    reader.feed(COUNTED[:10])
    assert not reader.is_idle
    assert reader.head is None
    reader.feed(COUNTED[10:-2])
    assert reader.head is not None
    assert (reader.body_bytes, reader.is_complete) == (3, False)
    reader.feed(COUNTED[-2:])
    assert (reader.body_bytes, reader.is_complete, reader.take_body()) == (5, True, b"hello")
    assert reader.take_body() == b""


def test_reads_one_request_after_the_other() -> None:
    reader = RequestReader(MAX_HEAD_BYTES)
    for data in (COUNTED, CHUNKED, BARE, b"\r\n" + KEYED, OLD.replace(b"1.0", b"1.1\r\nHost: hub")):
        for piece in one_by_one(data):
            assert not reader.is_complete
            reader.feed(piece)
        assert (reader.is_complete, reader.has_excess) == (True, False)
        assert (reader.head, reader.take_body()) == (head_of(data), read_request([data]).body)
        reader.restart()
        assert (reader.head, reader.is_idle, reader.body_bytes) == (None, True, 0)


def test_a_second_request_in_flight_is_never_started() -> None:
    for pieces in ([PIPELINED], [COUNTED, BARE], [COUNTED + b"G", BARE[1:]], one_by_one(PIPELINED)):
        read = read_request(pieces)
        assert read.head is not None
        assert (read.head.path, read.body) == ("/api/chat", b"hello")
        assert (read.is_complete, read.has_excess) == (True, True)


def test_an_empty_line_after_a_body_is_no_second_request() -> None:
    """RFC 9112, 2.2: old clients send one after a POST."""
    for pieces in ([COUNTED + b"\r\n"], [COUNTED, b"\r\n"]):
        assert not read_request(pieces).has_excess


def test_an_offer_to_upgrade_is_an_ordinary_request() -> None:
    read = read_request([H2C_BARE])
    assert read.head is not None
    assert (read.head.path, read.is_complete, read.has_excess) == ("/api/tags", True, False)


@pytest.mark.parametrize("data", [H2C_COUNTED, H2C_CHUNKED], ids=["counted", "chunked"])
def test_the_body_of_a_request_that_offers_to_upgrade_is_read(data: bytes) -> None:
    """Java's HttpClient offers h2c with each of its first requests, POST included."""
    for pieces in ([data], one_by_one(data)):
        read = read_request(pieces)
        assert (read.body, read.is_complete, read.has_excess) == (b"hello", True, False)


@pytest.mark.parametrize("name", [b"UPGRADE", b"upgrade", b"uPgRaDe", b"UpGrade"])
@pytest.mark.parametrize("lines", [b"Connection: %b\r\n%b: h2c\r\n", b"Connection: x,%b\r\n%b:h2c,websocket\r\n"])
def test_an_offer_to_upgrade_in_any_spelling_is_an_ordinary_request(name: bytes, lines: bytes) -> None:
    data = b"POST /a HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n" + lines % (name, name) + b"\r\nhello"
    for pieces in ([data], one_by_one(data)):
        read = read_request(pieces)
        assert read.head is not None
        assert read.head.fields[b"upgrade"].startswith(b"h2c")
        assert (read.body, read.is_complete, read.has_excess) == (b"hello", True, False)


def test_connect_to_a_path_opens_no_tunnel() -> None:
    for data in (b"CONNECT /a HTTP/1.1\r\nHost: hub\r\n\r\n", b"CONNECT /a HTTP/1.1\r\nHost: hub\r\n\r\nmore"):
        read = read_request([data])
        assert read.status in (400, 405) or (read.is_complete and read.has_excess is data.endswith(b"more"))


def test_bytes_after_an_offer_to_upgrade_are_excess() -> None:
    for data in (H2C_BARE, H2C_COUNTED):
        read = read_request([data + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
        assert (read.is_complete, read.has_excess) == (True, True)


def test_http_1_0_needs_no_host_and_closes_unless_asked() -> None:
    read = read_request([OLD])
    assert read.head is not None
    assert (read.head.is_http11, read.head.keep_alive, read.body) == (False, False, b"hello")
    assert head_of(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive
    assert head_of(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n").keep_alive
    assert not head_of(b"GET / HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").keep_alive


def test_knows_a_client_that_waits_for_100_continue() -> None:
    head = b"POST /a HTTP/%b\r\nHost: hub\r\nExpect: %b\r\nContent-Length: 1\r\n\r\n"
    assert head_of(head % (b"1.1", b"100-Continue")).expects_continue
    assert not head_of(head % (b"1.0", b"100-continue")).expects_continue
    assert not head_of(head % (b"1.1", b"200-ok")).expects_continue
    assert not head_of(BARE).expects_continue


def test_names_are_lower_case_and_repeated_fields_joined() -> None:
    head = head_of(
        b"GET / HTTP/1.1\r\nHOST: hub\r\nX-Empty:\r\nAccept: a\r\n"
        b"X-Spaces: \t b  c\r\nACCEPT: d\r\nX-Text: \xc3\xa9\xff\r\n\r\n"
    )
    assert head.fields == {
        b"host": b"hub",
        b"x-empty": b"",
        b"accept": b"a, d",
        b"x-spaces": b"b  c",
        b"x-text": b"\xc3\xa9\xff",
    }


def test_whitespace_around_a_value_is_no_part_of_it() -> None:
    """RFC 9110, 5.5; `Host: hub ` and `Expect: 100-continue ` are legal."""
    head = head_of(b"POST / HTTP/1.1\r\nHost:\thub \t\r\nExpect: 100-continue \r\nContent-Length: 1 \r\n\r\n")
    assert (head.fields[b"host"], head.expects_continue, head.content_length) == (b"hub", True, 1)


@pytest.mark.parametrize("host", [b"hub", b"hub:4483", b"a_b.c-d", b"127.0.0.1:1", b"[::1]", b"[fe80::1]:80", b"A.B"])
def test_hosts_that_look_like_one(host: bytes) -> None:
    assert head_of(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).fields[b"host"] == host


@pytest.mark.parametrize(
    ("target", "path", "query", "key"),
    [
        (b"/k/hk_abc/api/chat", "/api/chat", "", b"hk_abc"),
        (b"/k/hk_abc/", "/", "", b"hk_abc"),
        (b"/k/hk_abc", "/", "", b"hk_abc"),
        (b"/k/hk_abc?a=/b/c", "/", "a=/b/c", b"hk_abc"),
        (b"/k/hk_abc//api/chat", "//api/chat", "", b"hk_abc"),
        (b"/k//api/chat", "/api/chat", "", b""),
        (b"/k/", "/", "", b""),
        (b"/k", "/k", "", None),
        (b"/kk/hk_abc/api/chat", "/kk/hk_abc/api/chat", "", None),
        (b"/K/hk_abc/api/chat", "/K/hk_abc/api/chat", "", None),
        (b"/api/k/hk_abc", "/api/k/hk_abc", "", None),
        (b"/?/k/hk_abc", "/", "/k/hk_abc", None),
    ],
)
def test_a_key_is_cut_off_the_path(target: bytes, path: str, query: str, key: bytes | None) -> None:
    head = head_of(b"GET %b HTTP/1.1\r\nHost: hub\r\n\r\n" % target)
    assert (head.path, head.query, head.path_key) == (path, query, key)
    assert split_key(target.decode().partition("?")[0]) == (path, key)


def test_no_key_is_in_the_repr_of_a_head() -> None:
    head = head_of(
        b"GET /k/hk_one/api/tags HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer hk_two\r\nX-Api-Key: hk_three\r\n\r\n"
    )
    assert [key for key in ("hk_one", "hk_two", "hk_three") if key in repr(head)] == []


@pytest.mark.parametrize("step", [7, 9_999, 1 << 20])
def test_a_body_in_very_many_chunks_is_read_right_and_kept_in_few_pieces(step: int) -> None:
    """A separate object for each piece would take twenty times its bytes."""
    count = 100_000
    data = b"POST /a HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * count
    reader = RequestReader(MAX_HEAD_BYTES)
    most = 0
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        most = max(most, len(reader._body))
    assert reader.body_bytes == 2 * count
    assert 0 < most <= 1000
    reader.feed(b"1\r\nc\r\n0\r\n\r\n")
    assert reader.is_complete
    assert reader.take_body() == b"ab" * count + b"c"
    assert reader.take_body() == b""
    reader.restart()
    reader.feed(COUNTED)
    assert reader.take_body() == b"hello"


# --- any cut of the bytes gives the same result ---

READABLE = [BARE, COUNTED, CHUNKED, H2C_BARE, H2C_COUNTED, H2C_CHUNKED, OLD, KEYED, PIPELINED, b"\r\n" + BARE]


@given(st.sampled_from(READABLE).flatmap(lambda data: st.tuples(st.just(data), cuts(data))))
@settings(deadline=None, max_examples=150)
def test_any_cut_gives_the_same_request(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    assert read_request(pieces).same() == read_request([whole]).same()


@pytest.mark.parametrize("data", READABLE)
def test_every_single_cut_gives_the_same_request(data: bytes) -> None:
    whole = read_request([data]).same()
    different = [place for place in range(1, len(data)) if read_request([data[:place], data[place:]]).same() != whole]
    assert different == []


def test_an_empty_read_changes_nothing() -> None:
    assert read_request([b"", COUNTED[:9], b"", COUNTED[9:], b""]).same() == read_request([COUNTED]).same()


TOKENS = st.from_regex(rb"[a-z][a-z0-9!#$%&'*+.^_`|~-]{0,12}", fullmatch=True)
VALUES = st.from_regex(rb"([!-~\x80-\xff]([ -~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)
PATHS = st.from_regex(rb"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,20}", fullmatch=True)


@given(
    path=PATHS.filter(lambda path: not path.startswith(b"/k/")),
    fields=st.dictionaries(TOKENS.map(lambda token: b"x-" + token), VALUES, max_size=4),
    chunks=st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    is_chunked=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=150)
def test_the_reader_returns_what_was_sent(
    path: bytes, fields: dict[bytes, bytes], chunks: list[bytes], is_chunked: bool, data: st.DataObject
) -> None:
    body = b"".join(chunks)
    lines = b"".join(b"%b: %b\r\n" % (name.title(), value) for name, value in fields.items())
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    framed = body
    if is_chunked:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    message = b"POST %b HTTP/1.1\r\nHost: hub\r\n%b%b\r\n\r\n%b" % (path, lines, framing, framed)
    read = read_request(data.draw(cuts(message)))
    assert (read.status, read.message) == (0, "")
    assert read.head is not None
    assert {name: value for name, value in read.head.fields.items() if name[:2] == b"x-"} == fields
    assert (read.head.path, read.body, read.is_complete) == (path.decode(), body, True)
