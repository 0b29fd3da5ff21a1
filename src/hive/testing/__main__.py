"""`python -m hive.testing`: the command `hive sim` under another name."""

from __future__ import annotations

import typer

from hive.cli.sim import sim

if __name__ == "__main__":
    typer.run(sim)
