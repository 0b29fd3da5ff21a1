"""Options of the command line that take a number or one of a few words. A wrong value is refused in one sentence.

Without them Typer would refuse it in the words of the library that reads values for it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

import typer
from typer.models import OptionInfo

from hive.cli.command_error import CommandError

E = TypeVar("E", bound=Enum)


def whole_option(
    flag: str, help_text: str, *, least: int | None = None, most: int | None = None, show_default: bool = True
) -> OptionInfo:
    """Return an option that takes a whole number."""
    bounds = [*([f"from {least}"] if least is not None else []), *([f"to {most}"] if most is not None else [])]

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or (least is not None and number < least) or (most is not None and number > most):
            raise _unfit(flag, " ".join(["a whole number", *bounds]), text)
        return number

    return _option(flag, help_text, "N", read, show_default)


def number_option(flag: str, help_text: str) -> OptionInfo:
    """Return an option that takes a number."""

    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise _unfit(flag, "a number", text) from None

    return _option(flag, help_text, "X", read)


def choice_option(flag: str, help_text: str, choices: type[E], *, show_default: bool = True) -> OptionInfo:
    """Return an option that takes one of the values of an Enum."""
    by_word = {str(choice.value): choice for choice in choices}

    def read(text: str) -> E:
        if str(text) not in by_word:
            raise _unfit(flag, f"one of {', '.join(by_word)}", text)
        return by_word[str(text)]

    return _option(flag, help_text, "|".join(by_word), read, show_default)


def _option(
    flag: str, help_text: str, metavar: str, read: Callable[[str], object], show_default: bool = True
) -> OptionInfo:
    option = typer.Option(flag, help=help_text, metavar=metavar, parser=read, show_default=show_default)
    assert isinstance(option, OptionInfo)
    return option


def _unfit(flag: str, expected: str, text: object) -> CommandError:
    return CommandError(f"{flag}: expected {expected}, got {str(text)!r}", 2)
