"""What an engine remembers of requests: everything but what was said."""

from __future__ import annotations

import hashlib

import pytest

from hive.sim.ledger import Ledger

from .desks import make_request


def test_requests_are_counted_by_path_and_numbered() -> None:
    ledger = Ledger(10)
    numbers = [ledger.note(make_request(path)).number for path in ("/a", "/b?x=1", "/a?y=2")]
    assert (numbers, ledger.received) == ([1, 2, 3], {"/a": 2, "/b": 1})


def test_a_request_is_remembered_with_query_headers_and_digest() -> None:
    seen = Ledger(10).note(make_request("/a?x=1", b"hello", X_Test="yes"))
    assert (seen.method, seen.path, seen.query) == ("POST", "/a", "x=1")
    assert (seen.headers, seen.body_bytes) == ((("X-Test", "yes"),), 5)
    assert seen.body_sha256 == hashlib.sha256(b"hello").hexdigest()
    assert (seen.status, seen.outcome, seen.faults) == (0, "open", [])


def test_what_was_said_is_not_remembered() -> None:
    spoken = dict.fromkeys(("messages", "prompt", "input", "system", "suffix"), "secret")
    assert Ledger(10).note(make_request("/a", spoken | {"model": "m", "options": {"a": 1}})).body == {
        "model": "m",
        "options": {"a": 1},
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"{", b'"text"', b'{"a":"' + b"x" * (256 * 1024) + b'"}'],
    ids=["empty", "list", "cut", "text", "large"],
)
def test_a_body_that_is_no_small_object_is_not_shown(body: bytes) -> None:
    assert Ledger(10).note(make_request("/a", body)).body is None


def test_only_the_last_requests_are_remembered() -> None:
    ledger = Ledger(2)
    for path in ("/a", "/b", "/c"):
        ledger.note(make_request(path))
    assert [seen.path for seen in ledger.requests] == ["/b", "/c"]
