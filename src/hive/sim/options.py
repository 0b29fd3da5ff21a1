"""The options of a simulated engine with their defaults, and what a probe sees of each kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from hive import OLLAMA_API_VERSION
from hive.sim.names import full_name


class SimKind(StrEnum):
    """The server that the engine imitates: its probe routes, error shapes and `Server` header."""

    OLLAMA = "ollama"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    OPENAI = "openai"


VERSIONS = {
    SimKind.OLLAMA: OLLAMA_API_VERSION,
    SimKind.LLAMA_CPP: "b11434",
    SimKind.VLLM: "0.11.0",
    SimKind.OPENAI: "1",
}

DEFAULT_MODELS = ("tiny",)


class OptionError(ValueError):
    """An option that the engine cannot use. The message is one sentence that names the option."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that the engine makes when a request brings tools."""

    name: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimOptions:
    """How the engine behaves; times are in seconds."""

    models: tuple[str, ...] = DEFAULT_MODELS
    kind: SimKind = SimKind.OLLAMA
    version: str = ""
    """The version it reports. Empty: the version that we recorded for its kind."""
    slots: int = 1
    """Requests that one loaded model answers at the same time (OLLAMA_NUM_PARALLEL)."""
    max_loaded: int = 3
    max_queue: int = 512
    """Requests that may wait inside the engine. The next one gets 503 busy."""
    load_time: float = 0.0
    ttft: float = 0.0
    """Seconds from the start in a slot to the first token."""
    tokens_per_second: float = 0.0
    """The speed of each stream. 0: as fast as the client reads."""
    default_tokens: int = 24
    """The length of an answer when the request does not set one."""
    context_length: int = 4096
    keep_alive: float = 300.0
    tool_call: ToolCall | None = None
    seed: int = 0
    remember: int = 100
    """The number of requests in the state."""

    def __post_init__(self) -> None:
        for name in ("slots", "max_loaded", "default_tokens", "context_length"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("max_queue", "load_time", "ttft", "tokens_per_second", "remember"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{name}: expected 0 or more, got {value}")
        if not self.models:
            raise OptionError("models: expected at least one name")
        for name in self.models:
            if full_name(name) is None:
                raise OptionError(f"models: '{name}' is no model name")

    @property
    def shown_version(self) -> str:
        """Return the version that a probe reads."""
        return self.version or VERSIONS[self.kind]

    @property
    def token_interval(self) -> float:
        """Return seconds from one token to the next."""
        return 1 / self.tokens_per_second if self.tokens_per_second else 0.0
