"""The kinds of engines, and what follows from kind and version: the routes, and the usual number of slots."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache

from hive.dialects.tasks import ENGINE_ROUTES, Dialect, EngineRoute, Task


class EngineKind(StrEnum):
    """The servers that the hub can tell apart; any other server that lists /v1/models is `OPENAI`."""

    UNKNOWN = "unknown"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OPENAI = "openai"


DEFAULT_SLOTS = {EngineKind.OLLAMA: 1, EngineKind.LLAMA_CPP: 4, EngineKind.VLLM: 32}
"""The slots that an engine is believed to have at first, if it states none; of an Ollama, for each loaded model."""
OTHER_SLOTS = 8
MOST_OLLAMA_SLOTS = 4
"""The most requests of one model that an Ollama is believed to run at once. Before 0.10.0 it chose up to as many."""
_OLLAMA_ONE_AT_A_TIME = (0, 10, 0)
"""Since this release an Ollama runs one request of a model at a time, unless its operator says otherwise."""

_OLLAMA_SINCE = {"/v1/messages": (0, 14, 0), "/v1/responses": (0, 13, 3), "/v1/audio/transcriptions": (0, 20, 0)}
"""The release that first had a route."""
_OLLAMA_NEVER = frozenset({"/v1/messages/count_tokens", "/v1/audio/translations", "/v1/audio/speech", "/v1/rerank"})


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "0.33.0-rc2" is (0, 33, 0). Empty when there are none."""
    numbers: list[int] = []
    for part in version.split("-")[0].split("+")[0].split("."):
        if not part.isascii() or not part.isdigit():
            break
        numbers.append(int(part[:9]))
    return tuple(numbers)


Routes = Mapping[tuple[Task, Dialect], EngineRoute]


@lru_cache(maxsize=64)
def routes_of(kind: EngineKind, version: str) -> Routes:
    """Return the routes of an engine; an Ollama of unreadable version has the routes of all versions."""
    if kind is not EngineKind.OLLAMA:
        return {key: route for key, route in ENGINE_ROUTES.items() if key[1] is not Dialect.OLLAMA}
    numbers = version_numbers(version)
    lacking = _OLLAMA_NEVER | {path for path, since in _OLLAMA_SINCE.items() if numbers and numbers < since}
    return {key: route for key, route in ENGINE_ROUTES.items() if route.path not in lacking}


def usual_slots(kind: EngineKind, version: str) -> tuple[int, int]:
    """Return how many slots an engine that states none is believed to have: at first, and at most."""
    first = DEFAULT_SLOTS.get(kind, OTHER_SLOTS)
    if kind is not EngineKind.OLLAMA:
        return first, first
    numbers = version_numbers(version)
    return (MOST_OLLAMA_SLOTS if numbers and numbers < _OLLAMA_ONE_AT_A_TIME else first), MOST_OLLAMA_SLOTS
