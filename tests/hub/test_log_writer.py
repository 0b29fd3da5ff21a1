"""A log that its reader does not take in time costs lines, never time."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import pytest

from hive.hub.log_writer import LogWriter

from ..raw import eventually

LINE = b"x" * 999 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Both ends of a pipe: what reads, what writes."""
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb") as writer:
        yield reader, writer


def test_lines_arrive_in_order(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    log = LogWriter(writer)
    log.write(b"one\n")
    log.write("tw\u00f6\n")
    log.write(b"three\nfour\n")
    assert [reader.readline() for _ in range(4)] == [b"one\n", "tw\u00f6\n".encode(), b"three\n", b"four\n"]
    log.close()


def test_what_was_written_before_the_end_arrives(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    log = LogWriter(writer)
    for number in range(100):
        log.write(b"%d\n" % number)
    log.close()
    log.close()
    assert [int(reader.readline()) for _ in range(100)] == list(range(100))


@pytest.fixture
def full(pipe: tuple[BinaryIO, BinaryIO], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[BinaryIO, LogWriter]]:
    """A pipe without a reader, and a log whose waiting lines take half of the room for them."""
    monkeypatch.setattr("hive.hub.log_writer.MAX_WAITING_BYTES", 200_000)
    reader, writer = pipe
    log = LogWriter(writer)
    log.write(LINE * 100)  # more than a pipe holds
    eventually(lambda: not log._waiting)
    yield reader, log
    reader.close()
    log.close()
    with suppress(BrokenPipeError):
        writer.close()


def lines_of(reader: BinaryIO, count: int) -> tuple[int, int]:
    """Read what stands for so many lines; return how many came and how many are said to be lost."""
    whole = lost = 0
    while whole + lost < count:
        line = reader.readline()
        if line == LINE:
            whole += 1
        else:
            found = re.match(rb"(\d+) lines of the log were dropped", line)
            assert found, line
            lost += int(found[1])
    return whole, lost


def test_a_reader_that_stands_still_stops_no_writer_and_learns_how_much_it_missed(
    full: tuple[BinaryIO, LogWriter],
) -> None:
    reader, log = full
    is_done = threading.Event()

    def write() -> None:
        for _ in range(1000):
            log.write(LINE)
        is_done.set()

    threading.Thread(target=write, daemon=True).start()
    assert is_done.wait(2), "a write waits for the reader"
    assert lines_of(reader, 1100) == (200, 900)
    log.write(b"again\n")
    assert reader.readline() == b"again\n"


def test_what_it_missed_is_said_at_the_end_at_the_latest(full: tuple[BinaryIO, LogWriter]) -> None:
    reader, log = full
    log.write(LINE * 101)
    assert lines_of(reader, 100) == (100, 0)
    log.close()
    os.set_blocking(reader.fileno(), False)
    assert (reader.read() or b"").startswith(b"101 lines of the log were dropped")


def test_a_reader_that_went_away_stops_no_writer(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    reader, writer = pipe
    reader.close()
    log = LogWriter(writer)
    for _ in range(100):
        log.write(LINE)
    log.close()
    with suppress(BrokenPipeError):
        writer.close()


def test_only_lines_that_no_reader_takes_are_dropped(
    pipe: tuple[BinaryIO, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is on what waits, not on all that was ever written."""
    monkeypatch.setattr("hive.hub.log_writer.MAX_WAITING_BYTES", 5_000)
    reader, writer = pipe
    log = LogWriter(writer)
    for _ in range(50):
        log.write(LINE)
        assert reader.readline() == LINE
        eventually(lambda: log._waiting_bytes == 0)
    log.close()
