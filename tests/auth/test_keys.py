"""Keys: what each role may do, and what is kept of a secret."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from hive.auth.keys import KEY_PREFIX, Key, Right, Role, digest_of, make_secret

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
