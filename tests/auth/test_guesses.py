"""Whoever tries different keys is slowed down, by address; who really asks behind a proxy of ours."""

from __future__ import annotations

import gc
import ipaddress
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.auth.access import FREE_GUESSES, LONGEST_DELAY, Door, Guesses, client_address
from hive.auth.key_ring import KeyRing
from hive.auth.keys import Key, Right, Role, digest_of
from hive.errors import Fault
from hive.wire.requests import RequestHead

TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]


def head(**fields: str) -> RequestHead:
    lines = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return RequestHead("POST", "/", "", is_http11=True, fields={b"host": b"hub", **lines})


def test_the_first_guesses_are_free_and_then_each_costs_more() -> None:
    guesses = Guesses()
    delays = [guesses.note("a", b"%d" % number, 0.0) for number in range(100)]
    assert delays[:FREE_GUESSES] == [0.0] * FREE_GUESSES
    assert delays == sorted(delays)
    assert 0 < delays[FREE_GUESSES] < delays[FREE_GUESSES + 1]
    assert delays[-1] == LONGEST_DELAY


def test_the_same_key_again_is_a_retry() -> None:
    guesses = Guesses()
    assert {guesses.note("a", b"same", 0.1 * number) for number in range(100)} == {0.0}
    for number in range(FREE_GUESSES):
        guesses.note("b", b"%d" % number, 0.0)
    last = guesses.note("b", b"last", 0.0)
    assert {guesses.note("b", b"last", 0.0) for _ in range(50)} == {last}


def test_one_address_does_not_slow_another_down() -> None:
    guesses = Guesses()
    for number in range(50):
        guesses.note("a", b"%d" % number, 0.0)
    assert guesses.note("b", b"x", 0.0) == 0.0


def test_after_a_while_all_is_forgotten() -> None:
    guesses = Guesses()
    for number in range(50):
        guesses.note("a", b"%d" % number, float(number))
    assert guesses.note("a", b"x", 200.0) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    """Of one address that guesses for ever, and of addresses without end."""
    guesses = Guesses()

    def guess(numbers: range) -> None:
        for number in numbers:
            guesses.note("a", b"%d" % number, 0.0)
            guesses.note(f"2001:db8::{number:x}", b"x", 0.0)

    guess(range(10_000))
    tracemalloc.start()
    try:
        guess(range(10_000, 20_000))
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        start = kept
        guess(range(20_000, 30_000))
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < start + 100_000
    assert guesses.note("a", b"once more", 0.0) == LONGEST_DELAY


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=2), st.floats(0, 30)), max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_delay_is_negative_or_too_long(tries: list[tuple[str, bytes, float]]) -> None:
    guesses = Guesses()
    for address, secret, now in sorted(tries, key=lambda each: each[2]):
        assert 0 <= guesses.note(address, secret, now) <= LONGEST_DELAY


def refusal(door: Door, secret: str, peer: str = "192.0.2.7", **fields: str) -> Fault:
    with pytest.raises(Fault) as caught:
        door.admit(head(**fields), [secret.encode()], peer, Right.INFER, 0.0)
    return caught.value


def test_an_unknown_key_is_held_back_and_one_that_is_known_or_absent_is_not() -> None:
    revoked = Key("old", Role.CLIENT, digest_of(b"hk_old"), "hk_old", 0.0, revoked_at=1.0)
    door = Door(KeyRing([revoked]), Guesses(), None)
    delays = [refusal(door, f"guess{number}").delay for number in range(FREE_GUESSES + 2)]
    assert delays[0] == 0
    assert delays[-1] > 0
    assert refusal(door, "hk_old").delay == 0
    with pytest.raises(Fault) as caught:
        door.admit(head(), [], "192.0.2.7", Right.INFER, 0.0)
    assert caught.value.delay == 0
    assert refusal(door, "other", peer="192.0.2.8").delay == 0


def test_behind_a_trusted_proxy_each_client_is_slowed_down_for_itself() -> None:
    door = Door(KeyRing(), Guesses(), None, trusted=tuple(TRUSTED))
    for number in range(20):
        guesser = refusal(door, f"guess{number}", "10.0.0.1", x_forwarded_for="198.51.100.9")
    assert guesser.delay > 0
    assert refusal(door, "typo", "10.0.0.1", x_forwarded_for="198.51.100.10").delay == 0


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.1, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", " , ,", "10.0.0.1"),
        ("10.0.0.1", "unknown", "unknown"),
        ("2001:db8::1", "2001:db9::1", "2001:db9::1"),
    ],
)
def test_who_really_asks(peer: str, forwarded: str, address: str) -> None:
    """The client writes the left of X-Forwarded-For as it likes; the last hop that is not ours is the truth."""
    assert client_address(peer, head(x_forwarded_for=forwarded), TRUSTED) == address


def test_without_trusted_proxies_the_peer_asks() -> None:
    assert client_address("10.0.0.1", head(x_forwarded_for="198.51.100.1"), []) == "10.0.0.1"


def test_an_endless_address_is_cut() -> None:
    assert len(client_address("10.0.0.1", head(x_forwarded_for="9" * 10_000), TRUSTED)) <= 64
