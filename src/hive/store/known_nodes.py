"""What the database keeps of a joined node: its identity, and what it said of itself and its engines, packed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from hive.wire.link_messages import Engines, ReportedEngine
from hive.wire.link_rules import MAX_CONTROL_BYTES

MAX_LISTS_BYTES = MAX_CONTROL_BYTES
"""The limit for the lists of all engines of a node: as much as a node can say in one message. Packed it is a fifth."""
_MAX_UNPACKED_BYTES = 2 * MAX_LISTS_BYTES
_LEVEL = 1
"""This level packs 9 MB of lists into 1.7 MB in 56 ms. The usual level packs them into 1.5 MB in 90 ms."""


class Profile(msgspec.Struct, frozen=True):
    """What a node said, without what changes every minute. It is stored, so a new field needs a default."""

    agent: str = ""
    platform: str = ""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    engines: Engines = ()
    """The engines as the node would report them with no model in memory."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as it was when the hub last heard of it."""

    name: str
    key_digest: bytes
    seen_at: float
    """Unix seconds."""
    profile: Profile


def fitting(engines: Iterable[ReportedEngine]) -> tuple[ReportedEngine, ...]:
    """Return the first engines whose lists together fit into `MAX_LISTS_BYTES`."""
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
    """Return the profile that `pack` compressed. Raises `ValueError`."""
    try:
        return _decode(zlib.decompressobj().decompress(packed, _MAX_UNPACKED_BYTES))
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


_decode = msgspec.json.Decoder(Profile).decode
