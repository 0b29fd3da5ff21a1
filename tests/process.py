"""`hive serve` as a process of its own, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .raw import eventually

HIVE = Path(sys.executable).with_name("hive")
ADMIN_KEY = "canary-admin-key"


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what is Hive's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")} | more


@dataclass
class Served:
    """A hub that runs as a process."""

    port: int
    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """Return all that it wrote, on stdout and stderr."""
        return self.output.read_text()


@contextmanager
def serving(directory: Path, *arguments: str, admin_key: str | None = ADMIN_KEY) -> Iterator[Served]:
    """Run it on a free port, with its data below the directory; it is killed at the end if it still runs."""
    output = directory / "output"
    command = [str(HIVE), "serve", "--port", "0", "--data-dir", str(directory / "data"), *arguments]
    more = {} if admin_key is None else {"HIVE_ADMIN_KEY": admin_key}
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(**more), cwd=directory)
    try:
        eventually(lambda: b"Hive serves" in output.read_bytes() or process.poll() is not None, 20)
        found = re.search(r"Hive serves https?://127\.0\.0\.1:(\d+)", output.read_text())
        assert found, output.read_text()
        yield Served(int(found[1]), process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
