"""Who a request comes from and what it may do: keys in their three forms, the local rule, the slowing down of guesses.

A request without a key, or with one that the hub never knew, has the rights of a local request if it is one, and of
`open`. A key that the hub knows counts everywhere, also against its holder: a revoked one is refused locally too.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hive.auth.key_ring import KeyRing
from hive.auth.keys import Right, Role, digest_of
from hive.auth.principals import Principal
from hive.errors import FORBIDDEN, UNAUTHENTICATED, Fault
from hive.wire.requests import RequestHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDING = (
    b"forwarded",
    b"via",
    b"x-real-ip",
)
FREE_GUESSES = 5
LONGEST_DELAY = 10.0
_FORGET_AFTER = 60.0
_MAX_ADDRESSES = 4096
_MAX_DIGESTS = 32


@lru_cache(maxsize=1024)
def is_loopback_host(host: bytes) -> bool:
    """Does a Host field name this machine only?"""
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def is_loopback_peer(peer: str) -> bool:
    """Is a connection's other end on this machine?"""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer == "local"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_local(head: RequestHead, peer: str) -> bool:
    """Is this request local, as far as its peer and its head tell? The caller has judged its Origin."""
    fields = head.fields
    return (
        head.is_http11
        and is_loopback_peer(peer)
        and is_loopback_host(fields.get(b"host", b""))
        and not any(name in fields for name in _FORWARDING)
        and not any(name.startswith(b"x-forwarded-") for name in fields)
    )


def credentials(head: RequestHead) -> list[bytes]:
    """Return the keys that a request carries, the most reliable key first."""
    found = [head.path_key] if head.path_key is not None else []
    authorization = head.fields.get(b"authorization")
    if authorization is not None:
        scheme, _, value = authorization.partition(b" ")
        found.append(value.strip() if scheme.lower() == b"bearer" and value else authorization)
    api_key = head.fields.get(b"x-api-key")
    if api_key is not None:
        found.append(api_key.strip())
    return found


def client_address(peer: str, head: RequestHead, trusted: Sequence[Network]) -> str:
    """Return the client's address: the last address in X-Forwarded-For that no trusted proxy of ours has."""
    address = peer
    if not trusted or not _is_in(address, trusted):
        return address
    for hop in reversed(head.fields.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
        hop = hop.strip()
        if not hop:
            continue
        address = hop[:64]
        if not _is_in(address, trusted):
            break
    return address


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _check(principal: Principal, right: Right, *, is_in_path: bool) -> None:
    """Raise `Fault` when a key that the hub knows does not give the right, or stands where it may not."""
    key = principal.key
    assert key is not None
    if key.revoked_at is not None:
        raise Fault(UNAUTHENTICATED, "this key has been revoked", key=key.name)
    if is_in_path and key.role is not Role.CLIENT:
        raise Fault(FORBIDDEN, f"a key of role {key.role} may not stand in a URL, only a client key", key=key.name)
    if right in principal.rights:
        return
    if right is Right.WORK:
        what = f"key {key.name!r} ({key.role}) is not a worker key"
        raise Fault(FORBIDDEN, f"{what}; make one with --role worker", key=key.name)
    raise Fault(FORBIDDEN, f"the key {key.name!r} ({key.role}) lacks the right {right.value!r}", key=key.name)


@lru_cache(maxsize=16)
def _anonymous(rights: frozenset[Right]) -> Principal:
    """Return the principal of requests without a key that have these rights."""
    return Principal("", rights)


class Guesses:
    """Slows down who tries different wrong keys; the same one again is a client's retry and costs nothing."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, set[bytes]]] = OrderedDict()

    def note(self, address: str, secret: bytes, now: float) -> float:
        """Remember a wrong key; return how many seconds its answer is to be held back."""
        since, digests = self._seen.pop(address, (now, set()))
        if now - since > _FORGET_AFTER:
            since, digests = now, set()
        if len(digests) < _MAX_DIGESTS:
            digests.add(digest_of(secret)[:8])
        self._seen[address] = (since, digests)
        if len(self._seen) > _MAX_ADDRESSES:
            self._seen.popitem(last=False)
        return min(max(0, len(digests) - FREE_GUESSES), LONGEST_DELAY)


@dataclass(frozen=True, slots=True)
class Door:
    """The rules by which requests are let in."""

    ring: KeyRing
    guesses: Guesses
    local_rights: frozenset[Right] | None
    """What a local request may do without a key; None: none is local."""
    is_open: bool = False
    trusted: tuple[Network, ...] = ()

    def admit(
        self,
        head: RequestHead,
        shown: Sequence[bytes],
        peer: str,
        right: Right,
        now: float,
        *,
        locally_open: bool = False,
    ) -> Principal:
        """Return the principal of a request. `shown`: the keys that the request shows, the most telling one first.

        Raises `Fault`: 401 without a key that the hub knows, 403 for a right that the key does not give.
        """
        unknown: bytes | None = None
        for secret in shown:
            principal = self.ring.find(secret)
            if principal is None:
                unknown = secret if unknown is None else unknown
                continue
            if right not in principal.rights or secret is head.path_key:
                _check(principal, right, is_in_path=secret is head.path_key)
            return principal
        return self._admit_without_key(head, peer, right, now, unknown, locally_open)

    def _admit_without_key(
        self, head: RequestHead, peer: str, right: Right, now: float, unknown: bytes | None, locally_open: bool
    ) -> Principal:
        local = self.local_rights is not None and is_local(head, peer)
        rights = self.local_rights if local and self.local_rights else frozenset({Right.NONE})
        if self.is_open:
            rights = rights | {Right.INFER}
        if right in rights or (locally_open and local):
            return _anonymous(rights)
        if unknown is None:
            raise Fault(UNAUTHENTICATED, "a key is required: Authorization: Bearer KEY")
        fault = Fault(UNAUTHENTICATED, "the hub does not know this key")
        fault.delay = self.guesses.note(client_address(peer, head, self.trusted), unknown, now)
        raise fault
