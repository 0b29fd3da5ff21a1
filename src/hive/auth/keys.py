"""Keys: their roles, rights and digests."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import Enum, StrEnum

KEY_PREFIX = "hk_"
SHOWN_CHARACTERS = 8
"""How many characters of a key listings show."""


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    WORKER = "worker"
    CLIENT = "client"


class Right(Enum):
    """What a request may do. `NONE` is the right for routes that are open to all."""

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
        """Return the rights that this key gives; none once it is revoked."""
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
