"""A frontend: the endpoint at which a request arrives, with the policy, time-outs and engines that hold there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hive.fleet.engines import Engine
from hive.fleet.health import Patience


@dataclass(frozen=True, slots=True, eq=False)
class Frontend:
    """What holds for all requests that arrive at one endpoint. Sizes are in bytes, lengths of time in seconds."""

    name: str = "default"
    policy: str = "best"
    """The name of the policy that chooses among engines: one of `hive.config.PolicyName`."""
    queue_timeout: float = 600.0
    """How long a request may wait for a slot."""
    patience: Patience = field(default_factory=Patience)
    """How long an attempt may be silent."""
    max_body_bytes: int = 64_000_000
    """The longest body of a request, unless the limits of its principal say less."""
    nodes: frozenset[str] | None = None
    """The names of the nodes that may serve here; None: all of them."""

    def admits(self, engine: Engine) -> bool:
        """Return whether an engine may serve the requests of this frontend."""
        return self.nodes is None or engine.node in self.nodes

    def admitted(self, engines: Sequence[Engine]) -> Sequence[Engine]:
        """Return the engines among these that may serve the requests of this frontend."""
        return engines if self.nodes is None else [engine for engine in engines if engine.node in self.nodes]
