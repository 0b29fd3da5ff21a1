"""The few keys that routing reads of a JSON body: read as Go and Python read them, refused where they would differ."""

from __future__ import annotations

import pytest

from hive.dialects.fields import RoutingFields, read_fields
from hive.errors import Fault


def refusal(body: bytes, *, reads_name: bool = False, is_ollama: bool = True) -> Fault:
    with pytest.raises(Fault) as caught:
        read_fields(body, reads_name=reads_name, is_ollama=is_ollama)
    assert caught.value.kind.status == 400
    return caught.value


def model_of(body: bytes) -> str:
    return read_fields(body).model


def test_reads_what_routing_needs() -> None:
    body = b'{"model":"Tiny:1","stream":false,"messages":[{"role":"user","content":"hi"}],"options":{"seed":1}}'
    assert read_fields(body) == RoutingFields(model="Tiny:1", streams=False)
    assert read_fields(b'{"model":"m","tools":[{"type":"function"}],"keep_alive":0}') == RoutingFields(
        model="m", has_tools=True, has_keep_alive=True
    )


@pytest.mark.parametrize("tools", [b"[]", b"null", b"[ ]", b"[\r\n\t]"])
def test_an_empty_list_of_tools_is_none(tools: bytes) -> None:
    """It decides how long a stream may be silent: 60 seconds, or 10 minutes."""
    assert not read_fields(b'{"model":"m","tools":%b}' % tools).has_tools


def test_null_is_absent() -> None:
    assert read_fields(b'{"model":null,"keep_alive":null,"tools":null}') == RoutingFields()


def test_the_name_is_read_where_the_model_may_stand_in_it() -> None:
    for body in (b'{"name":"n"}', b'{"model":"","name":"n"}', b'{"name":"n","model":null}'):
        assert read_fields(body, reads_name=True).model == "n"
        assert read_fields(body).model == ""
    assert read_fields(b'{"name":"n","model":"m"}', reads_name=True).model == "m"


LONG = b'"padding":"%b",' % (b"p" * 5_000)
"""Puts a body beyond what is read quickly."""


@pytest.mark.parametrize("more", [b"", LONG], ids=["quickly", "long"])
@pytest.mark.parametrize(
    ("stream", "ollama", "others"),
    [
        (b"", True, False),
        (b'"stream":null,', True, False),
        (b'"stream":true,', True, True),
        (b'"stream":false,', False, False),
        (b'"stream": false ,', False, False),
    ],
)
def test_only_ollamas_own_routes_stream_unless_they_are_told_not_to(
    stream: bytes, ollama: bool, others: bool, more: bytes
) -> None:
    """Nothing is overdue of an answer that comes in one piece."""
    body = b'{%b%b"model":"m"}' % (stream, more)
    assert read_fields(body).streams is ollama
    assert read_fields(body, is_ollama=False).streams is others


def load_options(options: bytes, more: bytes = b"") -> str:
    """Return what decides of these options how the model is loaded."""
    return read_fields(b'{"model":"m",%b"options":%b}' % (more, options)).load_options


@pytest.mark.parametrize(
    "more", [b"", LONG, rb'"x":"\\",', b'"x":"\xff",'], ids=["quickly", "long", "escaped", "slowly"]
)
def test_of_the_options_those_that_decide_how_a_model_is_loaded(more: bytes) -> None:
    assert load_options(b'{"num_ctx":8192}', more) == '{"num_ctx": 8192}'
    assert load_options(b'{"temperature":0.1,"use_mmap":false,"num_gpu":3,"seed":4}', more) == (
        '{"num_gpu": 3, "use_mmap": false}'
    )
    assert load_options(b'{"temperature":0.1,"seed":4,"num_predict":9,"stop":["a"]}', more) == ""
    assert read_fields(b'{"model":"m"}').load_options == ""


def test_the_same_options_are_one_spelling_whatever_their_order() -> None:
    """Else an Ollama would be told to load a model that it has."""
    written = {load_options(options) for options in (
        b'{"num_ctx":1,"num_gpu":2,"seed":1}', b'{ "num_gpu" : 2 , "num_ctx" : 1 }',
        b'{"num_ctx":9,"num_gpu":2,"num_ctx":1}',
    )}  # fmt: skip
    assert written == {'{"num_ctx": 1, "num_gpu": 2}'}


@pytest.mark.parametrize(
    "options",
    [
        b"null",
        b"{}",
        b"[]",
        b'"num_ctx"',
        b"7",
        b'{"num_ctx":"many"}',
        b'{"num_ctx":null}',
        b'{"num_ctx":[8192]}',
        b'{"num_ctx":{"a":1}}',
        b'{"NUM_CTX":8192}',
        b'{"num_ctx":1e999}',
        b'{"num_ctx":%b}' % (b"[" * 900 + b"]" * 900),
    ],
)
def test_what_is_no_number_is_the_engines_to_refuse(options: bytes) -> None:
    """A load with it would fail: the request itself brings the engine's own words."""
    for more in (b"", LONG):
        assert load_options(options, more) == ""


def test_options_of_other_dialects_are_not_ollamas() -> None:
    body = b'{"model":"m","options":{"num_ctx":8192}}'
    assert read_fields(body, is_ollama=False).load_options == ""
    assert read_fields(body[:-1] + b"," + LONG[:-1] + b"}", is_ollama=False).load_options == ""


def test_options_in_any_case_are_read_as_go_reads_them() -> None:
    assert read_fields(b'{"model":"m","Options":{"num_ctx":1}}').load_options == '{"num_ctx": 1}'
    assert refusal(b'{"model":"m","options":{"num_ctx":1},"OPTIONS":{"num_ctx":2}}').kind.code == "repeated_key"


# --- keys that repeat ---

TWICE = {
    "the same": '{"model":"a","model":"b"}',
    "the same value": '{"model":"a","model":"a"}',
    "in upper case": '{"model":"a","MODEL":"b"}',
    "escaped": r'{"model":"a","\u006dodel":"b"}',
    "escaped upper case": r'{"mode\u004C":"a","model":"b"}',
    "null": '{"model":"a","model":null}',
    "name": '{"name":"a","model":"m","Name":"b"}',
    "stream": '{"model":"m","stream":true,"Stream":false}',
    "long s": '{"model":"m","stream":true,"\u017ftream":false}',
    "long s, escaped": r'{"model":"m","stream":true,"\u017ftream":false}',
    "Kelvin sign": '{"model":"m","keep_alive":1,"\u212aeep_alive":0}',
    "Kelvin sign, escaped": r'{"model":"m","\u212AEEP_ALIVE":1,"keep_alive":0}',
    "tools": '{"model":"m","tools":[],"tool\u017f":[{}]}',
    "beside a lone surrogate": r'{"model":"a","prompt":"\ud800","Model":"b"}',
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE.keys())
def test_a_key_that_the_hub_reads_may_not_repeat(body: str) -> None:
    """Go matches keys ignoring case, by Unicode's simple folding, and takes the last of them."""
    fault = refusal(body.encode())
    assert fault.kind.code == "repeated_key"


def test_beside_bytes_that_are_not_utf_8_it_may_not_repeat_either() -> None:
    assert refusal(b'{"model":"a","prompt":"\xff","model":"b"}').kind.code == "repeated_key"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"model","model":"x","Model":"y"}]}',
        b'{"model":"m","tools":[{"function":{"parameters":{"properties":{"model":{},"name":{},"Name":{}}}}}]}',
        b'{"model":"m","options":{"model":1,"model":2}}',
        b'{"model":"m","seed":1,"seed":2}',
        b'{"model":"m","models":"a","mode":"b","modell":"c","_model":"d","model ":"e"}',
        b'{"prompt":"\\"model\\":\\"x\\"","model":"m","suffix":"{\\"model\\":1}"}',
    ],
)
def test_nested_and_other_keys_may(body: bytes) -> None:
    assert model_of(body) == "m"


def test_go_reads_a_model_under_any_case_and_so_does_the_hub() -> None:
    for body in (b'{"MODEL":"m"}', rb'{"\u004dodel":"m"}'):
        fields = read_fields(body)
        assert (fields.model, fields.is_exact) == ("m", False)
    assert read_fields(rb'{"\u006dodel":"m"}').is_exact


def test_any_case_counts_for_the_other_keys_too() -> None:
    fields = read_fields(b'{"model":"m","Tools":[{}],"KEEP_ALIVE":0}')
    assert (fields.model, fields.has_tools, fields.has_keep_alive) == ("m", True, True)


# --- what is no JSON object ---


@pytest.mark.parametrize("body", [b"", b"   ", b"\r\n"])
def test_an_empty_body_gets_ollama_s_text(body: bytes) -> None:
    assert refusal(body).message == "missing request body"
    assert refusal(body, is_ollama=False).kind.code == "bad_json"


@pytest.mark.parametrize("body", [b'{"model": ', b"{", b'{"model":"m"', b'{"model":"m","prompt":"abc', b'{"model"'])
def test_a_cut_body_gets_ollama_s_text(body: bytes) -> None:
    """63-err-bad-json.txt, the same in 0.9.3, 0.24.0 and 0.33.0."""
    assert refusal(body).message == "unexpected EOF"


BAD = {
    "list": b'[{"model":"m"}]',
    "text": b'"model"',
    "number": b"5",
    "null": b"null",
    "NaN": b'{"model":"m","options":{"seed":NaN}}',
    "NaN for a model": b'{"model":NaN}',
    "Infinity": b'{"model":"m","x":[-Infinity]}',
    "NaN beside a lone surrogate": rb'{"model":"m","prompt":"\ud800","x":NaN}',
    "BOM": b'\xef\xbb\xbf{"model":"m"}',
    "UTF-16": '{"model":"m"}'.encode("utf-16"),
    "trailing text": b'{"model":"m"}x',
    "two objects": b'{"model":"m"}{"model":"n"}',
    "trailing comma": b'{"model":"m",}',
    "trailing NUL": b'{"model":"m"}\0',
    "single quotes": b"{'model':'m'}",
    "bare key": b'{model:"m"}',
    "leading zero": b'{"model":"m","x":01}',
    "comment": b'{"model":"m"/*x*/}',
    "line in a text": b'{"model":"a\nb"}',
    "NUL in a text": b'{"model":"m","prompt":"a\0b"}',
    "unknown escape": rb'{"model":"m","prompt":"\x"}',
    "vertical tab": b'\x0b{"model":"m"}',
    "deep": b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep and open": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refusal(body).kind.code == "bad_json"


@pytest.mark.parametrize("value", [b"5", b"true", b"[]", b'["m"]', b"{}", b"1e3"])
def test_a_model_that_is_no_text_is_refused(value: bytes) -> None:
    assert refusal(b'{"model":%b}' % value).kind.code == "bad_json"
    assert refusal(b'{"name":%b}' % value, reads_name=True).kind.code == "bad_json"


def test_what_go_replaces_in_texts_is_let_through() -> None:
    for prompt in (rb"\ud83d", rb"\udc00x", b"\xff\xfe", b"\xed\xa0\xbd"):
        assert model_of(b'{"prompt":"%b","model":"m"}' % prompt) == "m"
        assert model_of(b'{"%b":1,"model":"m"}' % prompt) == "m"


@pytest.mark.parametrize("odd", [rb'"\ud800":1', b'"\xff":1', b'"y":nan'])
def test_what_is_not_strict_and_large_is_refused_unread(odd: bytes) -> None:
    """The lenient reader would keep everybody else waiting."""
    body = b'{"model":"m","x":[' + b",".join([b"{}"] * 700_000) + b"],%b}" % odd
    assert len(body) > 2_000_000
    fault = refusal(body)
    assert fault.kind.code == "bad_json"
    assert "strict" in fault.message


def test_what_is_strict_may_be_large() -> None:
    assert model_of(b'{"model":"m","x":[' + b",".join([b"{}"] * 700_000) + b"]}") == "m"


def test_a_model_s_name_that_is_no_text_is_refused_or_replaced() -> None:
    for name in (rb"m\ud83d", b"m\xff"):
        try:
            outcome = model_of(b'{"model":"%b"}' % name)
        except Fault as fault:
            outcome = fault.kind.code
        assert outcome in ("m\ufffd", "bad_json")


@pytest.mark.parametrize("key", ["tools", "messages"])
def test_no_depth_is_too_deep_for_an_answer(key: str) -> None:
    """Some depths are within one parser's bound and beyond another's."""
    for depth in (*range(900, 1010), 5_000, 10_000):
        for prompt in ("x", r"\ud800"):
            body = f'{{"model":"m","prompt":"{prompt}","{key}":{"[" * depth}{"]" * depth}}}'
            try:
                outcome = model_of(body.encode())
            except Fault as fault:
                outcome = fault.kind.code
            assert outcome in ("m", "bad_json")


@pytest.mark.parametrize(
    ("more", "unloads"),
    [
        (b'"keep_alive":0', True),
        (b'"keep_alive":"0s","prompt":""', True),
        (b'"keep_alive":0,"messages":[]', True),
        (b'"keep_alive":0,"prompt":"hello"', False),
        (b'"keep_alive":5', False),
        (b'"prompt":""', False),
    ],
)
def test_a_request_for_nothing_that_keeps_for_no_time_unloads(more: bytes, unloads: bool) -> None:
    assert read_fields(b'{"model":"m",%b}' % more).unloads is unloads
