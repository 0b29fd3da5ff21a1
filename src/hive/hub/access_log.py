"""The log: one line for each exchange, as JSON or as text. All other log lines have the same form."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from hive.hub.log_writer import LogWriter
from hive.hub.records import Record, timestamp


class ExchangeLog:
    """Writes the lines of exchanges."""

    def __init__(self, out: LogWriter, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._encode = msgspec.json.Encoder().encode

    def write(self, records: Sequence[Record]) -> None:
        """Write a line for each of these exchanges."""
        for record in records:
            record.queued_ms = int(record.queued_ms * 100) / 100  # `round` takes five times as long
            record.total_ms = int(record.total_ms * 100) / 100
            if record.first_byte_ms is not None:
                record.first_byte_ms = int(record.first_byte_ms * 100) / 100
        encode = self._encode if self._as_json else _as_text
        self._out.write(b"\n".join([encode(record) for record in records]) + b"\n")


def _as_text(line: Record) -> bytes:
    where = f"{line.model} on {line.node} ({line.why})" if line.node else line.model or "-"
    tail = f" {line.error}" if line.error else ""
    text = (
        f"{line.time[11:19]} {line.status} {line.outcome.value:<12} {line.operation:<17} {where}"
        f"  {line.total_ms:.0f} ms (queue {line.queued_ms:.0f}, first byte {line.first_byte_ms or 0:.0f})"
        f"  {line.bytes_out} bytes  {line.key or 'no key'}  {line.request_id}{tail}"
    )
    return text.encode()


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": timestamp(record.created),
            "event": "log",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def set_up_logging(out: LogWriter, level: str, *, as_json: bool) -> None:
    """Send the log lines of the program itself to `out` too."""
    handler = logging.StreamHandler(out)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if as_json else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
