"""Decodes request bodies that a client compressed. The size of the result is bounded."""

from __future__ import annotations

import zlib

from hive.errors import BAD_REQUEST, BODY_TOO_LARGE, UNSUPPORTED_ENCODING, Fault

_ZSTD_STEP_BYTES = 256
"""Four bytes of zstd can mean 128 KiB of output. So one step decodes to at most 8 MiB."""


def decode_body(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return the body, decoded from its Content-Encoding. Raises `Fault` (415, 413 or 400)."""
    name = encoding.strip().lower().decode("latin-1")
    if name in ("", "identity"):
        return body
    if name in ("gzip", "x-gzip"):
        return _inflate(body, 31, max_bytes, name)
    if name == "deflate":
        return _inflate(body, 15, max_bytes, name)
    if name == "zstd":
        return _decode_zstd(body, max_bytes)
    raise Fault(
        UNSUPPORTED_ENCODING,
        f"the content encoding {name[:40]!r} is not supported; send gzip, deflate, zstd or none",
        (("Accept-Encoding", "gzip, deflate, zstd"),),
    )


def _inflate(body: bytes, window: int, max_bytes: int, name: str) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        data = decoder.decompress(body, max_bytes + 1)
    except zlib.error:
        raise Fault(BAD_REQUEST, f"the body is not valid {name}") from None
    if len(data) > max_bytes:
        raise Fault(BODY_TOO_LARGE, f"the decoded body is larger than {max_bytes} bytes")
    if not decoder.eof or decoder.unused_data:
        raise Fault(BAD_REQUEST, f"the body is not one whole {name} stream")
    return data


def _decode_zstd(body: bytes, max_bytes: int) -> bytes:
    import zstandard

    # The window bounds the decoder's memory. Every encoder up to level 19 stays within 8 MiB (RFC 8878).
    decoder = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
    pieces, size = [], 0
    try:
        for start in range(0, len(body), _ZSTD_STEP_BYTES):
            piece = decoder.decompress(body[start : start + _ZSTD_STEP_BYTES])
            size += len(piece)
            if size > max_bytes:
                raise Fault(BODY_TOO_LARGE, f"the decoded body is larger than {max_bytes} bytes")
            pieces.append(piece)
    except zstandard.ZstdError:
        raise Fault(BAD_REQUEST, "the body is not valid zstd") from None
    if not decoder.eof or decoder.unused_data:
        raise Fault(BAD_REQUEST, "the body is not one whole zstd frame")
    return b"".join(pieces)
