"""How a frame of a WebSocket looks as bytes (RFC 6455, 5.2): its header, its mask, and where its payload stands."""

from __future__ import annotations

import os
import struct

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled wheel for this machine
    from websockets.utils import apply_mask

__all__ = ["BINARY", "FIRST_BYTES", "TEXT", "apply_mask", "header", "masked", "measure"]

TEXT, BINARY = 0x81, 0x82
FIRST_BYTES = frozenset({0x00, 0x01, 0x02, 0x80, TEXT, BINARY, 0x88, 0x89, 0x8A})
"""No reserved bit, a known opcode, and no control frame in fragments."""
MASK_BIT = 0x80
_KEY_BYTES = 4
_HEADER_16 = struct.Struct("!BBH").pack
_HEADER_64 = struct.Struct("!BBQ").pack


def header(first: int, length: int, mask_bit: int = 0) -> bytes:
    """Return the header of a frame with a payload of this length, without the key of the mask."""
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65536:
        return _HEADER_16(first, mask_bit | 126, length)
    return _HEADER_64(first, mask_bit | 127, length)


def masked(first: int, payload: bytes | memoryview) -> bytes:
    """Return a whole frame with a mask of its own, as a client sends it."""
    key = os.urandom(_KEY_BYTES)
    return header(first, len(payload), MASK_BIT) + key + apply_mask(payload, key)


def measure(data: bytes, at: int, key_bytes: int) -> tuple[int, int]:
    """Return where the payload of the frame at `at` starts and ends.

    If the length of the payload has not come yet, both numbers say where the length ends.
    `key_bytes`: how long the mask's key is, 0 for a frame without a mask.
    """
    length_end = at + 2
    if len(data) < length_end:
        return length_end, length_end
    length = data[at + 1] & 0x7F
    if length >= 126:
        length_end += 2 if length == 126 else 8
        if len(data) < length_end:
            return length_end, length_end
        length = int.from_bytes(data[at + 2 : length_end], "big")
    start = length_end + key_bytes
    return start, start + length
