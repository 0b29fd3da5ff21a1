"""The principal: who makes a request, by which rights, within which limits, and with which share of the queue."""

from __future__ import annotations

from dataclasses import dataclass

from hive.auth.keys import Key, Right


@dataclass(frozen=True, slots=True)
class Limits:
    """What a principal may use at most; None is no limit of its own."""

    max_body_bytes: int | None = None
    """The longest body of a request, in bytes."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """The one who makes a request, found before anything of its body is accepted."""

    name: str
    """The name of its key; "" for a request without a key."""
    rights: frozenset[Right]
    key: Key | None = None
    """The key that it showed, if the hub knows it."""
    limits: Limits = NO_LIMITS
    id: str = ""
    """The start of the key's digest, in hexadecimal: it tells this key from every other one, also of the same name."""
    share: float = 1.0
    """Its weight in the queue."""


def principal_of(key: Key, limits: Limits = NO_LIMITS) -> Principal:
    """Return the principal whose key this is."""
    return Principal(key.name, key.rights, key, limits, id=key.digest[:8].hex())
