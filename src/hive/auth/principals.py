"""The principal: the maker of a request, with its rights, its limits and its share of the queue."""

from __future__ import annotations

from dataclasses import dataclass

from hive.auth.keys import Key, Right


@dataclass(frozen=True, slots=True)
class Limits:
    """What a principal may use at most; None: the principal has no limit of its own."""

    max_body_bytes: int | None = None
    """The longest body of a request, in bytes."""


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """The maker of a request. The hub finds it before it accepts any part of the body."""

    name: str
    """The name of its key; "" for a request without a key."""
    rights: frozenset[Right]
    key: Key | None = None
    """The key that it showed, if the hub knows it."""
    limits: Limits = NO_LIMITS
    id: str = ""
    """The start of the key's digest, in hexadecimal: it differs for every key, also for keys of the same name."""
    share: float = 1.0
    """Its weight in the queue."""


def principal_of(key: Key, limits: Limits = NO_LIMITS) -> Principal:
    """Return the principal whose key this is."""
    return Principal(key.name, key.rights, key, limits, id=key.digest[:8].hex())
