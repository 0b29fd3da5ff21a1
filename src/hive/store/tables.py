"""The tables of the database, as they are today; `migrations/` holds how they came to be."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, LargeBinary, MetaData, String, Table, text

REVISION = "0002"
"""The newest migration: what a database of these tables is stamped with."""

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("manage", Boolean, nullable=False),
    Column("shown", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Index("keys_live_name", "name", unique=True, sqlite_where=text("revoked_at IS NULL")),
)
"""Every key the hub ever knew: a name is one live key's, a revoked key's digest stays."""

nodes = Table(
    "nodes",
    metadata,
    Column("name", String, primary_key=True),
    Column("key_digest", LargeBinary, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("profile", LargeBinary, nullable=False),
)
"""Each node that joined, as it was when it was last heard of; `hive.store.known_nodes` packs the profile."""
