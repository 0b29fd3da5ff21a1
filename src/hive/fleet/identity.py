"""How to find out what an engine is and whether it lives: the questions, and what the answers mean.

`identify` and `check` are generators, so that hub and node can both use them over their own connections: they yield an
`Ask`, take the `Reply`, and return an `Identity` in the end. Both raise `Fault`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from hive import errors
from hive.errors import Fault
from hive.fleet.kinds import EngineKind
from hive.wire.link_messages import MAX_SLOTS

LIVENESS = {
    EngineKind.OLLAMA: "/api/version",
    EngineKind.LLAMA_CPP: "/health",
    EngineKind.VLLM: "/health",
    EngineKind.OPENAI: "/v1/models",
}
"""The cheapest route of each kind."""
PROBES = frozenset({*LIVENESS.values(), "/props", "/version"})
"""All paths that are asked for here."""

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Ask:
    """A path to ask for; a listing may take longer than other answers."""

    path: str
    is_listing: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an `Ask`."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """The kind and the version of an engine."""

    kind: EngineKind
    version: str


Steps = Generator[Ask, Reply, Identity]


class _Version(msgspec.Struct):
    version: str = ""


class _Props(msgspec.Struct):
    total_slots: object = None
    build_info: str = ""


def identify() -> Steps:
    """Find out what an engine is. Only Ollama answers /api/version: llama.cpp has an /api/tags of its own."""
    version = _version(_body((yield Ask("/api/version"))))
    if version:
        return Identity(EngineKind.OLLAMA, version)
    props = _read(_body((yield Ask("/props"))), _Props)
    if props is not None:  # a web application may answer any path with its page
        return Identity(EngineKind.LLAMA_CPP, props.build_info)
    version = _version(_body((yield Ask("/version"))))
    listed = _body((yield Ask("/v1/models", is_listing=True)))
    if not listed:
        raise Fault(errors.NODE_GARBLED, "it answers none of /api/version, /props and /v1/models")
    is_vllm = bool(version) and b'"vllm"' in listed
    return Identity(EngineKind.VLLM if is_vllm else EngineKind.OPENAI, version)


def check(known: Identity) -> Steps:
    """Find out whether an engine lives, and whether it is still of the kind and version that was known."""
    reply = yield Ask(LIVENESS[known.kind])
    if known.kind is not EngineKind.OLLAMA:
        if reply.status == 404:
            return (yield from identify())
        if reply.status == 503:
            raise Fault(errors.NODE_BUSY, "it is loading its model")
        if reply.status >= 500:
            raise Fault(errors.NODE_FAILED, f"its {LIVENESS[known.kind]} answers {reply.status}")
        return known
    version = _version(_body(reply))
    return Identity(EngineKind.OLLAMA, version) if version else (yield from identify())


def slots_in_props(body: bytes | None) -> int | None:
    """Return the number of slots in a llama.cpp's /props, `MAX_SLOTS` at most; None when there is no such number."""
    props = _read(body or b"", _Props)
    slots = props.total_slots if props else None
    return min(slots, MAX_SLOTS) if type(slots) is int and slots > 0 else None


def _body(reply: Reply) -> bytes:
    return reply.body if reply.status == 200 else b""


def _version(body: bytes) -> str:
    read = _read(body, _Version)
    return read.version if read else ""


def _read(body: bytes, kind: type[T]) -> T | None:
    """Return a JSON object as a struct; None for anything else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
