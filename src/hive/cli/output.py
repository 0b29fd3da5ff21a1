"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

import msgspec

_FILE_WIDTH = 10_000
"""The width in columns of an output that is not a terminal. Nothing is cut there."""
_LEAST_FOLDED_WIDTH = 4
"""The fewest columns of the terminal that a folded cell may have."""
_WANTED_WIDTH = 20
"""The columns of the terminal that a foldable column should have. To give it so many, spare columns are left out."""
NOTHING = "-"
"""The text of a cell without a value."""
_STYLES = {"ready": "green", "down": "red", "suspect": "yellow", "doubtful": "yellow", "draining": "yellow"}
_YEAR_SECONDS = 365 * 86_400


def print_json(answer: bytes) -> None:
    """Print JSON, indented."""
    print(msgspec.json.format(answer, indent=2).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], whole: Collection[str] = (), spare: Sequence[str] = ()
) -> None:
    """Print rows under the names of their columns. Control characters are replaced.

    The columns in `whole` and all URLs are never folded, because people copy them. The columns in `spare` are left out,
    the first one first, when the terminal has no room for all.
    """
    from rich.cells import cell_len
    from rich.console import Console, ConsoleDimensions
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    texts = [[plain(cell) or NOTHING for cell in row] for row in rows]
    widest = [max(map(cell_len, column)) for column in zip(columns, *texts, strict=True)]
    kept = _with_room(columns, widest, whole, spare, console.width)
    columns, widest = [columns[n] for n in kept], [widest[n] for n in kept]
    cells = [[Text(row[n], style=_STYLES.get(row[n], "")) for n in kept] for row in texts]
    least = [
        widest[n]
        if column in whole
        else min(widest[n], max(_LEAST_FOLDED_WIDTH, *(_longest_url(row[n].plain) for row in cells), 0))
        for n, column in enumerate(columns)
    ]
    gap = 2 if sum(least) + 2 * len(least) <= console.width else 1
    gaps = gap * (len(least) - 1)
    # On a narrower terminal the terminal folds whole lines.
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
    """Return the indexes of the columns that fit into `room`."""
    wanted = {
        column: width if column in whole else min(width, max(_WANTED_WIDTH, len(column)))
        for column, width in zip(columns, widest, strict=True)
    }
    for column in spare:
        if sum(wanted.values()) + 2 * (len(wanted) - 1) <= room:
            break
        del wanted[column]
    return [n for n, column in enumerate(columns) if column in wanted]


def _shrunk(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into `room`, or `least` if they cannot. The widest column shrinks first."""
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
    """Return the length of the longest URL in a text."""
    return max((len(word) for word in text.split() if "://" in word), default=0)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    lines = [(name, plain(value)) for name, value in fields]
    widest = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{widest}}  {value}")


def plain(text: str) -> str:
    """Return a text with its control characters replaced: names come from engines."""
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
    """Return a time span in seconds as text, in a suitable unit."""
    if seconds is None:
        return NOTHING
    for unit, factor in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds * 1000:.0f} ms"


def milliseconds(number: float | None) -> str:
    """Return a time span in milliseconds as text, in a suitable unit."""
    return length(None if number is None else number / 1000)


def date(moment: datetime | None) -> str:
    """Return a date and time to the minute, in this machine's time zone."""
    return NOTHING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def until(text: str, now: datetime) -> str:
    """Return the time left until a time that an engine wrote."""
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
