"""The table of faults, their written form, and the requests that each fault strikes."""

from __future__ import annotations

import math

import pytest

from hive.sim.faults import FAULTS, FaultBook, FaultKind, make_fault, split_fault
from hive.sim.options import OptionError


def test_every_fault_has_a_row() -> None:
    assert set(FAULTS) == set(FaultKind)


def test_an_unknown_name_is_answered_with_all_names() -> None:
    with pytest.raises(OptionError) as caught:
        make_fault("frozen")
    assert all(kind in str(caught.value) for kind in FaultKind)


@pytest.mark.parametrize(
    ("text", "number"),
    [("drop", 1), ("drop:3", 3), ("slow:2.5", 2.5), ("freeze", math.inf), ("lying-length:-4", -4)],
)
def test_an_argument_follows_a_colon(text: str, number: float) -> None:
    assert make_fault(*split_fault(text)).number == number


def test_a_text_keeps_its_colons() -> None:
    assert make_fault(*split_fault("error-500:a: b")).text == "a: b"


@pytest.mark.parametrize(
    "text", ["drop:x", "drop:1.5", "drop:-1", "busy:1", "slow:nan", "freeze:inf", "early-hints:200"]
)
def test_an_argument_of_the_wrong_sort_is_named(text: str) -> None:
    kind, argument = split_fault(text)
    with pytest.raises(OptionError, match=f"fault {kind}: takes .*'{argument}'"):
        make_fault(kind, argument)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": -1}])
def test_a_count_is_at_least_one(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="count"):
        make_fault("drop", count=wrong["count"])


def test_refuse_strikes_connections_and_no_requests() -> None:
    with pytest.raises(OptionError, match="neither count nor path"):
        make_fault("refuse", path="/api/chat")


def struck(book: FaultBook, path: str, *, is_work: bool = False) -> list[FaultKind]:
    return list(book.plan(path, is_work=is_work, is_list=path == "/api/tags"))


def test_a_fault_without_a_path_strikes_the_requests_in_its_reach() -> None:
    book = FaultBook()
    for kind in ("drop", "freeze", "wrong-digest"):
        book.set(make_fault(kind))
    assert struck(book, "/api/version") == [FaultKind.FREEZE]
    assert struck(book, "/api/tags") == [FaultKind.FREEZE, FaultKind.WRONG_DIGEST]
    assert struck(book, "/api/chat", is_work=True) == [FaultKind.FREEZE, FaultKind.DROP]


def test_a_fault_with_a_path_strikes_only_that_path() -> None:
    book = FaultBook()
    book.set(make_fault("drop", path="/api/version"))
    assert struck(book, "/api/version") == [FaultKind.DROP]
    assert struck(book, "/api/chat", is_work=True) == []


def test_a_used_up_fault_still_holds_the_requests_it_struck_until_it_is_cleared() -> None:
    book = FaultBook()
    fault = make_fault("busy", count=2)
    book.set(fault)
    assert [struck(book, "/api/chat", is_work=True) for _ in range(3)] == [
        [FaultKind.BUSY],
        [FaultKind.BUSY],
        [],
    ]
    assert not fault.is_cleared
    book.clear()
    assert fault.is_cleared


def test_a_failing_load_is_counted_when_a_load_begins() -> None:
    book = FaultBook()
    book.set(make_fault("load-fails", count=1))
    assert struck(book, "/api/chat", is_work=True) == []
    assert book.load_failure("/api/chat") is not None
    assert book.load_failure("/api/chat") is None


def test_a_freeze_stops_everything_for_its_seconds() -> None:
    book = FaultBook()
    book.set(make_fault("freeze", 5, now=100.0))
    assert book.freeze("/api/version", 104.9) is not None
    assert book.freeze("/api/version", 105.0) is None


def test_a_counted_freeze_stops_only_the_requests_it_struck() -> None:
    book = FaultBook()
    book.set(make_fault("freeze", count=1))
    assert book.freeze("/api/version", 0.0) is None
