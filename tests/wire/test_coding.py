"""Compressed bodies: which are decoded, which are refused, and how little memory a compression bomb takes."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.errors import Fault
from hive.wire.coding import decode_body

MAX = 1000
ENCODERS = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"zstd": zstandard.compress}
ENCODINGS = [pytest.param(encoding, id=encoding.decode()) for encoding in ENCODERS]


def refusal(body: bytes, encoding: bytes, max_bytes: int = MAX) -> Fault:
    with pytest.raises(Fault) as caught:
        decode_body(body, encoding, max_bytes)
    return caught.value


def test_a_body_without_an_encoding_is_left_alone() -> None:
    for encoding in (b"", b"identity", b" Identity "):
        assert decode_body(b"hello", encoding, MAX) == b"hello"


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b"GZIP", b" gzip\t", b"deflate", b"Zstd"])
def test_names_are_read_ignoring_case(encoding: bytes) -> None:
    body = ENCODERS[encoding.strip().lower().removeprefix(b"x-")](b"hello")
    assert decode_body(body, encoding, MAX) == b"hello"


@given(st.sampled_from(list(ENCODERS)), st.binary(max_size=MAX))
@settings(deadline=None, max_examples=100)
def test_a_decoded_body_equals_the_original(encoding: bytes, data: bytes) -> None:
    assert decode_body(ENCODERS[encoding](data), encoding, MAX) == data


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_bound_is_on_the_result(encoding: bytes) -> None:
    for data in (b"x" * MAX, os.urandom(MAX)):
        assert decode_body(ENCODERS[encoding](data), encoding, MAX) == data
        assert refusal(ENCODERS[encoding](data + b"x"), encoding).kind.status == 413


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_in_little_memory(encoding: bytes) -> None:
    bomb = ENCODERS[encoding](b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    tracemalloc.start()
    try:
        assert refusal(bomb, encoding, 1 << 20).kind.status == 413
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_cut_body_is_refused(encoding: bytes) -> None:
    body = ENCODERS[encoding](os.urandom(300))
    assert {refusal(body[:place], encoding).kind.status for place in range(len(body))} == {400}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("data", [b"hello", os.urandom(600)], ids=["short", "long"])
def test_bytes_after_the_end_are_refused(encoding: bytes, data: bytes) -> None:
    for more in (b"\0", b"x" * 600, ENCODERS[encoding](b"second")):
        assert refusal(ENCODERS[encoding](data) + more, encoding).kind.status == 400


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bytes_that_do_not_fit_their_encoding_are_refused(encoding: bytes) -> None:
    for other in (b"", b"{}", b"\0" * 600, *(encode(b"x") for name, encode in ENCODERS.items() if name != encoding)):
        assert refusal(other, encoding).kind.status == 400


def test_a_wrong_checksum_is_refused() -> None:
    body = gzip.compress(b"hello")
    assert refusal(body[:-8] + b"\0\0\0\0" + body[-4:], b"gzip").kind.status == 400


def test_a_window_that_would_take_much_memory_is_refused() -> None:
    """RFC 8878, 3.1.1.1.2: a decoder may refuse more than 8 MiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert refusal(encoder.compress(b"x" * 100) + encoder.flush(), b"zstd").kind.status == 400


@pytest.mark.parametrize(
    "encoding", [b"br", b"compress", b"gzip, zstd", b"gzip,gzip", b"identity, gzip", b"\xff\xfe", b"x" * 5000]
)
def test_the_answer_to_an_unsupported_encoding_names_the_supported_ones(encoding: bytes) -> None:
    fault = refusal(gzip.compress(b"x"), encoding)
    assert fault.kind.status == 415
    assert ("Accept-Encoding", "gzip, deflate, zstd") in fault.headers
    assert len(fault.message) < 400


@given(st.sampled_from(list(ENCODERS)), st.binary(max_size=200), st.integers(0, 199), st.binary(max_size=4))
@settings(deadline=None, max_examples=200)
def test_damaged_bodies_raise_only_faults(encoding: bytes, data: bytes, place: int, more: bytes) -> None:
    body = ENCODERS[encoding](data)
    try:
        decode_body(body[:place] + more + body[place + 1 :], encoding, MAX)
    except Fault as fault:
        status = fault.kind.status
    else:
        status = 0
    assert status in (0, 400, 413)
