"""A model's name on its way to an engine, and back into what the client reads."""

from __future__ import annotations

import json

import pytest

from hive.dialects.fields import read_fields
from hive.hub.renaming import Renaming, rename


def renamed(body: bytes, theirs: str) -> tuple[bytes, Renaming | None]:
    return rename(body, read_fields(body, reads_name=True), theirs)


def test_a_body_with_the_engines_own_spelling_stays_as_it_is() -> None:
    body = b'{"model" : "tiny", "prompt": "x"}'
    assert renamed(body, "tiny") == (body, None)


def test_another_spelling_is_put_into_the_body() -> None:
    body, _ = renamed(b'{"prompt":"tiny","model":"tiny"}', "org/Tiny")
    assert json.loads(body) == {"prompt": "tiny", "model": "org/Tiny"}


def test_a_model_under_another_spelling_of_the_key_is_put_under_the_usual_one() -> None:
    body, renaming = renamed(b'{"Model":"tiny"}', "tiny")
    assert json.loads(body) == {"model": "tiny"}
    assert renaming is not None


@pytest.mark.parametrize("space", [b"", b" "])
def test_the_answer_has_the_clients_spelling_in_every_unit(space: bytes) -> None:
    _, renaming = renamed(b'{"model":"tiny"}', "org/Tiny")
    assert renaming is not None
    unit = b'{"model":%b"%b","text":"org/Tiny"}\n'
    assert renaming.apply(unit % (space, b"org/Tiny") * 2) == unit % (space, b"tiny") * 2


def test_names_stand_in_answers_as_json_writes_them() -> None:
    _, renaming = renamed(b'{"model":"t\\"\xc3\xb6"}', "\u00fc\\")
    assert renaming is not None
    assert renaming.apply('{"model":"\u00fc\\\\"}'.encode()) == '{"model":"t\\"\u00f6"}'.encode()
