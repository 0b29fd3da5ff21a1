"""What a simulated engine is told at its start, with every default, and what it looks like to a probe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from hive import OLLAMA_API_VERSION
from hive.sim.names import full_name


class SimKind(StrEnum):
    """Which server the engine passes for: its probe routes, error shapes and `Server` header."""

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
    """An option that cannot be used; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that the engine makes when a request brings tools."""

    name: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimOptions:
    """How the engine behaves; times in seconds."""

    models: tuple[str, ...] = DEFAULT_MODELS
    kind: SimKind = SimKind.OLLAMA
    version: str = ""
    """What it calls itself; empty means the version we recorded for its kind."""
    slots: int = 1
    """Requests that one loaded model answers at a time (OLLAMA_NUM_PARALLEL)."""
    max_loaded: int = 3
    max_queue: int = 512
    """Requests that wait inside before the next one is told 503 busy."""
    load_time: float = 0.0
    ttft: float = 0.0
    """From holding a slot to the first token."""
    tokens_per_second: float = 0.0
    """Of each stream; 0 means as fast as the client reads."""
    default_tokens: int = 24
    """Length of an answer when the request does not say."""
    context_length: int = 4096
    keep_alive: float = 300.0
    tool_call: ToolCall | None = None
    seed: int = 0
    remember: int = 100
    """Requests that the state shows."""

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
        """The version a probe reads."""
        return self.version or VERSIONS[self.kind]

    @property
    def token_interval(self) -> float:
        """Seconds from one token to the next."""
        return 1 / self.tokens_per_second if self.tokens_per_second else 0.0
