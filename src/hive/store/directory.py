"""The data directory: its mode, its files, and the lock that reserves it for one process."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from hive.store.store_error import DirectoryInUseError, StoreError, error_fact

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

DATABASE = "hive.db"
LOCK = "hive.lock"
_IGNORED_ENTRIES = frozenset({"lost+found"})
_LOCKED_BYTE = 1 << 20
"""On Windows a locked byte cannot be read. So the lock takes a byte far behind the process id in the file."""


class DataDirectory:
    """A directory that only this process may use until `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file: int | None = None

    @property
    def database(self) -> Path:
        """Return the path of the database."""
        return self.path / DATABASE

    def claim(self) -> None:
        """Create the directory if it is missing, close it to other users, and lock it. Raises StoreError."""
        try:
            self._prepare()
            self._lock()
        except OSError as error:
            self.release()
            raise StoreError(f"data directory {self.path}: cannot be used ({error_fact(error)})") from error

    def release(self) -> None:
        """Unlock the directory. A second call does nothing."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sys.platform == "win32" or not self.path.stat().st_mode & 0o077:
            return
        content = {entry.name for entry in self.path.iterdir()} - _IGNORED_ENTRIES
        if content and DATABASE not in content and LOCK not in content:
            raise StoreError(
                f"data directory {self.path}: is open to other users and holds other files; "
                "give the hub a directory of its own"
            )
        # A mounted volume may belong to root. The files in it have mode 0600 in any case.
        with contextlib.suppress(PermissionError):
            self.path.chmod(0o700)

    def _lock(self) -> None:
        file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(file)
        except OSError as error:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() if hasattr(os, "pread") else ""
            os.close(file)
            by = f"process {holder}" if holder.isdecimal() else "another process"
            advice = "a second hub needs another one (--data-dir)"
            raise DirectoryInUseError(f"data directory {self.path}: is in use by {by}; {advice}") from error
        self._lock_file = file
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())


def _lock(file: int) -> None:
    if sys.platform == "win32":
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
