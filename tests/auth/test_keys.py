"""Keys: what each role may do, what is kept of a secret, and how the ring finds it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.auth.keys import KEY_PREFIX, Key, KeyRing, Right, Role, digest_of, make_secret

RIGHTS = {
    (Role.ADMIN, False): {Right.NONE, Right.INFER, Right.MANAGE, Right.ADMIN},
    (Role.CLIENT, False): {Right.NONE, Right.INFER},
    (Role.CLIENT, True): {Right.NONE, Right.INFER, Right.MANAGE},
    (Role.WORKER, False): {Right.NONE, Right.WORK},
}


def key(secret: bytes = b"hk_secret", role: Role = Role.CLIENT, *, manage: bool = False) -> Key:
    return Key("alice", role, digest_of(secret), secret[:8].decode("latin-1"), 0.0, manage)


@pytest.mark.parametrize(("role", "manage"), RIGHTS)
def test_a_role_gives_its_rights(role: Role, manage: bool) -> None:
    assert key(role=role, manage=manage).rights == RIGHTS[role, manage]


def test_only_a_worker_may_join_and_it_may_nothing_else() -> None:
    assert [role for role, _ in RIGHTS if Right.WORK in key(role=role).rights] == [Role.WORKER]
    assert Right.INFER not in key(role=Role.WORKER).rights


@pytest.mark.parametrize("role", list(Role))
def test_a_revoked_key_gives_no_right(role: Role) -> None:
    assert replace(key(role=role, manage=True), revoked_at=1.0).rights == frozenset()


def test_a_secret_is_long_random_and_safe_in_a_header_and_a_path() -> None:
    secrets = {make_secret() for _ in range(200)}
    assert len(secrets) == 200
    for secret in secrets:
        assert secret.startswith(KEY_PREFIX)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43,}", secret.removeprefix(KEY_PREFIX))


def test_only_the_digest_of_a_secret_is_kept() -> None:
    kept = key(b"hk_0123456789")
    assert kept.digest == hashlib.sha256(b"hk_0123456789").digest()
    assert "0123456789" not in repr(kept)


def test_the_ring_finds_a_key_by_its_secret() -> None:
    alice, bob = key(b"hk_alice"), key(b"hk_bob", Role.ADMIN)
    ring = KeyRing([alice])
    ring.put(bob)
    assert ring.find(b"hk_alice") == (alice, alice.rights)
    assert ring.find(b"hk_bob") == (bob, bob.rights)
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
    assert (found[0].revoked_at, found[1]) == (5.0, frozenset())


@given(st.sets(st.binary(max_size=20), max_size=8), st.binary(max_size=20))
@settings(deadline=None, max_examples=100)
def test_the_ring_finds_what_was_put_and_nothing_else(secrets: set[bytes], other: bytes) -> None:
    ring = KeyRing(key(secret) for secret in secrets)
    assert all(ring.find(secret) is not None for secret in secrets)
    assert (ring.find(other) is not None) is (other in secrets)
