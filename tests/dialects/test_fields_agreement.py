"""Reading a JSON body agrees with Python's json, whatever the body; replacing its model changes nothing else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive.dialects.fields import READ_KEYS, read_fields, replace_model
from hive.errors import Fault

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
KEYS = TEXTS.filter(lambda key: key.casefold() not in READ_KEYS)
OBJECTS = st.fixed_dictionaries({"model": st.text(max_size=10)}).flatmap(
    lambda model: st.dictionaries(KEYS, VALUES, max_size=4).map(lambda others: {**others, **model})
)


def is_utf_8(value: object) -> bool:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode() == json.dumps(
        value, ensure_ascii=False
    )


def encodings(value: object) -> list[bytes]:
    """The value as JSON in several hands."""
    texts = [
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        json.dumps(value, indent=1, separators=(" ,", " : ")),
    ]
    return [text.encode("utf-8", "surrogatepass") for text in texts]


@given(OBJECTS)
@settings(deadline=None, max_examples=150)
def test_what_python_s_json_accepts_is_accepted_with_the_same_model(value: dict[str, object]) -> None:
    for body in encodings(value):
        fields = read_fields(body)
        assert (fields.model, fields.has_tools, fields.has_keep_alive) == (value["model"], False, False)


@given(OBJECTS, st.integers(0, 100), st.integers(0, 3), st.binary(max_size=3))
@settings(deadline=None, max_examples=300)
def test_a_damaged_object_is_read_as_json_reads_it_or_refused(
    value: dict[str, object], place: int, count: int, more: bytes
) -> None:
    body = json.dumps(value).encode()
    damaged = body[:place] + more + body[place + count :]
    try:
        found: object = read_fields(damaged).model
    except Fault as fault:
        found = fault
    pairs = as_json(damaged)
    if isinstance(found, Fault):
        names = [name.casefold() for name, _ in pairs or []]
        model = dict(pairs or {}).get("model", "")
        is_odd = not isinstance(model, str) or not model.isascii() or len(names) != len(set(names))
        assert pairs is None or is_odd
    else:
        assert pairs is not None
        assert found == next((value or "" for name, value in pairs if name.casefold() == "model"), "")


def as_json(body: bytes) -> list[tuple[str, object]] | None:
    """The pairs of an object; None for anything else."""

    def refuse(constant: str) -> object:
        raise ValueError(constant)

    try:
        found = json.loads(
            body.decode("utf-8", "replace"), object_pairs_hook=lambda pairs: ("object", pairs), parse_constant=refuse
        )
    except ValueError:
        return None
    return found[1] if isinstance(found, tuple) else None


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=150)
def test_arbitrary_bytes_raise_only_faults(body: bytes) -> None:
    try:
        read_fields(body)
    except Fault as fault:
        status = fault.kind.status
    else:
        status = 400
    assert status == 400


ROUTING = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(max_size=5) | SCALARS,
        "MODEL": st.text(max_size=5),
        "name": st.text(max_size=5) | SCALARS,
        "tools": st.sampled_from([None, [], [{}], {}]),
        "Tools": st.sampled_from([[], [{}]]),
        "keep_alive": SCALARS,
        "KEEP_ALIVE": SCALARS,
        "stream": SCALARS,
        "options": st.dictionaries(st.sampled_from(["num_ctx", "num_gpu", "use_mmap", "seed"]), SCALARS) | SCALARS,
        "x": st.sampled_from(["model", '"model"', {"model": 1}, [{"name": 1, "Name": 2}]]),
    },
)


def outcome(body: bytes, reads_name: bool) -> object:
    try:
        fields = read_fields(body, reads_name=reads_name)
    except Fault as fault:
        return fault.kind.code
    return fields


@given(ROUTING, st.booleans())
@example({"model": "m", "KEEP_ALIVE": 0}, False)
@example({"model": "m", "Tools": [{}]}, False)
@settings(deadline=None, max_examples=200)
def test_a_long_body_is_read_as_a_short_one(value: dict[str, object], reads_name: bool) -> None:
    """A fast path may accept what the slow one would, and nothing else."""
    short = json.dumps(value).encode()
    for padding in ("é", r"\\", "p" * 10_000):
        long = json.dumps({**value, "padding": padding}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        assert outcome(long, reads_name) == outcome(short, reads_name)


# --- another model ---


@given(OBJECTS.filter(is_utf_8), st.text(min_size=1, max_size=10))
@settings(deadline=None, max_examples=150)
def test_replacing_the_model_keeps_all_other_values(value: dict[str, object], model: str) -> None:
    replaced = json.loads(replace_model(json.dumps(value).encode(), model))
    assert replaced == {**value, "model": model}
    assert [*replaced] == ["model", *(key for key in value if key != "model")]


def test_values_keep_their_very_bytes() -> None:
    for raw in (b"1e999", b"9" * 5000, b"1.10", rb'"\u00e9\/"', b"[ 1 ,\n2 ]", b'{"model" : "x"}', b"-0.0"):
        assert b":" + raw in replace_model(b'{"model":"a","x":%b}' % raw, "b").replace(b": " + raw, b":" + raw)


@pytest.mark.parametrize("prompt", [rb'"\ud83d"', b'"\xff"', b'"\xed\xa0\xbd"'], ids=["escaped", "not UTF-8", "CESU"])
def test_what_was_read_can_be_replaced(prompt: bytes) -> None:
    body = b'{"model":"a","prompt":%b}' % prompt
    assert read_fields(body).model == "a"
    replaced = json.loads(replace_model(body, "b").decode("utf-8", "surrogatepass" if b"\xed" in prompt else "replace"))
    assert replaced["model"] == "b"
    assert len(replaced["prompt"]) == 1


def test_any_spelling_of_the_key_is_replaced() -> None:
    assert json.loads(replace_model(rb'{"M\u006fdel":"a","x":1}', "b")) == {"model": "b", "x": 1}


def test_numbers_stay_what_they_are() -> None:
    assert math.isinf(json.loads(replace_model(b'{"model":"a","x":1e999}', "b"))["x"])
