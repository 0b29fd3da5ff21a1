"""The use cases of keys: names, the last admin, the admin key that is set, the ring that follows at once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from hive.auth.key_ring import KeyRing
from hive.auth.keys import Key, Right, Role
from hive.config import Secret
from hive.errors import CONFLICT, INVALID_VALUE, NOT_FOUND, Fault, Kind
from hive.hub.event_log import EventLog, Position
from hive.hub.key_cases import Keys
from hive.store.store import Store
from hive.store.store_error import StoreError


class Hub:
    """Keys over a store of its own; its clock counts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ring = KeyRing()
        self.events = EventLog()
        self.keys = Keys(store, self.ring, self.events, clock=map(float, count(1)).__next__)

    def rights(self, secret: str) -> frozenset[Right] | None:
        found = self.ring.find(secret.encode())
        return None if found is None else found.rights

    def names(self, *, revoked: bool = False) -> list[str]:
        return [key.name for key in self.keys.listed(revoked=revoked)]

    def told(self) -> list[str]:
        """Return the events so far."""
        found = self.events.since(Position(self.events.epoch, 0))
        assert isinstance(found, list)
        return [f"{event.kind} {event.subject}" for event in found]


def run(path: Path, work: Callable[[Hub], Awaitable[None]]) -> None:
    async def started() -> None:
        async with Store(path / "data") as store:
            hub = Hub(store)
            await hub.keys.load()
            await work(hub)

    asyncio.run(started())


def fault(kind: Kind, said: str) -> pytest.RaisesExc[Fault]:
    return pytest.RaisesExc(Fault, check=lambda fault: fault.kind is kind and said in fault.message)


def test_a_created_key_works_at_once_and_after_a_restart(tmp_path: Path) -> None:
    secrets: list[str] = []

    async def first(hub: Hub) -> None:
        new = await hub.keys.create("alice", Role.CLIENT, manage=True)
        assert new.key == Key("alice", Role.CLIENT, new.key.digest, new.secret[:8], 1.0, manage=True)
        assert hub.rights(new.secret) == {Right.NONE, Right.INFER, Right.MANAGE}
        secrets.append(new.secret)

    async def second(hub: Hub) -> None:
        assert hub.rights(secrets[0]) == {Right.NONE, Right.INFER, Right.MANAGE}
        assert hub.names() == ["alice"]

    run(tmp_path, first)
    run(tmp_path, second)


def test_a_revoked_key_is_known_but_worth_nothing_also_after_a_restart(tmp_path: Path) -> None:
    secrets: list[str] = []

    async def first(hub: Hub) -> None:
        secrets.append((await hub.keys.create("alice", Role.CLIENT)).secret)
        assert (await hub.keys.revoke("alice")).revoked_at == 2.0
        assert hub.rights(secrets[0]) == frozenset()

    async def second(hub: Hub) -> None:
        assert hub.rights(secrets[0]) == frozenset()
        assert (hub.names(), hub.names(revoked=True)) == ([], ["alice"])

    run(tmp_path, first)
    run(tmp_path, second)


def test_revocation_acts_before_the_database_has_answered(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        new = await hub.keys.create("alice", Role.CLIENT)
        revoking = asyncio.create_task(hub.keys.revoke("alice"))
        await asyncio.sleep(0)
        assert not revoking.done()
        assert hub.rights(new.secret) == frozenset()
        await revoking

    run(tmp_path, work)


def test_the_name_of_a_revoked_key_is_free_again(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        old = await hub.keys.create("alice", Role.CLIENT)
        await hub.keys.revoke("alice")
        new = await hub.keys.create("alice", Role.WORKER)
        assert hub.rights(new.secret) == {Right.NONE, Right.WORK}
        assert hub.rights(old.secret) == frozenset()

    run(tmp_path, work)


def test_of_two_creates_of_one_name_at_once_one_is_refused(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        creates = [hub.keys.create("alice", Role.CLIENT) for _ in range(2)]
        answers = await asyncio.gather(*creates, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Fault)]
        assert [(fault.kind, fault.message) for fault in refused] == [(CONFLICT, "key 'alice' exists already")]

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "role", "manage", "said"),
    [
        ("", Role.CLIENT, False, "name: expected 1 to 63"),
        ("a b", Role.CLIENT, False, "name: expected 1 to 63"),
        ("a\n", Role.CLIENT, False, "name: expected 1 to 63"),
        ("a" * 64, Role.CLIENT, False, "name: expected 1 to 63"),
        ("gpu-1", Role.WORKER, True, "manage: is for client keys, a worker key cannot have it"),
        ("boss", Role.ADMIN, True, "manage: is for client keys, an admin key has it anyway"),
        ("admin", Role.CLIENT, False, "name: 'admin' is kept for an admin key"),
    ],
)
def test_a_key_that_cannot_be_is_refused(tmp_path: Path, name: str, role: Role, manage: bool, said: str) -> None:
    async def work(hub: Hub) -> None:
        with fault(INVALID_VALUE, said):
            await hub.keys.create(name, role, manage=manage)
        assert hub.names(revoked=True) == []

    run(tmp_path, work)


def test_what_is_not_there_cannot_be_revoked(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        await hub.keys.create("alice", Role.CLIENT)
        await hub.keys.revoke("alice")
        for name in ("alice", "bob"):
            with fault(NOT_FOUND, f"there is no live key '{name}'"):
                await hub.keys.revoke(name)

    run(tmp_path, work)


def test_the_last_admin_key_cannot_be_revoked_not_even_two_at_once(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        await hub.keys.create("one", Role.ADMIN)
        await hub.keys.create("two", Role.ADMIN)
        revoked = await asyncio.gather(hub.keys.revoke("one"), hub.keys.revoke("two"), return_exceptions=True)
        assert isinstance(revoked[0], Key)
        assert isinstance(revoked[1], Fault)
        assert revoked[1].kind is CONFLICT
        assert hub.names() == ["two"]

    run(tmp_path, work)


def test_what_happens_to_keys_is_told(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        await hub.keys.first_admin(Secret("first-admin-key"))
        await hub.keys.create("alice", Role.CLIENT, manage=True)
        await hub.keys.revoke("alice")
        await hub.keys.first_admin(Secret("other-admin-key"))
        assert hub.told() == [
            "key_made admin",
            "key_made alice",
            "key_revoked alice",
            "key_revoked admin",
            "key_made admin",
        ]

    run(tmp_path, work)


def test_what_the_database_refuses_did_not_happen(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        alice = await hub.keys.create("alice", Role.CLIENT)
        database = sqlite3.connect(tmp_path / "data" / "hive.db")
        for event in ("INSERT", "UPDATE"):
            fail = "BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"
            database.execute(f"CREATE TRIGGER no_{event} BEFORE {event} ON keys {fail}")
        with pytest.raises(StoreError, match="disk on fire"):
            await hub.keys.revoke("alice")
        with pytest.raises(StoreError, match="disk on fire"):
            await hub.keys.create("bob", Role.CLIENT)
        assert hub.keys.listed(revoked=True) == [alice.key]
        assert hub.rights(alice.secret) == {Right.NONE, Right.INFER}
        database.execute("DROP TRIGGER no_INSERT")
        database.close()
        await hub.keys.create("bob", Role.CLIENT)
        assert hub.names() == ["alice", "bob"]
        assert hub.told() == ["key_made alice", "key_made bob"]

    run(tmp_path, work)


def test_the_first_start_makes_an_admin_key_and_the_second_does_not(tmp_path: Path) -> None:
    async def first(hub: Hub) -> None:
        secret = await hub.keys.first_admin(None)
        assert secret is not None
        assert Right.ADMIN in (hub.rights(secret) or ())
        assert hub.names() == ["admin"]

    async def second(hub: Hub) -> None:
        assert await hub.keys.first_admin(None) is None

    run(tmp_path, first)
    run(tmp_path, second)


def test_an_admin_key_of_any_name_is_enough(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        await hub.keys.create("boss", Role.ADMIN)
        assert await hub.keys.first_admin(None) is None

    run(tmp_path, work)


def test_the_admin_key_that_is_set_replaces_the_one_before_and_may_come_back(tmp_path: Path) -> None:
    made: list[str] = []

    async def first(hub: Hub) -> None:
        made.append(await hub.keys.first_admin(None) or "")

    async def second(hub: Hub) -> None:
        for secret in ("set-by-somebody-1", "set-by-somebody-1", "set-by-somebody-2", "set-by-somebody-1"):
            assert await hub.keys.first_admin(Secret(secret)) is None
            assert Right.ADMIN in (hub.rights(secret) or ())
            assert hub.names() == ["admin"]
        assert hub.rights(made[0]) == frozenset()
        assert hub.rights("set-by-somebody-2") == frozenset()
        assert len(hub.keys.listed(revoked=True)) == 3

    run(tmp_path, first)
    run(tmp_path, second)


def test_the_key_of_another_name_cannot_be_set_as_admin_key(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        secret = (await hub.keys.create("alice", Role.CLIENT)).secret
        with fault(CONFLICT, "admin_key: is already the key 'alice'"):
            await hub.keys.first_admin(Secret(secret))
        assert hub.names() == ["alice"]

    run(tmp_path, work)


def test_a_listing_shows_little_of_a_short_key(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        await hub.keys.first_admin(Secret("password"))
        assert [key.shown for key in hub.keys.listed()] == ["pa"]

    run(tmp_path, work)


def test_a_later_key_of_the_same_name_is_another_key(tmp_path: Path) -> None:
    async def work(hub: Hub) -> None:
        first = (await hub.keys.create("ops", Role.ADMIN)).key
        await hub.keys.create("other", Role.ADMIN)
        assert hub.keys.is_live(first)
        await hub.keys.revoke("ops")
        second = (await hub.keys.create("ops", Role.CLIENT)).key
        assert (hub.keys.is_live(first), hub.keys.is_live(second)) == (False, True)

    run(tmp_path, work)
