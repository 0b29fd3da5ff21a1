"""Runs a script of `scripts/` with the client libraries, in a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from . import installed

SCRIPTS = installed.HERE / "scripts"


def run(script: str, env: Mapping[str, str], folder: pathlib.Path) -> dict[str, Any]:
    """Run a script with the client libraries and return the JSON it prints."""
    is_python = script.endswith(".py")
    if is_python:
        installed.need_python_clients()
    else:
        installed.need_javascript_clients()
    done = subprocess.run(
        [str(installed.CLIENT_PYTHON) if is_python else "node", str(SCRIPTS / script)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HIVE_TEST_NODE_MODULES": str(installed.CLIENT_NODE_MODULES),
            **env,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
