"""Every SQL statement of the hub: each function takes a connection and speaks in the hub's own types."""

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
    """Return the migration that the database stands at; None for an empty one."""
    has_table = text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'")
    if connection.execute(has_table).first() is None:
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return None if row is None else str(row[0])


def stamp_revision(connection: Connection, revision: str) -> None:
    """Mark a database that was made whole as standing at `revision`, in Alembic's own table."""
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})


def read_keys(connection: Connection) -> list[Key]:
    """Return every key, the revoked ones too, oldest first."""
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
    """Add keys, or replace those with the same digest, in the order given."""
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
    """Return every node that is kept, by name; one whose profile cannot be read has an empty one."""
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
    """Add a node, or replace the one of its name."""
    values = {"key_digest": node.key_digest, "seen_at": node.seen_at, "profile": pack(node.profile)}
    statement = insert(nodes).values(name=node.name, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=[nodes.c.name], set_=values))


def delete_node(connection: Connection, name: str) -> None:
    """Keep nothing more of a node."""
    connection.execute(delete(nodes).where(nodes.c.name == name))
