"""The fields of a head that cross the hub: no credential goes up, no cookie comes down, no field of one hop crosses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.forwarding import node_request_head, request_head, response_fields
from hive.wire.requests import RequestHead, RequestReader

from .feeding import MAX_HEAD_BYTES, read_request

NEVER_UP = [
    "authorization", "x-api-key", "cookie", "origin", "node", "accept-encoding", "content-encoding", "expect",
    "forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
    "x-forwarded-anything", "proxy-authorization", "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings", "x-http-method", "x-http-method-override", "x-method-override",
    "x-original-url", "x-rewrite-url",
]  # fmt: skip
NEVER_DOWN = [
    "set-cookie", "access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers",
    "x-hive-node", "x-hive-request-id", "x-hive-anything", "connection", "keep-alive", "proxy-connection",
    "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "date",
]  # fmt: skip
OWN = ["host", "content-length", "content-type"]
UP = [
    "user-agent", "accept", "accept-language", "anthropic-version", "anthropic-beta", "openai-beta", "x-stainless-lang",
    "x-request-id", "traceparent",
]  # fmt: skip
DOWN = ["content-type", "server", "retry-after", "request-id", "x-request-id", "openai-processing-ms", "cache-control"]
VALUES = st.from_regex(rb"[!-~]([ -~\x80-\xff]{0,20}[!-~])?", fullmatch=True)


def named(names: list[str], prefixes: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """Return a strategy for these names and for any name with one of these prefixes."""
    ends = st.from_regex(r"[a-z0-9-]{1,10}", fullmatch=True)
    prefixed = st.tuples(st.sampled_from(prefixes), ends).map("".join)
    return st.one_of(st.sampled_from(names), prefixed).map(str.encode)


def client_head(fields: dict[bytes, bytes]) -> RequestHead:
    return RequestHead("POST", "/api/chat", "", is_http11=True, fields=fields)


def sent_up(
    fields: dict[bytes, bytes], *, path: bytes = b"/api/chat", credential: bytes = b"", length: int = 0
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the request line and the fields as an engine sees them."""
    head = request_head(path, b"engine:11434", credential, client_head(fields), length)
    assert head.endswith(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    pairs = [each.partition(b": ") for each in lines]
    return line, [(name.lower(), value) for name, _, value in pairs]


def sent_down(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    lines = response_fields(fields)
    assert not lines or lines.endswith(b"\r\n")
    pairs = [each.partition(b": ") for each in lines.split(b"\r\n") if each]
    return [(name.lower(), value) for name, _, value in pairs]


def test_the_head_is_built_and_not_copied() -> None:
    fields = {b"host": b"hub:4483", b"content-length": b"999", b"content-type": b"text/x", b"user-agent": b"ollama"}
    line, up = sent_up(fields, path=b"/v1/messages", length=17)
    assert line == b"POST /v1/messages HTTP/1.1"
    assert sorted(up) == [
        (b"content-length", b"17"),
        (b"content-type", b"text/x"),
        (b"host", b"engine:11434"),
        (b"user-agent", b"ollama"),
    ]


def test_a_body_without_a_type_is_json() -> None:
    assert (b"content-type", b"application/json") in sent_up({})[1]


def test_an_engine_gets_its_own_credential_and_no_client_s() -> None:
    fields = {b"authorization": b"Bearer hk_client", b"x-api-key": b"hk_client"}
    up = sent_up(fields, credential=b"Authorization: Bearer of-the-engine\r\n")[1]
    assert [value for name, value in up if name == b"authorization"] == [b"Bearer of-the-engine"]
    assert b"hk_client" not in request_head(b"/", b"h", b"", client_head(fields), 0)


@given(
    bad=st.dictionaries(named(NEVER_UP, ("x-forwarded-",)), VALUES, max_size=6),
    good=st.dictionaries(named(UP, ("x-stainless-", "x-custom-")), VALUES, max_size=4),
    length=st.integers(0, 10**9),
)
@settings(deadline=None, max_examples=200)
def test_exactly_the_forbidden_fields_are_kept_from_the_engine(
    bad: dict[bytes, bytes], good: dict[bytes, bytes], length: int
) -> None:
    if b"connection" in bad:
        bad[b"connection"] = b"close"
    line, up = sent_up({b"host": b"hub", **good, **bad}, length=length)
    assert line == b"POST /api/chat HTTP/1.1"
    own = {b"host": b"engine:11434", b"content-length": b"%d" % length, b"content-type": b"application/json"}
    assert dict(up) == own | good
    assert len(up) == len(dict(up))


@given(st.dictionaries(named(UP + NEVER_UP + OWN, ("x-",)), VALUES, max_size=8))
@settings(deadline=None, max_examples=100)
def test_our_own_reader_reads_the_head_for_the_engine(fields: dict[bytes, bytes]) -> None:
    read = read_request([request_head(b"/api/chat", b"engine:11434", b"", client_head(fields), 2) + b"{}"])
    assert (read.status, read.message) == (0, "")
    assert (read.body, read.is_complete, read.has_excess) == (b"{}", True, False)


@pytest.mark.parametrize(
    "connection", [b"X-One, x-two", b"close,X-TWO ,x-one", b"keep-alive, x-one,x-two", b",x-one,,x-two"]
)
def test_fields_that_connection_names_do_not_go_up(connection: bytes) -> None:
    fields = {b"connection": connection, b"x-one": b"1", b"x-two": b"2", b"x-three": b"3"}
    assert [name for name, _ in sent_up(fields)[1] if name.startswith(b"x-")] == [b"x-three"]


@given(
    bad=st.lists(st.tuples(named(NEVER_DOWN, ("access-control-", "x-hive-")), VALUES), max_size=6),
    good=st.lists(st.tuples(named(DOWN, ("x-ratelimit-", "x-custom-")), VALUES), max_size=4),
    data=st.data(),
)
@settings(deadline=None, max_examples=200)
def test_exactly_the_engines_own_fields_are_kept_from_the_client(
    bad: list[tuple[bytes, bytes]], good: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    bad = [(name, b"close" if name == b"connection" else value) for name, value in bad]
    places = data.draw(st.permutations(range(len(bad) + len(good))))
    mixed = [(bad + good)[place] for place in places]
    assert sent_down(mixed) == [field for field in mixed if field in good]


@pytest.mark.parametrize("connection", [b"X-One, x-two", b"close,X-TWO ,x-one", b"keep-alive, x-one,x-two"])
def test_fields_that_connection_names_do_not_come_down(connection: bytes) -> None:
    """RFC 9110, 7.6.1."""
    fields = [(b"x-one", b"1"), (b"connection", connection), (b"x-two", b"2"), (b"x-three", b"3")]
    assert sent_down(fields) == [(b"x-three", b"3")]


def test_vary_by_origin_belongs_to_the_engine_s_cors() -> None:
    assert sent_down([(b"vary", b"Origin")]) == []
    assert sent_down([(b"vary", b"Accept")]) == [(b"vary", b"Accept")]


def test_repeated_fields_come_down_in_their_order() -> None:
    fields = [(b"link", b"1"), (b"server", b"llama.cpp"), (b"link", b"2")]
    assert sent_down(fields) == fields


# --- at a node ---


def rewritten(request: bytes, credential: bytes = b"") -> bytes:
    """Return the head of a request as a node rewrites it."""
    reader = RequestReader(MAX_HEAD_BYTES)
    reader.feed(request)
    assert reader.head is not None
    return node_request_head(reader.head, b"/base" + reader.head.path.encode(), b"engine:1", credential)


def test_a_node_writes_a_request_anew_framed_as_it_came() -> None:
    assert rewritten(b"GET /api/tags HTTP/1.1\r\nHost: hub\r\nAccept: a/b\r\n\r\n") == (
        b"GET /base/api/tags HTTP/1.1\r\nHost: engine:1\r\naccept: a/b\r\n\r\n"
    )
    counted = b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nContent-Type: a/b\r\nContent-Length: 7\r\nX-Api-Key: x\r\n\r\n"
    assert rewritten(counted, b"Authorization: Bearer own\r\n") == (
        b"POST /base/api/chat HTTP/1.1\r\nHost: engine:1\r\nAuthorization: Bearer own\r\n"
        b"Content-Type: a/b\r\nContent-Length: 7\r\n\r\n"
    )
    chunked = b"POST /api/chat HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\nConnection: x-a\r\nX-A: b\r\n\r\n"
    assert rewritten(chunked) == (
        b"POST /base/api/chat HTTP/1.1\r\nHost: engine:1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


def passed_on(*lines: str) -> list[str]:
    """Return the names of those fields that a node passes on to an engine."""
    head = "\r\n".join(("GET /api/tags HTTP/1.1", "Host: hub", *lines, "", ""))
    written = rewritten(head.encode()).decode()
    return [line.partition(":")[0] for line in written.split("\r\n")[2:] if line]


FRAMING = ("connection", "expect", "transfer-encoding")


@pytest.mark.parametrize("name", [each for each in NEVER_UP if each not in FRAMING])
def test_a_field_that_crosses_no_hub_crosses_no_node(name: str) -> None:
    assert passed_on(f"{name}: x") == []


@pytest.mark.parametrize(
    "name",
    [
        "x-access-token", "private-token", "x-amz-security-token", "x-goog-iap-jwt-assertion", "x-secret", "apikey",
        "x-my-api-key", "x_api_key", "ocp-apim-subscription-key", "cookie2", "set-cookie", "x-jwt",
        "cf-access-jwt-assertion", "cf-access-client-secret", "x-webauth-user", "remote-user", "x-client-credentials",
    ],
)  # fmt: skip
def test_a_field_that_looks_like_a_credential_crosses_no_node(name: str) -> None:
    assert passed_on(f"{name}: x") == []


@pytest.mark.parametrize(
    "name",
    [
        *UP, "idempotency-key", "session_id", "conversation_id", "x-session-affinity", "openai-organization",
        "tracestate", "anthropic-dangerous-direct-browser-access", "x-stainless-retry-count", "x-author", "baggage",
        "x-keys",
    ],
)  # fmt: skip
def test_other_fields_of_a_client_cross_a_node(name: str) -> None:
    assert passed_on(f"{name}: x") == [name]
