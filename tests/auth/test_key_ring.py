"""The key ring: how the hub finds the principal of a secret."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hive.auth.key_ring import KeyRing
from hive.auth.keys import Key, Role, digest_of


def key(secret: bytes = b"hk_secret", role: Role = Role.CLIENT) -> Key:
    return Key("alice", role, digest_of(secret), secret[:8].decode("latin-1"), 0.0)


def test_the_ring_finds_a_key_by_its_secret() -> None:
    alice, bob = key(b"hk_alice"), key(b"hk_bob", Role.ADMIN)
    ring = KeyRing([alice])
    ring.put(bob)
    for secret, expected in ((b"hk_alice", alice), (b"hk_bob", bob)):
        found = ring.find(secret)
        assert found is not None
        assert (found.name, found.key, found.rights) == (expected.name, expected, expected.rights)
    for other in (b"", b"hk_", b"hk_alic", b"hk_alice ", b"HK_ALICE", alice.digest, alice.digest.hex().encode()):
        assert ring.find(other) is None


def test_an_empty_ring_finds_nothing() -> None:
    assert KeyRing().find(b"hk_alice") is None


def test_a_revoked_key_stays_known() -> None:
    alice = key(b"hk_alice")
    ring = KeyRing([alice])
    ring.put(replace(alice, revoked_at=5.0))
    found = ring.find(b"hk_alice")
    assert found is not None
    assert found.key is not None
    assert (found.key.revoked_at, found.rights) == (5.0, frozenset())


@given(st.sets(st.binary(max_size=20), max_size=8), st.binary(max_size=20))
@settings(deadline=None, max_examples=100)
def test_the_ring_finds_what_was_put_and_nothing_else(secrets: set[bytes], other: bytes) -> None:
    ring = KeyRing(key(secret) for secret in secrets)
    assert all(ring.find(secret) is not None for secret in secrets)
    assert (ring.find(other) is not None) is (other in secrets)
