"""The store keeps keys and nodes over a restart, in files that only their owner can read, for one process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from hive.auth.keys import Key, Role, digest_of
from hive.store.known_nodes import KnownNode, Profile
from hive.store.store import Store
from hive.store.store_error import DirectoryInUseError, StoreError

from ..joining import an_engine


def key(name: str, secret: str, *, revoked_at: float | None = None, created_at: float = 1.5) -> Key:
    return Key(name, Role.CLIENT, digest_of(secret.encode()), secret[:8], created_at, True, revoked_at)


def with_store(path: Path, work: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Store(path) as store:
            await work(store)

    asyncio.run(run())


def saved(path: Path, *changed: Key) -> None:
    with_store(path, lambda store: store.save_keys(*changed))


def read(path: Path) -> list[Key]:
    found: list[Key] = []

    async def work(store: Store) -> None:
        found.extend(await store.keys())

    with_store(path, work)
    return found


def test_keys_survive_a_restart_as_they_were(tmp_path: Path) -> None:
    keys = [key("b", "1", revoked_at=2.25), key("b", "2", created_at=3)]
    saved(tmp_path / "d", *keys)
    assert read(tmp_path / "d") == keys


def test_a_key_of_the_same_digest_is_replaced(tmp_path: Path) -> None:
    saved(tmp_path / "d", key("a", "1"))
    saved(tmp_path / "d", key("b", "1", revoked_at=9))
    assert read(tmp_path / "d") == [key("b", "1", revoked_at=9)]


def test_two_live_keys_of_one_name_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    saved(tmp_path / "d", key("a", "1"))
    with pytest.raises(StoreError, match=r"hive\.db: UNIQUE constraint failed: keys\.name"):
        saved(tmp_path / "d", key("b", "2"), key("a", "3"))
    assert read(tmp_path / "d") == [key("a", "1")]


def node(name: str, **more: object) -> KnownNode:
    return KnownNode(name, b"d" * 32, 1.5, Profile(**({"agent": "hive 0.1.0", "engines": (an_engine(),)} | more)))  # type: ignore[arg-type]


def kept(path: Path) -> list[KnownNode]:
    found: list[KnownNode] = []

    async def work(store: Store) -> None:
        found.extend(await store.nodes())

    with_store(path, work)
    return found


def test_nodes_survive_a_restart_until_they_are_deleted(tmp_path: Path) -> None:
    async def save(store: Store) -> None:
        for each in (node("b"), node("a"), node("b", labels={"room": "2"})):
            await store.save_node(each)

    async def delete(store: Store) -> None:
        await store.delete_node("a")
        await store.delete_node("nobody")

    with_store(tmp_path / "d", save)
    assert kept(tmp_path / "d") == [node("a"), node("b", labels={"room": "2"})]
    with_store(tmp_path / "d", delete)
    assert kept(tmp_path / "d") == [node("b", labels={"room": "2"})]


def test_an_unreadable_profile_is_empty_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_store(tmp_path / "d", lambda store: store.save_node(node("a")))
    with closing(sqlite3.connect(tmp_path / "d" / "hive.db")) as connection, connection:
        connection.execute("UPDATE nodes SET profile = x'00'")
    with caplog.at_level(logging.WARNING):
        assert kept(tmp_path / "d") == [KnownNode("a", b"d" * 32, 1.5, Profile())]
    assert [record.getMessage()[:36] for record in caplog.records] == ["node a: what it had cannot be read ("]


@pytest.mark.skipif(sys.platform == "win32", reason="modes are Unix's")
def test_the_database_files_are_readable_by_their_owner_only_also_while_open(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.save_keys(key("a", "1"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "d").iterdir()}
        assert modes == dict.fromkeys(("hive.db", "hive.db-shm", "hive.db-wal", "hive.lock"), 0o600)

    with_store(tmp_path / "d", work)


def test_a_second_store_on_the_directory_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        with pytest.raises(DirectoryInUseError):
            await Store(tmp_path / "d").open()
        assert await store.keys() == []

    with_store(tmp_path / "d", work)


def test_a_file_that_is_no_database_is_one_sentence_and_the_directory_is_unlocked(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "hive.db").write_text("not a database, but long enough to look at" * 50)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"hive\.db: file is not a database$"):
            asyncio.run(Store(tmp_path / "d").open())


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    saved(tmp_path / "a%20b?c#d", key("a", "1"))
    assert (tmp_path / "a%20b?c#d" / "hive.db").exists()


def test_a_write_is_done_even_if_its_caller_is_cancelled(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        writing = asyncio.create_task(store.save_keys(key("a", "1")))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await store.keys() == [key("a", "1")]

    with_store(tmp_path / "d", work)


def test_a_cancelled_open_unlocks_the_directory(tmp_path: Path) -> None:
    async def run() -> None:
        first = Store(tmp_path / "d")
        opening = asyncio.create_task(first.open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.to_thread(first._thread.shutdown)

    asyncio.run(run())
    assert read(tmp_path / "d") == []


def test_alembic_is_not_imported_where_no_migration_runs(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys, hive.store.store as s\n"
        "async def run():\n"
        "    async with s.Store(pathlib.Path(sys.argv[1])): pass\n"
        "asyncio.run(run()); asyncio.run(run()); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "d")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
