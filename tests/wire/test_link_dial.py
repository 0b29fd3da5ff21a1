"""The request of a node, its reaction to the answer, and when it dials again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.link_accept import accept_upgrade
from hive.wire.link_dial import Dial, NoAnswer, Refused, ends_agent, redial_seconds
from hive.wire.link_messages import Beat
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import LinkSocket
from hive.wire.requests import RequestReader

from .feeding import MAX_HEAD_BYTES, cuts, one_by_one
from .linking import from_hub

HUB = "https://hub.example"


def dial(hub: str = HUB) -> Dial:
    return Dial(hub, "hk_secret", "hive/0.1.0")


def answered(one: Dial, pieces: list[bytes], *, then_closed: bool = False) -> LinkSocket | None:
    """Feed an answer. Once the socket is open, it gets every further byte."""
    socket = None
    for piece in pieces:
        if socket is None:
            socket = one.receive(piece, 1.0)
        else:
            socket.receive(piece, 1.0)
    if then_closed:
        one.receive_eof()
    return socket


def upgrade_for(one: Dial) -> bytes:
    reader = RequestReader(MAX_HEAD_BYTES)
    reader.feed(one.request)
    assert reader.head is not None
    return accept_upgrade(reader.head).head


def test_the_request_of_a_node() -> None:
    lines = dial().request.decode().split("\r\n")
    assert lines[0] == "GET /hive/link HTTP/1.1"
    assert lines[-2:] == ["", ""]
    fields = dict(line.split(": ", 1) for line in lines[1:-2])
    assert len(fields.pop("Sec-WebSocket-Key")) == 24
    assert fields == {
        "Host": "hub.example",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "hive-link-1",
        "Authorization": "Bearer hk_secret",
        "User-Agent": "hive/0.1.0",
    }


@pytest.mark.parametrize(
    ("hub", "path", "host"),
    [
        ("http://10.0.0.1:4483", "/hive/link", "10.0.0.1:4483"),
        ("hub:4483", "/hive/link", "hub:4483"),
        ("https://example.org/gpu/", "/gpu/hive/link", "example.org"),
        ("https://example.org:8443", "/hive/link", "example.org:8443"),
        ("http://[::1]:4483", "/hive/link", "[::1]:4483"),
        ("https://bücher.example", "/hive/link", "xn--bcher-kva.example"),
    ],
)
def test_the_hubs_url_is_that_of_clients(hub: str, path: str, host: str) -> None:
    lines = dial(hub).request.decode().split("\r\n")
    assert (lines[0], lines[1]) == (f"GET {path} HTTP/1.1", f"Host: {host}")


@pytest.mark.parametrize(
    "hub",
    [
        "", "ftp://hub", "ws://hub", "wss://hub", "http://", "https://:443", "http://hub:99999", "http://hub?a=b", "http://hub#a",
        "http://a b",
        "http://hub/ü", "http://user:secret@hub", "http://" + "a" * 70, "http://[::1",
    ],
)  # fmt: skip
def test_a_url_that_names_no_hub_is_refused_without_its_secrets(hub: str) -> None:
    with pytest.raises(ValueError) as caught:
        dial(hub)
    assert "secret" not in str(caught.value)


def test_a_good_answer_opens_the_socket() -> None:
    one = dial()
    stream = upgrade_for(one) + from_hub(Beat(1)) + from_hub(Beat(2))
    socket = answered(one, [stream])
    assert socket is not None
    assert [socket.next_message() for _ in range(3)] == ['{"type":"beat","seq":1}', '{"type":"beat","seq":2}', None]


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_any_cut_opens_the_socket(data: st.DataObject) -> None:
    one = dial()
    socket = answered(one, data.draw(cuts(upgrade_for(one) + from_hub(Beat(1)))))
    assert socket is not None
    assert socket.next_message() == '{"type":"beat","seq":1}'


def body_of(status: bytes, body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


OURS = b'{"error":{"code":"unauthenticated","message":"this key was revoked"}}'
REFUSED = {
    "key": (body_of(b"401 Unauthorized", OURS), 401, "this key was revoked", None),
    "draining": (body_of(b"503 Service Unavailable", b"{}", b"Retry-After: 5\r\n"), 503, "Service Unavailable", 5.0),
    "date to retry": (body_of(b"503 No", b"", b"Retry-After: Fri, 31 Dec 1999\r\n"), 503, "No", None),
    "a proxy": (body_of(b"502 Bad Gateway", b"<html>"), 502, "Bad Gateway", None),
    "a redirect": (body_of(b"301 Moved", b"", b"Location: /\r\n"), 301, "Moved", None),
    "a page": (body_of(b"200 OK", b"hello"), 200, "OK", None),
    "controls": (body_of(b"403 No", b'{"error":{"message":"a\\u001b[1m\\nb"}}'), 403, "a [1m b", None),
}


@pytest.mark.parametrize(("answer", "status", "message", "retry_after"), REFUSED.values(), ids=REFUSED.keys())
def test_any_answer_but_101_is_a_refusal(answer: bytes, status: int, message: str, retry_after: float | None) -> None:
    for pieces in ([answer], one_by_one(answer)):
        with pytest.raises(Refused) as caught:
            answered(dial(), pieces)
        refused = caught.value
        assert (refused.status, str(refused), refused.retry_after) == (status, message, retry_after)


MARK = b"X-Hive-Request-Id: 0123abcd\r\n"
WHOSE = {
    "the hub": (body_of(b"401 No", OURS, MARK), True),
    "the hub, through a proxy that changes spellings": (body_of(b"401 No", OURS, MARK.lower()), True),
    "a gateway that writes errors as the hub does": (body_of(b"401 No", OURS), False),
    "a page": (body_of(b"401 No", b"<html>"), False),
    "a page before the hub's own": (body_of(b"401 No", b"<html>", MARK), False),
}


@pytest.mark.parametrize(("answer", "is_of_hub"), WHOSE.values(), ids=WHOSE)
def test_a_refusal_comes_from_a_hub_if_it_has_form_and_mark_of_one(answer: bytes, is_of_hub: bool) -> None:
    with pytest.raises(Refused) as caught:
        answered(dial(), [answer])
    assert caught.value.is_of_hub is is_of_hub
    assert ends_agent(caught.value.status, is_of_hub=caught.value.is_of_hub) is is_of_hub


def test_a_refusal_that_ends_with_the_connection_is_read() -> None:
    with pytest.raises(Refused) as caught:
        answered(dial(), [b"HTTP/1.1 401 No\r\n\r\n", OURS], then_closed=True)
    assert (caught.value.status, str(caught.value)) == (401, "this key was revoked")


BAD_UPGRADES = {
    "wrong answer to the key": (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
    "no upgrade": (b"Upgrade: websocket\r\n", b""),
    "no subprotocol": (b"Sec-WebSocket-Protocol: hive-link-1\r\n", b""),
    "another subprotocol": (b"hive-link-1", b"hive-link-9"),
    "an extension": (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
}


@pytest.mark.parametrize(("there", "instead"), BAD_UPGRADES.values(), ids=BAD_UPGRADES.keys())
def test_an_upgrade_that_is_not_ours_is_refused(there: bytes, instead: bytes) -> None:
    one = dial()
    with pytest.raises(Refused) as caught:
        answered(one, [upgrade_for(one).replace(there, instead)])
    assert caught.value.status == 101


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x15\x03\x01\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_an_answer_that_is_not_http_is_refused(answer: bytes) -> None:
    with pytest.raises(Refused) as caught:
        answered(dial(), [answer], then_closed=True)
    assert caught.value.status == 0


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x03\x00\x02\x02\x46"])
def test_an_end_without_an_answer_may_be_reported_twice(answer: bytes) -> None:
    one = dial()
    assert one.receive(answer, 1.0) is None
    with pytest.raises(NoAnswer):
        one.receive_eof()
    with pytest.raises(Refused):
        one.receive_eof()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Sw", b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_connection_that_ends_early_is_refused(answer: bytes) -> None:
    with pytest.raises(Refused) as caught:
        answered(dial(), [answer], then_closed=True)
    assert caught.value.status == 0


ENDLESS = {
    "line": (b"", b"a" * 4096),
    "field": (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 4096),
    "counted body": (b"HTTP/1.1 500 No\r\nContent-Length: 9999999999\r\n\r\n", b"a" * 4096),
    "chunks": (
        b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1000\r\n" + b"a" * 4096 + b"\r\n",
    ),
    "body to the close": (b"HTTP/1.1 500 No\r\n\r\n", b"a" * 4096),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_an_endless_answer_is_refused(start: bytes, more: bytes) -> None:
    fed = itertools.count()
    pieces = itertools.chain([start], (more for n in fed if n < 10_000))
    with pytest.raises(Refused):
        for _ in map(dial().receive, pieces, itertools.repeat(1.0)):
            pass
    assert next(fed) * len(more) <= 2 << 20


@given(st.lists(st.binary(max_size=60), max_size=5))
@settings(deadline=None, max_examples=150)
def test_arbitrary_bytes_are_refused(pieces: list[bytes]) -> None:
    with pytest.raises(Refused):
        answered(dial(), pieces, then_closed=True)


# --- when to try again ---


def test_a_lost_hub_is_dialed_soon_and_then_less_often() -> None:
    delays = [redial_seconds(attempt, CloseCode.BROKE_OFF, 1.0) for attempt in range(1, 9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert redial_seconds(10_000, 0, 1.0) == 60


def test_a_problem_for_people_is_not_tried_every_second() -> None:
    assert redial_seconds(1, 401, 1.0) == redial_seconds(1, CloseCode.MALFORMED, 1.0) == 60


def test_a_taken_name_is_tried_again_soon() -> None:
    assert redial_seconds(1, CloseCode.NAME_TAKEN, 1.0) == 1


@given(st.integers(1, 100), st.sampled_from([0, 401, 1001, *CloseCode]), st.floats(0, 1))
def test_chance_shortens_a_wait_by_half_at_most(attempt: int, why: int, chance: float) -> None:
    longest = redial_seconds(attempt, why, 1.0)
    assert longest / 2 <= redial_seconds(attempt, why, chance) <= longest
