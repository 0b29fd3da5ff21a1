"""A model that its engine knows by another name: what goes up, and what the client reads."""

from __future__ import annotations

import json

import pytest

from hive import errors
from hive.dialects.fields import read_fields
from hive.dialects.renaming import rename
from hive.errors import Fault

BODY = b'{"model":"tiny:latest","messages":[{"role":"user","content":"\\"model\\":\\"tiny:latest\\""}]}'


def test_the_same_name_needs_nothing() -> None:
    assert rename(BODY, read_fields(BODY), "tiny:latest") == (BODY, None)


def test_another_name_goes_up_and_comes_back() -> None:
    body, translator = rename(BODY, read_fields(BODY), "org/Tiny-7B")
    assert json.loads(body) == json.loads(BODY) | {"model": "org/Tiny-7B"}
    assert translator is not None
    assert not translator.needs_whole_units
    for space in (b"", b" "):
        theirs = b'data: {"id":1,"model":%b"org/Tiny-7B","text":"org/Tiny-7B"}\n\n' % space
        assert (
            translator.units(theirs) == translator.whole(theirs) == theirs.replace(b'org/Tiny-7B",', b'tiny:latest",')
        )
    assert (translator.end(), translator.content_type(b"text/event-stream")) == (b"", b"text/event-stream")


def test_a_key_in_another_spelling_goes_up_as_the_engine_reads_it() -> None:
    body = b'{"MODEL":"tiny"}'
    renamed, translator = rename(body, read_fields(body), "tiny")
    assert json.loads(renamed) == {"model": "tiny"}
    assert translator is not None
    assert translator.units(b'{"model":"tiny"}') == b'{"model":"tiny"}'


def test_a_name_is_quoted_as_engines_quote_it() -> None:
    body = '{"model":"größe"}'.encode()
    translator = rename(body, read_fields(body), 'a"b')[1]
    assert translator is not None
    assert translator.units(rb'{"model":"a\"b"}') == body


def test_a_body_that_cannot_be_read_is_the_clients_fault() -> None:
    with pytest.raises(Fault) as found:
        rename(b"[1]", read_fields(BODY), "other")
    assert found.value.kind is errors.BAD_JSON
