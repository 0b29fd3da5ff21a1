"""Principals: what tells one from another."""

from __future__ import annotations

from hive.auth.keys import Key, Role, digest_of
from hive.auth.principals import Principal, principal_of


def principal(secret: bytes) -> Principal:
    return principal_of(Key("alice", Role.CLIENT, digest_of(secret), "hk_", 0.0))


def test_two_keys_of_one_name_are_two_principals() -> None:
    assert principal(b"hk_one").id != principal(b"hk_two").id
    assert principal(b"hk_one").id == principal(b"hk_one").id


def test_the_id_tells_nothing_of_the_secret_and_little_of_its_digest() -> None:
    assert principal(b"hk_one").id == digest_of(b"hk_one").hex()[:16]


def test_a_request_without_a_key_has_no_id() -> None:
    assert Principal("", frozenset()).id == ""
