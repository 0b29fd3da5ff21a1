"""The form of sizes, times and tables."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime

import pytest

from hive.cli.output import length, milliseconds, plain, print_fields, print_table, size, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1_500, "1.5 KB"),
        (5_000_000, "5.0 MB"),
        (7_250_000_000, "7.2 GB"),
    ],
)
def test_a_size_is_shown_in_its_largest_unit(size_bytes: int | None, shown: str) -> None:
    assert size(size_bytes) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-01-01T00:00:30Z", "30 s"),
        ("2026-01-01T00:04:59.123456789Z", "5 min"),
        ("2026-01-01T05:00:00+02:00", "3 h"),
        ("2026-01-04T00:00:00Z", "3 d"),
        ("2318-01-01T00:00:00Z", "forever"),
        ("2025-01-01T00:00:00Z", "now"),
        ("0001-01-01T00:00:00Z", "now"),
        ("soon", "-"),
        ("", "-"),
    ],
)
def test_a_time_is_shown_as_the_length_until_it(text: str, shown: str) -> None:
    assert until(text, NOW) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0421, "42 ms"),
        (0.9996, "1.0 s"),
        (1.26, "1.3 s"),
        (59.7, "60 s"),
        (150.0, "2 min"),
        (7_300.0, "2 h"),
    ],
)
def test_a_length_of_time_is_shown_in_a_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert length(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [(None, "-"), (0.4, "0 ms"), (42.1, "42 ms"), (1_260.0, "1.3 s")])
def test_milliseconds_are_shown_as_a_length(number: float | None, shown: str) -> None:
    assert milliseconds(number) == shown


def test_fields_are_one_a_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("NAME", "a\x1b"), ("LONGER NAME", "b"), ("", "c")])
    assert capsys.readouterr().out == "NAME         a\ufffd\nLONGER NAME  b\n             c\n"


def test_a_table_outside_a_terminal_is_not_cut_and_markup_stays_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("NAME", "WHY"), [("a" * 200, "[red]\x1b[31m"), ("b", "")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["NAME", "WHY"], ["a" * 200, "[red]\ufffd[31m"], ["b", "-"]]


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print to a terminal of 80 columns that shows no colours, from here to the end of the test."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def test_a_whole_column_is_not_folded_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_terminal(monkeypatch)
    request_id = "req_0123456789ab_1234567"
    columns = ("REQUEST", *(["SOME NAME"] * 10))
    print_table(columns, [[request_id, *["something long"] * 10]], whole=("REQUEST",))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"{request_id} ") for line in lines) == 1
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (100, ["NAME", "ONE", "TWO", "WHY"]),
        (84, ["NAME", "ONE", "TWO", "WHY"]),
        (83, ["NAME", "ONE", "WHY"]),
        (60, ["NAME", "WHY"]),
        (40, ["NAME", "WHY"]),
    ],
)
def test_spare_columns_are_left_out_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, columns: list[str]
) -> None:
    use_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")  # rich assumes 80 columns for a dumb terminal
    monkeypatch.setenv("COLUMNS", str(width))
    row = ["n" * 18, "o" * 20, "t" * 20, "some words " * 9]
    print_table(("NAME", "ONE", "TWO", "WHY"), [row], whole=("NAME",), spare=("TWO", "ONE"))
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert lines[0].split() == columns
    assert max(map(len, lines)) <= width


def test_a_url_in_a_sentence_is_not_folded_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_terminal(monkeypatch)
    sentence = "no connection to http://192.168.178.22:11434: connection refused"
    print_table(("NAME", "MODELS", "REASON"), [("desk", "many words " * 9, sentence)], whole=("NAME",))
    shown = capsys.readouterr().out
    assert "http://192.168.178.22:11434:" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_table_that_cannot_fit_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_terminal(monkeypatch)
    print_table(("URL", "WHY"), [("u" * 100, "w" * 100)], whole=("URL",))
    assert any(line.startswith("u" * 100 + " wwww") for line in capsys.readouterr().out.splitlines())


def test_control_characters_are_taken_out() -> None:
    assert plain("a\x1b\n\u202eb\u00e9") == "a\ufffd\ufffd\ufffdb\u00e9"
