"""The `hive` command. It imports only the called command's module and reports a failure in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Protocol, cast

import typer

from hive import __version__
from hive.cli.command_error import CommandError

_USAGE_ERROR = typer.BadParameter.__mro__[1]
"""Click's UsageError. Typer raises it but does not export it."""


class _UsageMessage(Protocol):
    def format_message(self) -> str:
        """Return what was wrong, with the option's name."""


@dataclass(frozen=True, slots=True)
class _Command:
    """A command, whose function or group stands in `hive.cli.<module>` under the command's name."""

    module: str
    help: str
    is_group: bool = False


_COMMANDS = {
    "serve": _Command("serve", "Run the hub."),
    "node": _Command("node_command", "Join this machine's engines to a hub."),
    "keys": _Command("key_commands", "Make, list and revoke keys.", is_group=True),
    "nodes": _Command("fleet", "List the hub's nodes."),
    "drain": _Command("fleet", "Give a node no new work."),
    "resume": _Command("fleet", "Give a drained node work again."),
    "models": _Command("fleet", "List the models of all nodes."),
    "ps": _Command("fleet", "List the models that are loaded."),
    "queue": _Command("request_commands", "List the models for which requests wait."),
    "requests": _Command("request_commands", "List requests, or cancel one."),
    "status": _Command("status", "Show the hub on one screen, or one request."),
    "sim": _Command("sim_command", "Run a simulated engine."),
    "demo": _Command("demo", "Show a hub that three simulated nodes join."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failure, 2 for a wrong use."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _application(given[0] if given else "")(args=given, prog_name="hive", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CommandError as error:
        return _complain(str(error), error.code)
    except typer.Abort:
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "hive").partition(".")[0] == "hive":
            raise
        return _complain(f"'hive {given[0]}' needs {error.name}: pip install 'hive-hub[hub]'", 1)
    except Exception as error:
        if not isinstance(error, _USAGE_ERROR):
            raise
        return _complain(cast(_UsageMessage, error).format_message(), 2)


def _application(called: str) -> typer.Typer:
    """Return the command line. Commands other than `called` have only their name and help."""
    app = typer.Typer(
        help="One API over scattered machines that run inference engines.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help is narrow and quick, and keeps brackets as they are
    )
    app.callback(invoke_without_command=True)(_root)
    for name, command in _COMMANDS.items():
        if name != called:
            app.command(name, help=command.help)(_not_called)
            continue
        found = getattr(import_module(f"hive.cli.{command.module}"), name)
        if command.is_group:
            app.add_typer(found, name=name, help=command.help)
        else:
            app.command(name, help=command.help)(found)
    return app


def _not_called() -> None:
    """Stand for a command in the list of commands; it is never called."""


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"hive {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _complain(sentence: str, code: int) -> int:
    print(f"hive: {' '.join(sentence.split())}", file=sys.stderr)
    return code
