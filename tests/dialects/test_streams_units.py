"""Whole units of a stream at any cut of the bytes: nothing lost, no blank line, nothing that no client could read."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive.dialects.streams import MalformedStream, Stream
from hive.dialects.tasks import Dialect

from .test_streams import (
    ANTHROPIC_DELTA,
    ANTHROPIC_STOP,
    COMMENTS,
    EVENTS,
    LINES,
    OPENAI_DONE,
    OPENAI_FINISHED,
    framing,
)


def passed_on(stream: Stream, pieces: list[bytes]) -> bytes:
    """What a relay passes on that holds incomplete units back."""
    sent, held = b"", b""
    for piece in pieces:
        held += piece
        end = stream.whole_bytes(held)
        if end:
            sent += stream.check(held[:end])[0]
            held = held[end:]
    return sent


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in itertools.pairwise([0, *sorted(places), len(data)])]


@pytest.mark.parametrize(
    ("data", "end"),
    [(b"", 0), (b"{", 0), (b"{}", 0), (b"{}\n", 3), (b"{}\n{", 3), (b"{}\n{}\n", 6), (b"{}\r\n", 4), (b"\n", 1)],
)
def test_a_line_is_whole_with_its_end(data: bytes, end: int) -> None:
    assert LINES.whole_bytes(data) == end


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"data: x", 0),
        (b"data: x\n", 0),
        (b"data: x\n\n", 9),
        (b"data: x\n\ndata: y\n", 9),
        (b"data: x\n\ndata: y\n\n", 18),
        (b'data: {"x":1}\r\n\r\n', 17),
        (b"data: x\r\n\r\nd", 11),
        (b"data: x\r\n\r", 0),
        (b"data: x\n\ndata: y\r\n\r\ndata", 20),
        (b"data: x\r\n\r\ndata: y\n\ndata", 20),
        (b"event: a\ndata: x\n\n", 18),
    ],
)
def test_an_event_is_whole_with_its_blank_line(data: bytes, end: int) -> None:
    assert EVENTS.whole_bytes(data) == end


BLANK = [b"\n", b"\r\n", b" \n", b"\t\r\n", b"  \r \n"]


@pytest.mark.parametrize("blank", BLANK)
def test_blank_lines_are_not_passed_on(blank: bytes) -> None:
    """Three clients break on one, wherever it stands and however the bytes were cut."""
    first, second = b'{"a":1}\n', b'{"b":"\\n\\n"}\n'
    assert LINES.check(blank)[0] == b""
    assert LINES.check(blank + first)[0] == first
    assert LINES.check(first + blank)[0] == first
    assert LINES.check(first + blank * 2 + second)[0] == first + second


MALFORMED = [
    b"nonsense\n",
    b'{"a":1\n',
    b'{"a":\n1}\n',
    b'{"a":1}\n{"b":\n',
    b'{"a":1}\nnonsense\n{"b":1}\n',
    b'{"a":1}{"b":2}\n',
    b'{"a":1} {"b":2}\n',
    b'{"a":1},\n',
    b"[1]\n",
    b"1\n",
    b'"a"\n',
    b"null\n",
    b"<html>\n",
    b'data: {"a":1}\n',
    b'\xef\xbb\xbf{"a":1}\n',
    b"{\n}\n",
    b"[" * 5000 + b"\n",
    b'{"a":' * 5000 + b"\n",
]


@pytest.mark.parametrize("units", MALFORMED)
def test_a_line_that_is_no_object_is_refused(units: bytes) -> None:
    for whole in (units, b'{"model":"m"}\n' + units):
        with pytest.raises(MalformedStream):
            LINES.check(whole)


def test_a_deep_line_is_passed_on_or_refused() -> None:
    for depth in (*range(900, 1010, 3), 5000):
        for text in ("x", r"\ud800"):
            line = f'{{"a":"{text}","b":{"[" * depth}{"]" * depth}}}\n'.encode()
            try:
                outcome = LINES.check(line)[0]
            except MalformedStream:
                outcome = line
            assert outcome == line


NO_EVENTS = [
    b"nonsense\n\n",
    b'{"error":"x"}\n\n',
    b"<html>\n\n",
    b"HTTP/1.1 200 OK\n\n",
    b"\xff\n\n",
]


@pytest.mark.parametrize("units", NO_EVENTS)
def test_what_is_no_event_is_refused(units: bytes) -> None:
    with pytest.raises(MalformedStream):
        EVENTS.check(units)


@pytest.mark.parametrize("units", NO_EVENTS)
def test_what_is_no_event_is_refused_behind_one_that_is(units: bytes) -> None:
    with pytest.raises(MalformedStream):
        EVENTS.check(OPENAI_FINISHED + units)


@pytest.mark.parametrize(
    "units",
    [
        OPENAI_DONE,
        ANTHROPIC_STOP,
        b'id: 1\ndata: {"x":1}\n\n',
        b"retry: 5\n\n",
        b"data:\n\n",
        b'data: {"x":1}\r\n\r\n',
        *COMMENTS,
    ],
)
def test_events_and_comments_go_on_as_they_are(units: bytes) -> None:
    assert EVENTS.check(units)[0] == units
    assert EVENTS.check(OPENAI_FINISHED + units + units)[0] == OPENAI_FINISHED + units + units


OBJECTS = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers() | st.none(), max_size=3)
PLACES = st.lists(st.integers(0, 400), max_size=6)


@given(st.lists(st.tuples(OBJECTS, st.sampled_from([b"", *BLANK]), st.booleans()), max_size=6), PLACES)
@example([({}, b"\r\n", True)], [3])
@settings(deadline=None, max_examples=150)
def test_any_cut_passes_the_same_lines_on(
    lines: list[tuple[dict[str, object], bytes, bool]], places: list[int]
) -> None:
    data = b"".join(json.dumps(line, ensure_ascii=escapes).encode() + b"\n" + blank for line, blank, escapes in lines)
    sent = passed_on(LINES, cut(data, places))
    assert [json.loads(line) for line in sent.splitlines()] == [line for line, _, _ in lines]
    assert sent == b"".join(json.dumps(line, ensure_ascii=escapes).encode() + b"\n" for line, _, escapes in lines)


@given(st.lists(st.sampled_from([OPENAI_FINISHED, OPENAI_DONE, ANTHROPIC_DELTA, *COMMENTS]), max_size=5), PLACES)
@settings(deadline=None, max_examples=150)
def test_any_cut_passes_the_same_events_on(events: list[bytes], places: list[int]) -> None:
    data = b"".join(events)
    assert passed_on(EVENTS, cut(data, places)) == data


@given(st.lists(st.sampled_from([b'{"a":1}\n', b"\n", b'{"b":', b"2}\n", b"x\n", b"\r\n"]), max_size=6), PLACES)
@example([b"\n", b"\r\n"], [1])
@example([b'{"b":', b"\n", b"2}\n"], [6])
@settings(deadline=None, max_examples=200)
def test_no_cut_lets_a_malformed_line_pass(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)

    def outcome(pieces: list[bytes]) -> bytes | None:
        try:
            return passed_on(LINES, pieces)
        except MalformedStream:
            return None

    assert outcome(cut(data, places)) == outcome([data])


@given(st.binary(min_size=1, max_size=40), st.sampled_from(list(Dialect)[:4]))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_raise_only_malformed_streams(data: bytes, dialect: Dialect) -> None:
    stream = framing(dialect)
    assert 0 <= stream.whole_bytes(data) <= len(data)
    stream.ending_of_start(data)
    stream.ending(data)
    try:
        stream.check(data + b"\n\n")
    except MalformedStream as malformed:
        text = str(malformed)
    else:
        text = "fine"
    assert text
