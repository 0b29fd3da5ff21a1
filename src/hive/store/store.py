"""The store: the database of one data directory, used from a thread of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from hive.auth.keys import Key
from hive.store import statements as records
from hive.store.directory import DataDirectory
from hive.store.known_nodes import KnownNode
from hive.store.schema import bring_up_to_date
from hive.store.store_error import StoreError, error_fact

T = TypeVar("T")


class Store:
    """Async methods over a synchronous database. Call `open` first and `close` last. Errors are StoreError."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = DataDirectory(data_dir)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hive-store")
        self._engine: Engine | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Claim the data directory and bring its database up to date."""
        try:
            await self._run(self._open)
        except BaseException:
            # If the caller was cancelled, `_open` still runs on. What it takes is given back after it.
            self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Finish the work that has begun, close the database and unlock the directory."""
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def keys(self) -> list[Key]:
        """Return every key that was ever made, the oldest first."""
        return await self._transaction(records.read_keys)

    async def save_keys(self, *changed: Key) -> None:
        """Add keys in the given order, all or none. A key replaces a stored key with the same digest."""
        await self._transaction(lambda connection: records.write_keys(connection, changed))

    async def nodes(self) -> list[KnownNode]:
        """Return every stored node."""
        return await self._transaction(records.read_nodes)

    async def save_node(self, node: KnownNode) -> None:
        """Add a node, or replace the stored node of this name."""
        await self._transaction(lambda connection: records.write_node(connection, node))

    async def delete_node(self, name: str) -> None:
        """Delete everything that is stored of a node. Does nothing if no node has the name."""
        await self._transaction(lambda connection: records.delete_node(connection, name))

    async def _transaction(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            assert self._engine is not None, "the store is not open"
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                raise StoreError(f"{self._directory.database}: {error_fact(error)}") from error

        return await self._run(run)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in the store's thread. It runs to its end even if the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _open(self) -> None:
        database = self._directory.database
        try:
            self._directory.claim()
            os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
            self._engine = make_engine(database)
            bring_up_to_date(self._engine, database)
        except (SQLAlchemyError, OSError) as error:
            self._close()
            raise StoreError(f"{database}: {error_fact(error)}") from error
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        self._directory.release()


def make_engine(database: Path) -> Engine:
    """Return an engine (SQLAlchemy's) that leaves transactions to SQLite, schema changes included."""
    engine = create_engine(URL.create("sqlite", database=str(database)))

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # otherwise Python's driver begins and commits by its own rules
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
