"""The screen of the demo: on a terminal a request's line changes while it runs; elsewhere it is printed at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hive.cli.output import plain
from hive.hub.records import Outcome, Record

PLAIN_WIDTH = 100
"""The width in columns of an output that is not a terminal."""
_REFRESHES_PER_SECOND = 12
_API_WIDTH = 9
_HEADINGS = ("QUEUED", "FIRST", "TOTAL", "OUTCOME", "WHY THIS NODE")
_APIS = {
    "chat": "Ollama",
    "generate": "Ollama",
    "v1_chat": "OpenAI",
    "v1_completions": "OpenAI",
    "v1_responses": "OpenAI",
    "v1_messages": "Anthropic",
}
"""The API that the screen shows for an operation. An operation that is not here is shown by its own name."""


@dataclass(slots=True, eq=False)
class ScreenRow:
    """One request: what its client knows, and at the end the hub's record of it."""

    operation: str
    model: str
    started_at: float | None = None
    node: str = ""
    record: Record | None = None
    error: str = ""
    """Why the request has no record."""

    @property
    def elapsed_ms(self) -> float | None:
        """Return the milliseconds since the request was sent; None before that and when it is over."""
        return None if self.is_over or self.started_at is None else (time.monotonic() - self.started_at) * 1000

    @property
    def is_over(self) -> bool:
        """Is the request over?"""
        return self.record is not None or bool(self.error)

    @property
    def is_ok(self) -> bool:
        """Did the client get a whole answer?"""
        return self.record is not None and self.record.outcome is Outcome.OK

    @property
    def has_moved(self) -> bool:
        """Did more than one node try the request?"""
        return self.record is not None and self.record.attempts > 1


def row_of(record: Record) -> ScreenRow:
    """Return the row of a request that another client sent."""
    return ScreenRow(record.operation, record.model.removesuffix(":latest"), node=record.node, record=record)


class Screen:
    """The demo's standard output."""

    def __init__(self) -> None:
        console = Console(highlight=False, emoji=False, markup=False)
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        if not console.is_terminal:
            console.width = PLAIN_WIDTH
        self._console = console
        is_narrow = console.width < PLAIN_WIDTH
        self._gap = " " if is_narrow else "  "
        self._widest_name = 10 if is_narrow else 24
        self._model_width = self._node_width = 0

    def fit(self, models: Iterable[str], nodes: Iterable[str]) -> None:
        """Make the columns wide enough for these names."""
        self._model_width = _width("MODEL", models, self._widest_name)
        self._node_width = _width("NODE", nodes, self._widest_name)

    def say(self, text: str = "", style: str = "") -> None:
        """Print a sentence; lines are folded at the screen's width."""
        self._console.print(Text(plain_lines(text), style=style))

    def code(self, text: str) -> None:
        """Print lines that people copy; they are never folded."""
        self._console.print(Text(text, style="cyan"), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under the names of their columns. The last column is cut where the screen ends."""
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for number, row in enumerate((columns, *rows)):
            cells = [plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
            self._line(Text("  ".join(cells).rstrip(), style="" if number else "bold"))

    def headings(self) -> None:
        """Print the heading of the table of requests."""
        names = ("REQUEST".ljust(_API_WIDTH), "MODEL".ljust(self._model_width), "NODE".ljust(self._node_width))
        self._line(Text(self._gap.join((*names, *_HEADINGS)), style="bold"))

    def row(self, row: ScreenRow) -> None:
        """Print a request in its present state."""
        self._line(self._text_of(row))

    @contextmanager
    def watching(self, rows: Sequence[ScreenRow]) -> Iterator[None]:
        """Show these requests while the block runs, if this is a terminal. Elsewhere nothing is shown until `over`."""
        if not self._is_live:
            yield
            return

        def render() -> Text:
            return Text("\n", no_wrap=True, overflow="ellipsis").join(self._text_of(row) for row in rows)

        with Live(console=self._console, get_renderable=render, refresh_per_second=_REFRESHES_PER_SECOND) as live:
            yield
            live.refresh()

    def over(self, row: ScreenRow) -> None:
        """Print a request that is over, unless a terminal shows it already."""
        if not self._is_live:
            self.row(row)

    def end(self) -> None:
        """Start a new line after the ^C that a terminal shows, if the terminal still exists."""
        if self._is_live:
            with suppress(OSError):
                self._console.print()

    def _line(self, text: Text) -> None:
        self._console.print(text, no_wrap=True, overflow="ellipsis", crop=True)

    def _text_of(self, row: ScreenRow) -> Text:
        record = row.record
        outcome, style = _outcome(row)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(_cell(_APIS.get(row.operation, row.operation), _API_WIDTH) + self._gap)
        text.append(_cell(plain(row.model) or "-", self._model_width) + self._gap)
        text.append(_cell(row.node or ("-" if row.is_over else ""), self._node_width) + self._gap, style="bold")
        text.append(f"{_seconds(record.queued_ms if record else None):>6}{self._gap}")
        text.append(f"{_seconds(record.first_byte_ms if record else None):>5}{self._gap}")
        text.append(f"{_seconds(record.total_ms if record else row.elapsed_ms):>5}{self._gap}")
        text.append(f"{outcome:<7}{self._gap}", style=style)
        text.append(_why(row), style="dim")
        text.rstrip()
        return text


def plain_lines(text: str) -> str:
    """Return a text of several lines with every control character replaced, except line ends."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _outcome(row: ScreenRow) -> tuple[str, str]:
    record = row.record
    if record is None:
        if row.error:
            return "failed", "red"
        if row.started_at is None:
            return "", ""
        return ("answers" if row.node else "waits"), "yellow"
    if record.outcome is Outcome.OK:
        return ("moved", "bold yellow") if row.has_moved else ("ok", "green")
    if record.outcome is Outcome.CLIENT_GONE:
        return "gone", "yellow"
    return str(record.status or "failed"), "red"


def _why(row: ScreenRow) -> str:
    record = row.record
    if record is None:
        return row.error
    tries = f"try {record.attempts}: " if row.has_moved else ""
    return tries + ", ".join(reason for reason in (record.error, record.why) if reason)


def _seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    seconds = milliseconds / 1000
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"


def _cell(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 2] + ".."


def _width(heading: str, names: Iterable[str], widest: int) -> int:
    return min(max(len(heading), *map(len, names)), widest)
