"""The record of an exchange: it is dated whatever writes it, and has one word for how the exchange ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from hive import errors
from hive.errors import Kind
from hive.hub.records import MAX_UNSETTLED, Outcome, Record, Records, outcome_of, timestamp


def settled(count: int) -> tuple[list[Record], list[int]]:
    """Return records that a hub settled without writing a log, and how many were written at a time."""
    written: list[Record] = []
    sizes: list[int] = []
    noted: list[Record] = []

    def write(records: Sequence[Record]) -> None:
        written.extend(records)
        sizes.append(len(records))

    async def run() -> None:
        records = Records(write, noted.extend)
        for number in range(count):
            records.add(Record(request_id=str(number)))
        records.settle()

    asyncio.run(run())
    assert noted == written
    return written, sizes


def test_a_record_is_dated_when_it_is_settled_whatever_writes_it() -> None:
    before = timestamp(time.time())
    (record,), _ = settled(1)
    assert before <= record.time <= timestamp(time.time())
    assert datetime.fromisoformat(record.time).utcoffset() == timedelta(0)


def test_each_has_the_time_at_which_it_ended_not_that_of_the_settling() -> None:
    async def run() -> list[Record]:
        records = Records(lambda _: None, lambda _: None)
        first, second = Record(), Record()
        records.add(first)
        await asyncio.sleep(0.05)
        records.add(second)
        records.settle()
        return [first, second]

    first, second = (datetime.fromisoformat(record.time) for record in asyncio.run(run()))
    assert timedelta(seconds=0.04) < second - first < timedelta(seconds=5)


def test_records_are_settled_together() -> None:
    written, sizes = settled(MAX_UNSETTLED + 5)
    assert [record.request_id for record in written] == [str(number) for number in range(MAX_UNSETTLED + 5)]
    assert sizes == [MAX_UNSETTLED, 5]


def test_a_time_has_milliseconds() -> None:
    assert timestamp(0.5) == "1970-01-01T00:00:00.500Z"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (errors.CANCELLED, Outcome.CANCELLED),
        (errors.MODEL_NOT_FOUND, Outcome.CLIENT_ERROR),
        (errors.NODE_SILENT, Outcome.NODE_ERROR),
        (errors.DRAINING, Outcome.HUB_ERROR),
    ],
)
def test_an_exchange_ends_as_its_error_says(kind: Kind, outcome: Outcome) -> None:
    assert outcome_of(kind) is outcome
