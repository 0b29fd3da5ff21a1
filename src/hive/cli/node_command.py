"""`hive node`: the agent that runs beside engines and dials out to the hub."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from hive.cli.command_error import CommandError
from hive.config import SettingsError

_Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine", metavar="URL", help="An engine; repeat for more (HIVE_ENGINE). [default: looks on this machine]"
    ),
]
_Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="What the hub shows of it; repeat for more (HIVE_LABEL)."),
]
_KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="File that holds the worker key (HIVE_KEY_FILE).")
]
_CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="Authority of the hub's certificate, in PEM (HIVE_CA_FILE)."),
]


def node(
    hub: Annotated[str | None, typer.Option(metavar="URL", help="The hub (HIVE_HUB).")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The worker key; HIVE_KEY keeps it out of sight.")
    ] = None,
    key_file: _KeyFile = None,
    engine: _Engines = None,
    slots: Annotated[
        str | None,
        typer.Option(metavar="N", help="Requests at a time on each engine (HIVE_SLOTS). [default: by kind]"),
    ] = None,
    label: _Labels = None,
    ca_file: _CaFile = None,
) -> int:
    """Join this machine's engines to a hub, until SIGTERM or Ctrl-C."""
    from hive.node.agent_options import Given, read_options

    given = Given(hub, key, key_file, tuple(engine or ()), slots, tuple(label or ()), ca_file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        options = read_options(given, os.environ)
        from hive.node.agent import AgentError, run_agent

        try:
            return run_agent(options)
        except AgentError as error:
            raise CommandError(str(error), error.code) from None
    except SettingsError as error:
        raise CommandError(str(error), 2) from error
