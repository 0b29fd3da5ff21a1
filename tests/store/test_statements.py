"""The SQL of the hub against a real database: what is written is what is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from hive.auth.keys import Key, Role, digest_of
from hive.store import tables
from hive.store.known_nodes import KnownNode, Profile
from hive.store.statements import (
    delete_node,
    read_keys,
    read_nodes,
    read_revision,
    stamp_revision,
    write_keys,
    write_node,
)
from hive.store.store import make_engine

PROFILE = Profile("hive 1", "Linux", {"room": "lab"})


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Connection]:
    """A transaction on a database without tables."""
    engine = make_engine(tmp_path / "hive.db")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def database(empty: Connection) -> Connection:
    """A transaction on a database with all tables."""
    tables.metadata.create_all(empty)
    return empty


def key(name: str, created_at: float = 1.0, role: Role = Role.CLIENT, revoked_at: float | None = None) -> Key:
    return Key(name, role, digest_of(name.encode()), name[:8], created_at, False, revoked_at)


def test_an_empty_database_stands_at_no_migration(empty: Connection) -> None:
    assert read_revision(empty) is None


def test_a_stamped_database_stands_at_the_migration_that_was_named(empty: Connection) -> None:
    stamp_revision(empty, "0002")
    assert read_revision(empty) == "0002"


def test_keys_are_read_as_they_were_written_oldest_first(database: Connection) -> None:
    old, same_b, same_a = key("c", 1.0, Role.ADMIN), key("b", 2.0, Role.WORKER, revoked_at=9.5), key("a", 2.0)
    write_keys(database, [same_b, same_a, old])
    assert read_keys(database) == [old, same_a, same_b]


def test_a_key_of_a_known_digest_replaces_the_old_one(database: Connection) -> None:
    write_keys(database, [key("a")])
    revoked = key("a", revoked_at=5.0)
    write_keys(database, [revoked])
    assert read_keys(database) == [revoked]


def test_keys_are_written_in_the_order_given_so_that_a_name_can_pass_on(database: Connection) -> None:
    first = key("a")
    second = Key("a", Role.CLIENT, digest_of(b"other"), "other", 2.0, False, None)
    write_keys(database, [first])
    write_keys(database, [key("a", revoked_at=2.0), second])
    assert [each.revoked_at for each in read_keys(database)] == [2.0, None]


def test_nodes_are_read_by_name(database: Connection) -> None:
    one, other = KnownNode("b", b"1", 5.5, PROFILE), KnownNode("a", b"2", 6.0, Profile())
    write_node(database, one)
    write_node(database, other)
    assert read_nodes(database) == [other, one]


def test_a_node_of_a_known_name_replaces_the_old_one(database: Connection) -> None:
    write_node(database, KnownNode("a", b"1", 5.0, PROFILE))
    newer = KnownNode("a", b"2", 6.0, Profile())
    write_node(database, newer)
    assert read_nodes(database) == [newer]


def test_a_deleted_node_is_gone_and_the_others_stay(database: Connection) -> None:
    kept = KnownNode("b", b"2", 6.0, PROFILE)
    write_node(database, KnownNode("a", b"1", 5.0, PROFILE))
    write_node(database, kept)
    delete_node(database, "a")
    delete_node(database, "unknown")
    assert read_nodes(database) == [kept]


def test_a_profile_that_cannot_be_read_is_empty_and_said_so(
    database: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    write_node(database, KnownNode("a", b"1", 5.0, PROFILE))
    database.execute(update(tables.nodes).values(profile=b"damaged"))
    with caplog.at_level(logging.WARNING, "hive.store.statements"):
        assert read_nodes(database) == [KnownNode("a", b"1", 5.0, Profile())]
    assert "node a: what it had cannot be read" in caplog.text
