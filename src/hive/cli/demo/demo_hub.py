"""The hub of the demo: a complete hub in this process, with a temporary data directory."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from hive.app import HubServer
from hive.cli.command_error import CommandError
from hive.config import Settings
from hive.errors import Fault
from hive.hub.records import Record
from hive.store.store_error import StoreError

PORT = 4483
_DRAIN_TIMEOUT = 1.0
_PORT_TAKEN = (48, 98, 10_048)
"""EADDRINUSE of macOS, Linux and Windows."""

WriteRecords = Callable[[Sequence[Record]], None]


@asynccontextmanager
async def run_hub(port: int | None, write_records: WriteRecords) -> AsyncIterator[HubServer]:
    """Run a hub while the block runs. Without a `port` it takes the usual one, or a free one if that is taken."""
    with TemporaryDirectory(prefix="hive-demo-", ignore_cleanup_errors=True) as directory:
        settings = Settings(
            port=PORT if port is None else port,
            data_dir=Path(directory) / "data",
            drain_timeout=_DRAIN_TIMEOUT,
        )
        server = await _start(settings, write_records, may_move=port is None)
        try:
            yield server
        finally:
            await server.stop()


async def _start(settings: Settings, write_records: WriteRecords, *, may_move: bool) -> HubServer:
    server = HubServer(settings, write_records)
    try:
        await server.start()
    except OSError as error:
        is_taken = error.errno in _PORT_TAKEN
        if is_taken and may_move:
            return await _start(replace(settings, port=0), write_records, may_move=False)
        reason = "is taken" if is_taken else f"cannot be used ({error.strerror or error})"
        raise CommandError(f"port {settings.port} on {settings.host} {reason}") from error
    except (StoreError, Fault) as error:
        raise CommandError(str(error)) from error
    return server


@contextmanager
def warnings_to(say: Callable[[str], None]) -> Iterator[None]:
    """Pass the warnings of hub and agents to `say`, instead of to the log. The hub's records are not among them."""

    class TellingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            speaker = "hub" if record.name.startswith("hive.hub") else "agent"
            say(f"{speaker}: {self.format(record)}")

    voice, log = TellingHandler(logging.WARNING), logging.getLogger("hive")
    log.addHandler(voice)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(voice)
        log.propagate = True
