"""Request bodies, and keep_alive as Go reads it."""

from __future__ import annotations

import math

import msgspec
import pytest

from hive.sim.bodies import BodyError, as_texts, parse_body, parse_keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        (1.5, 1.5),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("300ms", 0.3),
        (-1, math.inf),
        ("-1m", math.inf),
    ],
)
def test_reads_keep_alive(value: float | str | None, seconds: float | None) -> None:
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("soon", 'time: invalid duration "soon"'),
        ("300", 'time: missing unit in duration "300"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("", 'time: invalid duration ""'),
        ("--1s", 'time: invalid duration "--1s"'),
    ],
)
def test_refuses_a_keep_alive_in_gos_words(value: str, text: str) -> None:
    with pytest.raises(BodyError, match=f"^{text}$"):
        parse_keep_alive(value)


@pytest.mark.parametrize(
    ("data", "text"), [(b"", "missing request body"), (b'{"model": ', "unexpected EOF"), (b"[]", "json: ")]
)
def test_refuses_a_malformed_body(data: bytes, text: str) -> None:
    with pytest.raises(BodyError, match=text):
        parse_body(data)


def test_ignores_unknown_fields() -> None:
    body = parse_body(b'{"name": "m", "prompt": "x", "unknown": [1], "think": "low", "options": {"seed": 1}}')
    assert (body.wanted_model, body.prompt_text, body.asked) == ("m", "x", b'"x"')


def test_texts_are_a_string_or_a_list_of_strings() -> None:
    assert as_texts(msgspec.Raw(b'"a"')) == ["a"]
    assert as_texts(msgspec.Raw(b'["a", "b"]')) == ["a", "b"]
    assert as_texts(msgspec.Raw(b"null")) == []
    with pytest.raises(BodyError, match="invalid input type"):
        as_texts(msgspec.Raw(b"[1, 2]"))
