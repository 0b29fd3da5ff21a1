"""A program on a terminal of its own, typed at and read like a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


def without_escapes(text: str) -> str:
    """Return a text without colours and cursor movements."""
    return _ESCAPES.sub("", text)


class Terminal:
    """Use as a context manager; the program is ended by its own process id when it still runs."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            env={**env, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(other)
        self._seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._main)

    @property
    def text(self) -> str:
        """What stood on the screen so far, without colours and cursor movements."""
        return without_escapes(self._seen.decode("utf-8", "replace"))

    def type(self, line: str) -> None:
        """Type a line and press return."""
        os.write(self._main, line.encode() + b"\r")

    def read_until(self, text: str, count: int = 1, timeout: float = 15.0) -> None:
        """Read until the text was seen so many times."""
        deadline = time.monotonic() + timeout
        while self.text.count(text) < count:
            if not self._read(deadline):
                raise AssertionError(f"expected {text!r} {count} times, got {self.text!r}")

    def exit_code(self, timeout: float = 15.0) -> int:
        """Read to the end and return how the program ended."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self._process.wait(timeout)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._main, 65536) if ready else b""
        except OSError:  # Linux says EIO when the program closed its side
            data = b""
        self._seen += data
        return data != b""
