"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

_WIDE = 10_000
"""Columns of an output that is no terminal: nothing is cut there."""
_STYLES = {"ready": "green", "down": "red", "suspect": "yellow", "doubtful": "yellow", "draining": "yellow"}
_YEAR_SECONDS = 365 * 86_400


def print_json(answer: bytes) -> None:
    """Print JSON, indented."""
    print(msgspec.json.format(answer, indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns' names; what a terminal would obey is taken out of them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = [plain(cell) for cell in row]
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print what is known of one thing, a line each, below one another."""
    lines = [(name, plain(value)) for name, value in fields]
    widest = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{widest}}  {value}")


def plain(text: str) -> str:
    """Return a text without control characters: names come from engines."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def size(size_bytes: int | None) -> str:
    """Return a size as Ollama's listings show it."""
    if size_bytes is None:
        return "-"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def length(seconds: float | None) -> str:
    """Return a length of time, in a unit that fits."""
    if seconds is None:
        return "-"
    for unit, factor in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds * 1000:.0f} ms"


def date(moment: datetime | None) -> str:
    """Return a day and a minute, in this machine's time zone."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def until(text: str, now: datetime) -> str:
    """Return how long it is to a time that an engine wrote."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return "-"
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    if seconds > _YEAR_SECONDS:
        return "forever"
    if seconds <= 0:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
