"""The model's name in a form, as the form readers of Go and Python read it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.errors import Fault
from hive.wire.multipart import read_model

TYPE = b"multipart/form-data; boundary=b0undary"
FILE = b'form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
SOUND = b"RIFF\0\0\r\n\r\n--\r\n--b0\r\n\xff\xfe"
MODEL = b'form-data; name="model"'

Part = tuple[bytes, bytes]


def form(*parts: Part, boundary: bytes = b"b0undary", end: bytes = b"--\r\n") -> bytes:
    """Return a form. Each part is its Content-Disposition (with lines after it) and its value."""
    lines = [b"--%b\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts]
    return b"".join(lines) + b"--" + boundary + end


def refusal(body: bytes, content_type: bytes = TYPE) -> Fault:
    with pytest.raises(Fault) as caught:
        read_model(body, content_type)
    return caught.value


def test_finds_the_model_wherever_it_stands() -> None:
    language = (b'form-data; name="language"', b"en")
    for parts in ([(FILE, SOUND), (MODEL, b"whisper")], [(MODEL, b"whisper"), (FILE, SOUND)]):
        assert read_model(form(*parts), TYPE) == "whisper"
        assert read_model(form(language, *parts, language), TYPE) == "whisper"


def test_a_form_without_a_model_has_none() -> None:
    assert read_model(form((FILE, SOUND)), TYPE) == ""
    assert read_model(form((MODEL, b"")), TYPE) == ""
    assert read_model(form(), TYPE) == ""


def test_curl_and_python_write_it_in_different_ways() -> None:
    for head in (b"form-data; name=model", b'form-data;name="model"', b'FORM-DATA; NAME="model"'):
        assert read_model(form((head, b"whisper")), TYPE) == "whisper"
    assert read_model(form((MODEL + b"\r\nContent-Type: text/plain", b"whisper")), TYPE) == "whisper"
    lines = b'--b0undary\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
    assert read_model(lines + b"--b0undary--\r\n", TYPE) == "m"


@pytest.mark.parametrize(
    ("boundary", "content_type"),
    [
        (b"----WebKitFormBoundaryAAA", b"multipart/form-data; boundary=----WebKitFormBoundaryAAA"),
        (b"a b", b'multipart/form-data; boundary="a b"'),
        (b"b0undary", b'Multipart/Form-Data; charset=utf-8; Boundary="b0undary"'),
        (b"b0undary", b"multipart/form-data;boundary=b0undary; charset=utf-8"),
        (b"x" * 70, b"multipart/form-data; boundary=" + b"x" * 70),
    ],
)
def test_reads_the_boundary_as_it_is_given(boundary: bytes, content_type: bytes) -> None:
    assert read_model(form((MODEL, b"m"), boundary=boundary), content_type) == "m"


def test_text_before_the_first_and_after_the_last_boundary_is_ignored() -> None:
    assert read_model(b"preamble\r\n" + form((MODEL, b"m"), end=b"--\r\nepilogue"), TYPE) == "m"
    assert read_model(form((MODEL, b"m"), end=b"--"), TYPE) == "m"


def test_the_models_name_must_be_text() -> None:
    assert read_model(form((MODEL, "mödel:1".encode())), TYPE) == "mödel:1"
    assert read_model(form((MODEL, b"\xff")), TYPE) == "\ufffd"


@pytest.mark.parametrize("content_type", [b"", b"application/json", b"multipart/mixed; boundary=b0undary"])
def test_other_content_types_are_refused(content_type: bytes) -> None:
    assert refusal(form((MODEL, b"m")), content_type).kind.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        form((MODEL, b"m"), end=b""),
        form((MODEL, b"m"), end=b"\r\n"),
        form((MODEL, b"m"), boundary=b"other"),
        b"--b0undary\r\nno end of the head",
        form(*[(FILE, b"x")] * 100),
        form((FILE + b"\r\nX: " + b"y" * 20_000, b"x"), (MODEL, b"m")),
        form((MODEL, b"m" * 5000)),
    ],
    ids=["empty", "JSON", "no end", "half an end", "other boundary", "half", "100 parts", "long head", "long name"],
)
def test_a_malformed_or_too_large_form_is_refused(body: bytes) -> None:
    assert refusal(body).kind.status == 400


def test_without_a_boundary_it_is_refused() -> None:
    assert refusal(form((MODEL, b"m")), b"multipart/form-data").kind.status == 400


def test_two_models_are_refused() -> None:
    for second in (MODEL, b"form-data; name=model", b'form-data; name="MODEL"'):
        assert refusal(form((MODEL, b"a"), (FILE, SOUND), (second, b"b"))).kind.code == "repeated_key"


@pytest.mark.parametrize(
    "first",
    [
        b"form-data; name*=utf-8''model",
        b'form-data;\r\n name="model"',
        b'form-data;\r\n\tname="model"',
        b'form-data; x="; name=\\"a"; name="model"',
        b'form-data; x="; name=a"; name="model"',
    ],
    ids=["extended", "folded", "folded by tab", "escaped quote", "quoted parameter"],
)
def test_a_field_that_an_engine_reads_is_never_hidden_from_the_hub(first: bytes) -> None:
    """Go's mime/multipart reads all of these as the field `model`, and takes the first."""
    try:
        read = read_model(form((first, b"unauthorised"), (MODEL, b"authorised")), TYPE)
    except Fault as fault:
        read = fault.kind.code
    assert read in ("unauthorised", "repeated_key", "bad_request")


def test_a_file_name_is_not_read_as_a_field() -> None:
    tricky = b'form-data; filename="x; name=model"; name="file"'
    assert read_model(form((tricky, b"evil"), (MODEL, b"m")), TYPE) == "m"


def test_another_header_is_not_read_as_a_field() -> None:
    tricky = b'form-data; name="file"\r\nX-Note: content-disposition: form-data; name="model"'
    posing = (
        b'--b0undary\r\nX-Note: content-disposition: x; name="model"\r\nContent-Disposition: form-data; name="file"'
    )
    assert read_model(form((tricky, b"evil"), (MODEL, b"m")), TYPE) == "m"
    assert read_model(posing + b"\r\n\r\nevil\r\n" + form((MODEL, b"m")), TYPE) == "m"


def test_a_line_that_only_begins_like_the_boundary_is_part_of_a_file() -> None:
    inside = b'x\r\n--b0undaryX\r\nContent-Disposition: form-data; name="model"\r\n\r\nevil'
    assert read_model(form((FILE, inside), (MODEL, b"m")), TYPE) == "m"


NAMES = st.from_regex(r"[A-Za-z0-9_./:-]{1,40}", fullmatch=True)


@given(NAMES, st.lists(st.binary(max_size=60).filter(lambda data: b"b0undary" not in data), max_size=4), st.data())
@settings(deadline=None, max_examples=100)
def test_files_of_any_bytes_change_nothing(name: str, files: list[bytes], data: st.DataObject) -> None:
    parts: list[Part] = [(FILE, file) for file in files]
    parts.insert(data.draw(st.integers(0, len(parts))), (MODEL, name.encode()))
    assert read_model(form(*parts), TYPE) == name


@given(st.binary(max_size=100), st.integers(0, 200), st.integers(0, 20))
@settings(deadline=None, max_examples=150)
def test_damaged_forms_raise_only_faults(more: bytes, place: int, count: int) -> None:
    body = form((FILE, SOUND), (MODEL, b"whisper"))
    damaged = body[:place] + more + body[place + count :]
    try:
        assert isinstance(read_model(damaged, TYPE), str)
    except Fault as fault:
        status = fault.kind.status
    else:
        status = 400
    assert status == 400
