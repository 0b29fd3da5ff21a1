"""Every SQL statement of the hub. Each function takes a connection, and takes and returns the hub's own types."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from sqlalchemy import Connection, delete, select, text
from sqlalchemy.dialects.sqlite import insert

from hive.auth.keys import Key, Role
from hive.store.known_nodes import KnownNode, Profile, pack, unpack
from hive.store.tables import keys, nodes

_log = logging.getLogger(__name__)


def read_revision(connection: Connection) -> str | None:
    """Return the revision of the database's schema; None for an empty database."""
    has_table = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'")
    if connection.execute(has_table).first() is None:
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def stamp_revision(connection: Connection, revision: str) -> None:
    """Write `revision` into Alembic's own table, for a database that was made from `tables`."""
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})


def read_keys(connection: Connection) -> list[Key]:
    """Return every key, the oldest first. Revoked keys are included."""
    return [
        Key(
            name=row.name,
            role=Role(row.role),
            digest=row.digest,
            shown=row.shown,
            created_at=row.created_at,
            manage=row.manage,
            revoked_at=row.revoked_at,
        )
        for row in connection.execute(select(keys).order_by(keys.c.created_at, keys.c.name))
    ]


def write_keys(connection: Connection, changed: Iterable[Key]) -> None:
    """Add keys in the given order. A key replaces a stored key with the same digest."""
    for key in changed:
        values = {
            "name": key.name,
            "role": key.role.value,
            "manage": key.manage,
            "shown": key.shown,
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        statement = insert(keys).values(digest=key.digest, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=[keys.c.digest], set_=values))


def read_nodes(connection: Connection) -> list[KnownNode]:
    """Return every stored node, by name. A node whose profile cannot be read has an empty profile."""
    return [
        KnownNode(row.name, row.key_digest, row.seen_at, _profile(row.name, row.profile))
        for row in connection.execute(select(nodes).order_by(nodes.c.name))
    ]


def _profile(name: str, packed: bytes) -> Profile:
    try:
        return unpack(packed)
    except ValueError as error:
        _log.warning("node %s: what it had cannot be read (%s)", name, error)
        return Profile()


def write_node(connection: Connection, node: KnownNode) -> None:
    """Add a node, or replace the stored node of this name."""
    values = {"key_digest": node.key_digest, "seen_at": node.seen_at, "profile": pack(node.profile)}
    statement = insert(nodes).values(name=node.name, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[nodes.c.name], set_=values))


def delete_node(connection: Connection, name: str) -> None:
    """Delete everything that is stored of a node."""
    connection.execute(delete(nodes).where(nodes.c.name == name))
