"""Frames written by hand, and two ends of a link that talk without a network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hive.wire.link_messages import encode
from hive.wire.link_socket import LinkSocket, Side

MASK = b"\x01\x02\x03\x04"
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A
NOT_LAST = 0x7F
"""The first byte `TEXT & NOT_LAST` begins a fragmented message."""


def frame(first: int, payload: bytes = b"", *, mask: bytes | None = MASK, length: int | None = None) -> bytes:
    """Return a frame as in RFC 6455, 5.2. A node's frame is masked. `length` may be false."""
    size = len(payload) if length is None else length
    bit = 0x80 if mask is not None else 0
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 65536:
        head = bytes([first, bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask), strict=False))


def from_node(message: object, kind: int = TEXT) -> bytes:
    """Return a message as a node's frame: JSON, text or bytes."""
    return frame(kind, _payload(message))


def from_hub(message: object, kind: int = TEXT) -> bytes:
    """Return a message as a hub's frame."""
    return frame(kind, _payload(message), mask=None)


def _payload(message: object) -> bytes:
    if isinstance(message, bytes):
        return message
    return message.encode() if isinstance(message, str) else encode(message)  # type: ignore[arg-type]


def messages(socket: LinkSocket, pieces: Iterable[bytes], now: float = 0.0) -> list[str | bytes]:
    """Return what a socket reads from these pieces."""
    read = []
    for piece in pieces:
        socket.receive(piece, now)
        while (message := socket.next_message()) is not None:
            read.append(message)
    return read


def said(socket: LinkSocket, now: float = 0.0) -> list[str | bytes]:
    """Return the messages that a socket wants to send, as its other end reads them."""
    other = LinkSocket(Side.NODE if socket.side is Side.HUB else Side.HUB, now)
    read = messages(other, [socket.take_output()])
    if other.closed is not None:
        read.append(f"closed {other.closed.code}")
    return read
