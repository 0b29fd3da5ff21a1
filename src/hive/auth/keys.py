"""Keys: their roles, rights and digests, and the ring in which the hub looks them up."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

KEY_PREFIX = "hk_"
SHOWN_CHARACTERS = 8
"""How much of a key listings show."""


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    WORKER = "worker"
    CLIENT = "client"


class Right(Enum):
    """What a request may do. `NONE` is asked by routes open to all."""

    __hash__ = object.__hash__  # Enum's own is written in Python: every request asks for it

    NONE = "none"
    INFER = "infer"
    MANAGE = "manage"
    ADMIN = "admin"
    WORK = "work"


RIGHTS_OF_ROLE = {
    Role.ADMIN: frozenset({Right.NONE, Right.INFER, Right.MANAGE, Right.ADMIN}),
    Role.WORKER: frozenset({Right.NONE, Right.WORK}),
    Role.CLIENT: frozenset({Right.NONE, Right.INFER}),
}


@dataclass(frozen=True, slots=True)
class Key:
    """What the hub keeps of a key: never the secret itself. Times are Unix seconds."""

    name: str
    role: Role
    digest: bytes
    shown: str
    """The first characters of the secret, for listings."""
    created_at: float
    manage: bool = False
    """A client key that may also manage models."""
    revoked_at: float | None = None

    @property
    def rights(self) -> frozenset[Right]:
        """What this key allows; nothing once it is revoked."""
        if self.revoked_at is not None:
            return frozenset()
        rights = RIGHTS_OF_ROLE[self.role]
        return rights | {Right.MANAGE} if self.manage else rights


def digest_of(secret: bytes) -> bytes:
    """Return the SHA-256 of a key. Keys are random, so no slow hash is needed."""
    return hashlib.sha256(secret).digest()


def make_secret() -> str:
    """Return a new key with 256 random bits, safe in a header and in a URL's path."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


class KeyRing:
    """All keys the hub ever knew, by digest: one writer (the use cases of keys), read by every request."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest: dict[bytes, tuple[Key, frozenset[Right]]] = {}
        for key in keys:
            self.put(key)

    def put(self, key: Key) -> None:
        """Add a key, or replace the one with the same digest (as when it is revoked)."""
        self._by_digest[key.digest] = (key, key.rights)

    def find(self, secret: bytes) -> tuple[Key, frozenset[Right]] | None:
        """Return the key and its rights for a secret; None when the hub never knew it."""
        digest = digest_of(secret)
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found[0].digest, digest):
            return None
        return found

    def allows(self, key: Key, right: Right) -> bool:
        """Does a key that was found earlier still give a right?"""
        found = self._by_digest.get(key.digest)
        return found is not None and right in found[1]
