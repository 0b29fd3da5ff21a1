"""`hive serve`: one flag for each option that `hive.config` declares."""

from __future__ import annotations

import inspect
from enum import Enum
from pathlib import Path

import typer
from msgspec import inspect as shape

from hive.cli.command_error import CommandError
from hive.config import OPTIONS, Option, SettingsError
from hive.sources import load_settings

_COMMON_OPTIONS = ("host", "port", "data_dir", "nodes", "slots", "open")
"""The options that most people need. The help shows the others in a separate panel."""


def serve(**given: object) -> int:
    """Run the hub until SIGTERM or Ctrl-C and return its exit code."""
    config = given.pop("config")
    assert config is None or isinstance(config, Path)
    try:
        settings = load_settings(given, config=config)
    except SettingsError as error:
        raise CommandError(str(error), 2) from error
    from hive.app import serve as serve_hub

    return serve_hub(settings)


def _parameter(option: Option) -> inspect.Parameter:
    """Return an option's flag. Its value stays a text, which `hive.sources` reads like one of the environment."""
    switch = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
    info = typer.Option(
        None,
        switch if option.is_switch else option.flag,
        help=_help(option),
        metavar=None if option.is_switch else _metavar(option),
        show_default=False,
    )
    taken = bool | None if option.is_switch else list[str] | None if option.is_list else str | None
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=taken)


def _metavar(option: Option) -> str:
    if option.name == "nodes":
        return "NAME=URL"
    match option.type:
        case shape.IntType():
            return "N"
        case shape.FloatType():
            return "SECONDS"
        case shape.EnumType(cls=choices):
            return "|".join(str(choice.value) for choice in choices)
        case shape.CustomType(cls=wanted) if wanted is Path:
            return "PATH"
        case _:
            return "TEXT"


def _help(option: Option) -> str:
    if option.name == "nodes":
        return "A node to dial; repeat for more."
    default = option.default.value if isinstance(option.default, Enum) else option.default
    return option.help if default in (None, False, ()) else f"{option.help} [default: {default}]"


def _signature() -> inspect.Signature:
    config = typer.Option(None, "--config", metavar="FILE", help="Settings; ./hive.toml if it is there.")
    taken = Path | None
    first = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=config, annotation=taken)
    ordered = sorted(OPTIONS.values(), key=lambda option: option.name not in _COMMON_OPTIONS)
    return inspect.Signature([first, *(_parameter(option) for option in ordered if not option.is_secret)])


serve.__signature__ = _signature()  # type: ignore[attr-defined]
