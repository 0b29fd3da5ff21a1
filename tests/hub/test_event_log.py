"""The event log: numbers without gaps, what is kept, and where a reader goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive.hub.event_log import EventLog, Gap, Position
from hive.hub.events import Event, EventKind, NodeGone
from hive.hub.records import Record

EPOCH = "0123456789ab"


def log(kept: int = 10) -> EventLog:
    return EventLog(epoch=EPOCH, kept=kept, clock=lambda: 0.25)


def leave(events: EventLog, *names: str) -> None:
    for name in names:
        events.append(EventKind.NODE_LEFT, name, NodeGone("gone"))


def subjects(found: object) -> list[str]:
    assert isinstance(found, list)
    return [event.subject for event in found]


def test_an_event_says_when_where_and_what() -> None:
    events = log()
    leave(events, "desk")
    assert events.since(Position(EPOCH, 0)) == [
        Event("1970-01-01T00:00:00.250Z", EPOCH, 1, EventKind.NODE_LEFT, "desk", NodeGone("gone"))
    ]


def test_the_end_of_a_request_is_told_by_its_record() -> None:
    events = log()
    record = Record(time="2026-01-01T00:00:00.000Z", request_id="req_1")
    leave(events, "a")
    events.append_requests([record, Record(request_id="req_2")])
    leave(events, "b")
    found = events.since(Position(EPOCH, 1))
    assert subjects(found) == ["req_1", "req_2", "b"]
    assert found[0] == Event(record.time, EPOCH, 2, EventKind.REQUEST_ENDED, "req_1", record)  # type: ignore[index]


def test_a_reader_goes_on_where_it_was() -> None:
    events = log()
    leave(events, "a", "b", "c")
    assert subjects(events.since(Position(EPOCH, 2))) == ["c"]
    assert subjects(events.since(Position(EPOCH, 3))) == []
    assert subjects(events.since(Position(EPOCH, 0), most=2)) == ["a", "b"]
    assert events.position == Position(EPOCH, 3)


def test_the_oldest_event_that_is_kept_can_be_the_next_one() -> None:
    events = log(kept=2)
    leave(events, "a", "b", "c")
    assert subjects(events.since(Position(EPOCH, 1))) == ["b", "c"]


@pytest.mark.parametrize(
    "asked",
    [
        Position(EPOCH, 0),
        Position("ba9876543210", 2),
        Position("ba9876543210", 0),
        Position(EPOCH, 4),
    ],
    ids=["older than what is kept", "another epoch", "another epoch's begin", "ahead of the log"],
)
def test_a_reader_that_has_missed_events_is_told_where_to_go_on(asked: Position) -> None:
    events = log(kept=2)
    leave(events, "a", "b", "c")
    gap = events.since(asked)
    assert gap == Gap(asked, Position(EPOCH, 1))
    assert subjects(events.since(Position(EPOCH, 1))) == ["b", "c"]


def test_each_log_has_an_epoch_of_its_own() -> None:
    assert len({EventLog().epoch for _ in range(10)}) == 10


def test_every_change_is_news() -> None:
    events, calls = log(), []
    events.on_news = lambda: calls.append(events.last)
    leave(events, "a")
    events.append_requests([Record(), Record()])
    assert calls == [1, 3]


@given(
    kept=st.integers(1, 5),
    steps=st.lists(st.integers(0, 4), max_size=12),
    read=st.lists(st.integers(0, 12), max_size=12),
    most=st.integers(1, 4),
)
def test_a_reader_gets_each_event_once_in_order_or_a_gap(
    kept: int, steps: list[int], read: list[int], most: int
) -> None:
    """Whatever is appended between its reads, in ones or many: what it gets, and what a gap passes over, is all."""
    events, place, seen = log(kept), Position(EPOCH, 0), 0
    for turn, count in enumerate(steps):
        if count == 1:
            leave(events, "a")
        else:
            events.append_requests([Record() for _ in range(count)])
        if turn not in read:
            continue
        found = events.since(place, most)
        if isinstance(found, Gap):
            assert seen < found.resume.number == events.last - kept
            seen, place = found.resume.number, found.resume
        else:
            assert [event.number for event in found] == list(range(seen + 1, min(events.last, seen + most) + 1))
            seen += len(found)
            place = Position(EPOCH, seen)


@pytest.mark.parametrize("text", ["", "-", "0-", "-1", "abc", "abc-x", "XYZ-1", "abc-1 ", "abc--1", "abc-1\n", "abc-²"])
def test_what_is_no_position_is_not_taken_for_one(text: str) -> None:
    assert Position.read(text) is None


def test_a_position_is_read_as_it_is_written() -> None:
    assert Position.read(str(Position(EPOCH, 17))) == Position(EPOCH, 17)
