"""Frames as bytes: headers of every length, masks, and where a payload stands."""

from __future__ import annotations

import pytest

from hive.wire.link_frames import BINARY, MASK_BIT, TEXT, header, masked, measure

from .linking import MASK, frame

SIZES = (0, 1, 125, 126, 65_535, 65_536)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_a_header_tells_kind_and_length(first: int, size: int) -> None:
    assert header(first, size) + bytes(size) == frame(first, bytes(size), mask=None)


@pytest.mark.parametrize("size", SIZES)
def test_a_header_tells_of_a_mask(size: int) -> None:
    whole = frame(BINARY, bytes(size))
    before = header(BINARY, size, MASK_BIT)
    assert whole.startswith(before + MASK)


@pytest.mark.parametrize("size", SIZES)
def test_a_masked_frame_is_its_payload_under_its_own_key(size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    whole = masked(TEXT, payload)
    key = whole[len(whole) - size - 4 : len(whole) - size]
    assert whole == frame(TEXT, payload, mask=key)


def test_no_two_masks_are_alike() -> None:
    assert len({masked(TEXT, b"x" * 20) for _ in range(50)}) == 50


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mask", "key_bytes"), [(None, 0), (MASK, 4)])
def test_a_payload_stands_between_its_header_and_the_end_of_its_frame(
    size: int, mask: bytes | None, key_bytes: int
) -> None:
    whole = frame(BINARY, bytes(size), mask=mask)
    data = b"before" + whole + b"behind"
    assert measure(data, 6, key_bytes) == (6 + len(whole) - size, 6 + len(whole))


@pytest.mark.parametrize(("data", "length_end"), [(b"\x82", 2), (b"\x82\x7e\x00", 4), (b"\x82\x7f\x00\x00", 10)])
def test_a_length_that_is_not_in_yet_says_where_it_ends(data: bytes, length_end: int) -> None:
    assert measure(data, 0, 0) == (length_end, length_end)
