"""The schema: migrations and tables agree, a newer schema is refused, and a copy is made before a migration."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from hive.auth.keys import Key, Role
from hive.store import schema
from hive.store.schema import MIGRATIONS, bring_up_to_date, migrate
from hive.store.statements import read_keys, read_nodes, read_revision, stamp_revision, write_keys
from hive.store.store import make_engine
from hive.store.store_error import StoreError
from hive.store.tables import REVISION, metadata


def made_by_migrations(path: Path) -> Engine:
    engine = make_engine(path)
    with engine.begin() as connection:
        migrate(connection, "head")
    return engine


def columns_and_indexes(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {}
        for (name,) in names:
            found[name] = sorted(connection.execute(f"PRAGMA table_info({name})").fetchall())
            found[name] += sorted(row[1:] for row in connection.execute(f"PRAGMA index_list({name})").fetchall())
        return found


def test_the_migrations_give_the_same_schema_as_the_tables(tmp_path: Path) -> None:
    engine = made_by_migrations(tmp_path / "migrated.db")
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    direct = make_engine(tmp_path / "direct.db")
    bring_up_to_date(direct, tmp_path / "direct.db")
    direct.dispose()
    assert columns_and_indexes(tmp_path / "migrated.db") == columns_and_indexes(tmp_path / "direct.db")


def test_the_tables_name_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_a_database_that_is_up_to_date_is_not_touched(tmp_path: Path) -> None:
    engine = made_by_migrations(tmp_path / "hive.db")
    bring_up_to_date(engine, tmp_path / "hive.db")
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == ["hive.db"]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "hive.db")
    with engine.begin() as connection:
        stamp_revision(connection, "9999")
    with pytest.raises(StoreError, match=r"hive\.db: was written by a newer Hive \(schema 9999, this one knows"):
        bring_up_to_date(engine, tmp_path / "hive.db")
    engine.dispose()


def old_database(path: Path) -> Engine:
    """Make a database of the time before the first migration, with data in it."""
    engine = make_engine(path)
    with engine.begin() as connection:
        stamp_revision(connection, "0000")
        connection.exec_driver_sql("CREATE TABLE precious (value)")
        connection.exec_driver_sql("INSERT INTO precious VALUES (42)")
    return engine


def test_a_copy_is_made_before_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = old_database(tmp_path / "hive.db")

    def to_next(connection: Connection, revision: str) -> None:
        connection.exec_driver_sql("DROP TABLE precious")
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")

    monkeypatch.setattr(schema, "migrate", to_next)
    bring_up_to_date(engine, tmp_path / "hive.db")
    with engine.begin() as connection:
        assert read_revision(connection) == REVISION
    engine.dispose()
    copy = tmp_path / "hive.db.schema-0000"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT value FROM precious").fetchall() == [(42,)]


def test_a_failed_migration_is_undone_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = old_database(tmp_path / "hive.db")

    def failing(connection: Connection, revision: str) -> None:
        connection.exec_driver_sql("DROP TABLE precious")
        raise OperationalError("a statement", {}, sqlite3.OperationalError("disk full"))

    monkeypatch.setattr(schema, "migrate", failing)
    with pytest.raises(StoreError, match=r"was undone \(disk full\); hive\.db\.schema-0000 is a copy"):
        bring_up_to_date(engine, tmp_path / "hive.db")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT value FROM precious").all() == [(42,)]
        assert read_revision(connection) == "0000"
    engine.dispose()


def test_a_database_of_the_first_schema_is_brought_up_to_date_with_its_keys(tmp_path: Path) -> None:
    key = Key("desk", Role.WORKER, b"d" * 32, "hk_abcde", 1.5)
    engine = make_engine(tmp_path / "hive.db")
    with engine.begin() as connection:
        migrate(connection, "0001")
        write_keys(connection, [key])
    bring_up_to_date(engine, tmp_path / "hive.db")
    with engine.begin() as connection:
        assert (read_revision(connection), read_keys(connection), read_nodes(connection)) == (REVISION, [key], [])
    engine.dispose()
    assert set(columns_and_indexes(tmp_path / "hive.db")) == {"alembic_version", "keys", "nodes"}
    assert set(columns_and_indexes(tmp_path / "hive.db.schema-0001")) == {"alembic_version", "keys"}
