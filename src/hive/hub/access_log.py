"""The log: one line an exchange, JSON for programs or text for people, and everything else in the same form.

Lines are gathered and written together: an exchange pays 1 us for its line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from hive.hub.records import Record

FLUSH_INTERVAL = 0.2
MAX_HELD_LINES = 1000


class _ExchangeLine(msgspec.Struct, omit_defaults=True):
    time: str
    event: str
    request_id: str
    operation: str
    outcome: str
    status: int
    total_ms: float
    key: str = ""
    model: str = ""
    node: str = ""
    why: str = ""
    attempts: int = 0
    queued_ms: float = 0.0
    first_byte_ms: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    error: str = ""


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def exchange_line(record: Record) -> _ExchangeLine:
    """Return the line of an exchange; times in milliseconds."""
    first = record.first_byte
    return _ExchangeLine(
        time=_now(),
        event="exchange",
        request_id=record.request_id,
        operation=record.operation,
        outcome=record.outcome.value,
        status=record.status,
        total_ms=round(record.total * 1000, 2),
        key=record.key,
        model=record.model,
        node=record.node,
        why=record.why,
        attempts=record.attempts,
        queued_ms=round(record.queued * 1000, 2),
        first_byte_ms=None if first is None else round(first * 1000, 2),
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        error=record.error,
    )


class ExchangeLog:
    """Writes the lines of exchanges, a few times a second."""

    def __init__(self, out: BinaryIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._encode = msgspec.json.Encoder().encode

    def write(self, record: Record) -> None:
        """Take the line of an exchange."""
        line = exchange_line(record)
        self._lines.append(self._encode(line) if self._as_json else _as_text(line))
        if len(self._lines) >= MAX_HELD_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_INTERVAL, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()
        except (OSError, ValueError):
            pass  # nobody reads the log: no reason to lose a request


def _as_text(line: _ExchangeLine) -> bytes:
    where = f"{line.model} on {line.node}" if line.node else line.model or "-"
    tail = f" {line.error}" if line.error else ""
    text = (
        f"{line.time[11:]} {line.status} {line.outcome:<12} {line.operation:<12} {where}"
        f"  {line.total_ms:.0f} ms (queue {line.queued_ms:.0f}, first byte {line.first_byte_ms or 0:.0f})"
        f"  {line.bytes_out} bytes  {line.key or 'no key'}  {line.request_id}{tail}"
    )
    return text.encode()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _now(), "event": "log", "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up_logging(level: str, *, as_json: bool) -> None:
    """Send the program's own log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if as_json else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
