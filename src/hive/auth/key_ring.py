"""The key ring: finds the principal of a key that a request carries."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from hive.auth.keys import Key, Right, digest_of
from hive.auth.principals import NO_LIMITS, Limits, Principal, principal_of


class KeyRing:
    """The principals of all keys that the hub ever knew, by digest. The use cases of keys write it."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest: dict[bytes, Principal] = {}
        for key in keys:
            self.put(key)

    def put(self, key: Key, limits: Limits = NO_LIMITS) -> None:
        """Add a key, or replace the key with the same digest (for example when it is revoked)."""
        self._by_digest[key.digest] = principal_of(key, limits)

    def find(self, secret: bytes) -> Principal | None:
        """Return the principal of a secret; None when the hub never knew the key."""
        digest = digest_of(secret)
        found = self._by_digest.get(digest)
        if found is None or found.key is None or not hmac.compare_digest(found.key.digest, digest):
            return None
        return found

    def allows(self, key: Key, right: Right) -> bool:
        """Return whether a key that was found earlier still gives a right."""
        found = self._by_digest.get(key.digest)
        return found is not None and right in found.rights
