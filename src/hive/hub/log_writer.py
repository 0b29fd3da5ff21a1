"""Writes the log in a thread of its own, so that the hub goes on when the reader of the log stops."""

from __future__ import annotations

import threading
from collections import deque
from typing import BinaryIO

MAX_WAITING_BYTES = 8 << 20
CLOSE_TIMEOUT = 1.0
"""Seconds that `close` waits for the last lines to be written."""


class LogWriter:
    """A file that takes whole lines and never blocks. Lines that are not read in time are dropped and counted."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def write(self, lines: bytes | str) -> None:
        """Take whole lines."""
        data = lines if isinstance(lines, bytes) else lines.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._waiting_bytes + len(data) > MAX_WAITING_BYTES or self._is_closed:
                self._dropped += data.count(b"\n")
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify()

    def flush(self) -> None:
        """Do nothing: the thread writes the lines."""

    def close(self) -> None:
        """Wait for the last lines to be written, but not for long."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._dropped and not self._is_closed:
                    self._changed.wait()
                if not self._waiting and not self._dropped:
                    return
                data, dropped = b"".join(self._waiting), self._dropped
                self._waiting.clear()
                self._dropped = 0
            if dropped:
                data += b"%d lines of the log were dropped: nobody read them in time\n" % dropped
            try:
                self._out.write(data)
                self._out.flush()
            except (OSError, ValueError):
                pass  # the log cannot be written: no reason to lose a request
            with self._changed:
                self._waiting_bytes -= min(self._waiting_bytes, len(data))
                if not self._waiting:
                    self._waiting_bytes = 0
