"""What every dialect's voice is made of."""

from __future__ import annotations

import pytest

from hive.sim.voices import encode, event, timestamp

from .desks import CALLING, NOW_NS, THOUGHT, WORDS


@pytest.mark.parametrize(
    ("now_ns", "text"),
    [
        (0, b"1970-01-01T00:00:00.000000000Z"),
        (NOW_NS + 5, b"2026-01-01T00:00:00.000000005Z"),
        (NOW_NS + 999_999_999, b"2026-01-01T00:00:00.999999999Z"),
        (NOW_NS + 1_000_000_000, b"2026-01-01T00:00:01.000000000Z"),
    ],
)
def test_a_timestamp_has_nanoseconds_as_go_writes_them(now_ns: int, text: bytes) -> None:
    assert timestamp(now_ns) == text


def test_json_is_compact_and_not_escaped() -> None:
    assert encode({"a": ["ö", 1]}) == '{"a":["ö",1]}'.encode()


def test_an_event_has_a_name_if_it_is_given_one() -> None:
    assert event({"a": 1}) == b'data: {"a":1}\n\n'
    assert event({"a": 1}, "b") == b'event: b\ndata: {"a":1}\n\n'


def test_a_speech_counts_thoughts_and_words() -> None:
    assert (THOUGHT.tokens, THOUGHT.text, THOUGHT.thinking) == (2, " one", " hm")


def test_a_speech_that_calls_says_nothing_and_counts_as_its_words() -> None:
    assert (CALLING.tokens, CALLING.text) == (1, "")


def test_a_speech_is_its_words_joined() -> None:
    assert WORDS.text == ' one "two"'
