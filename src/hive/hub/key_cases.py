"""The use cases of keys: create, list, revoke. The ring that requests read is updated at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from hive.auth.key_ring import KeyRing
from hive.auth.keys import SHOWN_CHARACTERS, Key, Role, digest_of, make_secret
from hive.config import NAME, NAME_RULE, Secret
from hive.errors import CONFLICT, INVALID_VALUE, NOT_FOUND, Fault
from hive.hub.event_log import EventLog
from hive.hub.events import EventKind, KeyChange

_log = logging.getLogger(__name__)

ADMIN_NAME = "admin"
"""The name of the key that the first start makes, or that the setting admin_key sets."""
_SHOWN_SHARE = 4
"""Listings show at most this part (one in four) of a short key that a person chose."""


class KeyRecords(Protocol):
    """The part of the store that the use cases need."""

    async def keys(self) -> list[Key]:
        """Return every key that was ever made."""

    async def save_keys(self, *changed: Key) -> None:
        """Add keys, all or none. A key replaces a stored key with the same digest."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is never shown again."""

    key: Key
    secret: str


class Keys:
    """The only writer of keys. Call `load` first. Every change is in the database before its method returns.

    Names are taken and given back in memory before the database is awaited, so two callers never get the same name.
    """

    def __init__(
        self, records: KeyRecords, ring: KeyRing, events: EventLog, clock: Callable[[], float] = time.time
    ) -> None:
        self._records = records
        self._ring = ring
        self._events = events
        self._clock = clock
        self._live: dict[str, Key] = {}
        self._by_digest: dict[bytes, Key] = {}

    async def load(self) -> None:
        """Fill the ring from the database."""
        for key in await self._records.keys():
            self._remember(key)

    def listed(self, *, revoked: bool = False) -> list[Key]:
        """Return the live keys, oldest first; with `revoked` also the revoked ones."""
        keys = self._by_digest.values() if revoked else self._live.values()
        return sorted(keys, key=lambda key: (key.created_at, key.name))

    def is_live(self, key: Key) -> bool:
        """Does this very key still hold? A later key of its name is another one."""
        live = self._live.get(key.name)
        return live is not None and live.digest == key.digest

    async def create(self, name: str, role: Role, *, manage: bool = False) -> NewKey:
        """Make a key. Raises Fault: INVALID_VALUE, or CONFLICT when a live key has the name."""
        if not NAME.match(name):
            raise Fault(INVALID_VALUE, f"name: expected {NAME_RULE}")
        if name == ADMIN_NAME and role is not Role.ADMIN:
            raise Fault(INVALID_VALUE, f"name: '{ADMIN_NAME}' is kept for an admin key")
        if manage and role is not Role.CLIENT:
            fact = "an admin key has it anyway" if role is Role.ADMIN else "a worker key cannot have it"
            raise Fault(INVALID_VALUE, f"manage: is for client keys, {fact}")
        if name in self._live:
            raise Fault(CONFLICT, f"key '{name}' exists already")
        new = self._made(name, role, make_secret(), manage=manage)
        await self._write(new.key)
        return new

    async def revoke(self, name: str) -> Key:
        """End a key at once and return it. Raises Fault: NOT_FOUND, or CONFLICT for the last admin key."""
        key = self._live.get(name)
        if key is None:
            raise Fault(NOT_FOUND, f"there is no live key '{name}'")
        if self._admins() == [key]:
            raise Fault(CONFLICT, f"key '{name}' is the last admin key: make another one first")
        revoked = self._ended(key)
        await self._write(revoked)
        return revoked

    async def first_admin(self, setting: Secret | None) -> str | None:
        """Make sure that there is an admin key: the key in the settings, an existing key, or a new key.

        Return the secret of a new key; otherwise None.
        """
        if setting is not None:
            await self._set_admin(setting.value)
            return None
        if self._admins():
            return None
        return (await self.create(ADMIN_NAME, Role.ADMIN)).secret

    async def _set_admin(self, secret: str) -> None:
        new = self._made(ADMIN_NAME, Role.ADMIN, secret).key
        same = self._by_digest.get(new.digest)
        if same is not None and same.revoked_at is None:
            if same.name != ADMIN_NAME:
                raise Fault(CONFLICT, f"admin_key: is already the key '{same.name}'")
            return
        old = self._live.get(ADMIN_NAME)
        if old is not None:
            _log.warning("the setting admin_key replaces the key named %s, which ends", ADMIN_NAME)
        await self._write(*([self._ended(old)] if old else []), new)

    def _admins(self) -> list[Key]:
        return [key for key in self._live.values() if key.role is Role.ADMIN]

    def _made(self, name: str, role: Role, secret: str, *, manage: bool = False) -> NewKey:
        shown = secret[: min(SHOWN_CHARACTERS, len(secret) // _SHOWN_SHARE)]
        digest = digest_of(secret.encode())
        return NewKey(Key(name, role, digest, shown, created_at=self._clock(), manage=manage), secret)

    def _ended(self, key: Key) -> Key:
        return replace(key, revoked_at=self._clock())

    async def _write(self, *changed: Key) -> None:
        """Change memory at once, then the database. If the database fails, undo the change in memory."""
        before = [self._by_digest.get(key.digest) for key in changed]
        for key in changed:
            self._remember(key)
        try:
            await self._records.save_keys(*changed)
        except Exception:
            for key, old in reversed(list(zip(changed, before, strict=True))):
                self._remember(old or self._ended(key))
                if old is None:
                    del self._by_digest[key.digest]
            raise
        for key in changed:
            kind = EventKind.KEY_MADE if key.revoked_at is None else EventKind.KEY_REVOKED
            self._events.append(kind, key.name, KeyChange(key.role, key.manage))

    def _remember(self, key: Key) -> None:
        old = self._by_digest.get(key.digest)
        if old is not None and self._live.get(old.name) is old:
            del self._live[old.name]
        if key.revoked_at is None:
            self._live[key.name] = key
        self._by_digest[key.digest] = key
        self._ring.put(key)
