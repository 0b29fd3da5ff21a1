"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

_WIDE = 10_000
"""Columns of an output that is no terminal: nothing is cut there."""
_NARROW = 4
"""Columns of the terminal that a cell keeps that is folded."""
_WISHED = 20
"""Columns of the terminal that a cell wishes for that may be folded: for less, others are left out."""
NOTHING = "-"
"""What stands in a cell of which nothing is known, or for which there is nothing."""
_STYLES = {"ready": "green", "down": "red", "suspect": "yellow", "doubtful": "yellow", "draining": "yellow"}
_YEAR_SECONDS = 365 * 86_400


def print_json(answer: bytes) -> None:
    """Print JSON, indented."""
    print(msgspec.json.format(answer, indent=2).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], whole: Collection[str] = (), spare: Sequence[str] = ()
) -> None:
    """Print rows under their columns' names; what a terminal would obey is taken out of them.

    What stands in the columns of `whole` is never folded, and no URL is: people copy them. The columns of `spare` are
    left out, the first one first, where the terminal has no room for all.
    """
    from rich.cells import cell_len
    from rich.console import Console, ConsoleDimensions
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    texts = [[plain(cell) or NOTHING for cell in row] for row in rows]
    widest = [max(map(cell_len, column)) for column in zip(columns, *texts, strict=True)]
    kept = _with_room(columns, widest, whole, spare, console.width)
    columns, widest = [columns[n] for n in kept], [widest[n] for n in kept]
    cells = [[Text(row[n], style=_STYLES.get(row[n], "")) for n in kept] for row in texts]
    least = [
        widest[n]
        if column in whole
        else min(widest[n], max(_NARROW, *(_longest_url(row[n].plain) for row in cells), 0))
        for n, column in enumerate(columns)
    ]
    gap = 2 if sum(least) + 2 * len(least) <= console.width else 1
    gaps = gap * (len(least) - 1)
    # On a narrower terminal it is the terminal that folds, whole lines.
    console.size = ConsoleDimensions(max(console.width, sum(least) + gaps), console.height)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    readable = [max(floor, _longest_word(column)) for floor, column in zip(least, columns, strict=True)]
    widths = _shrunk(_shrunk(widest, readable, console.width - gaps), least, console.width - gaps)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _with_room(
    columns: Sequence[str], widest: Sequence[int], whole: Collection[str], spare: Sequence[str], room: int
) -> list[int]:
    """Return the places of the columns for which there is room."""
    wished = {
        column: width if column in whole else min(width, max(_WISHED, len(column)))
        for column, width in zip(columns, widest, strict=True)
    }
    for column in spare:
        if sum(wished.values()) + 2 * (len(wished) - 1) <= room:
            break
        del wished[column]
    return [n for n, column in enumerate(columns) if column in wished]


def _shrunk(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths for which there is room, or `least`; the widest give first."""
    shrunk = list(widths)
    while sum(shrunk) > room:
        able = [n for n, width in enumerate(shrunk) if width > least[n]]
        if not able:
            break
        shrunk[max(able, key=shrunk.__getitem__)] -= 1
    return shrunk


def _longest_word(text: str) -> int:
    return max((len(word) for word in text.split()), default=0)


def _longest_url(text: str) -> int:
    """Return how long the longest URL in a text is."""
    return max((len(word) for word in text.split() if "://" in word), default=0)


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
        return NOTHING
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def length(seconds: float | None) -> str:
    """Return a length of time, in a unit that fits."""
    if seconds is None:
        return NOTHING
    for unit, factor in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds * 1000:.0f} ms"


def milliseconds(number: float | None) -> str:
    """Return a length of time that is told in milliseconds, in a unit that fits."""
    return length(None if number is None else number / 1000)


def date(moment: datetime | None) -> str:
    """Return a day and a minute, in this machine's time zone."""
    return NOTHING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def until(text: str, now: datetime) -> str:
    """Return how long it is to a time that an engine wrote."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return NOTHING
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    if seconds > _YEAR_SECONDS:
        return "forever"
    if seconds <= 0:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
