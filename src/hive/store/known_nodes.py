"""What is kept of a node that joined: who it is, and what it said of itself and its engines, packed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from hive.wire.link_messages import Engines, ReportedEngine
from hive.wire.link_rules import MAX_CONTROL_BYTES

MAX_LISTS_BYTES = MAX_CONTROL_BYTES
"""Of all engines of a node: what it can say in one message is kept whole. Packed, it takes a fifth."""
_MAX_UNPACKED_BYTES = 2 * MAX_LISTS_BYTES
_LEVEL = 1
"""9 MB of lists become 1.7 MB in 56 ms; the usual level makes 1.5 MB of them, in 90 ms."""


class Profile(msgspec.Struct, frozen=True):
    """What a node said, without what changes by the minute. It is stored: what is added needs a default."""

    agent: str = ""
    platform: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    engines: Engines = ()
    """As it would report them, with nothing in memory."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as it was when it was last heard of."""

    name: str
    key_digest: bytes
    seen_at: float
    """Unix seconds."""
    profile: Profile


def fitting(engines: Iterable[ReportedEngine]) -> tuple[ReportedEngine, ...]:
    """Return the engines whose lists have room within `MAX_LISTS_BYTES`, the first ones first."""
    kept, room = [], MAX_LISTS_BYTES
    for engine in engines:
        size = sum(len(memoryview(each)) for each in (engine.tags, engine.ps, engine.v1_models))
        if size <= room:
            kept.append(engine)
            room -= size
    return tuple(kept)


def pack(profile: Profile) -> bytes:
    """Return a profile as compressed JSON."""
    return zlib.compress(msgspec.json.encode(profile), _LEVEL)


def unpack(packed: bytes) -> Profile:
    """Return the profile that was packed. Raises `ValueError`."""
    try:
        return _decode(zlib.decompressobj().decompress(packed, _MAX_UNPACKED_BYTES))
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


_decode = msgspec.json.Decoder(Profile).decode
