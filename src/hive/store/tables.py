"""The tables of the database as they are today. `migrations/` holds the steps that led to them."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, LargeBinary, MetaData, String, Table, text

REVISION = "0002"
"""The newest migration. A new database of these tables is marked with it."""

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
"""Every key that the hub ever made. A name belongs to one live key. The digest of a revoked key stays."""

nodes = Table(
    "nodes",
    metadata,
    Column("name", String, primary_key=True),
    Column("key_digest", LargeBinary, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("profile", LargeBinary, nullable=False),
)
"""Each joined node as it was when the hub last heard of it. `hive.store.known_nodes` packs the profile."""
