"""A ticket waits for a slot; a lease is one slot held."""

from __future__ import annotations

from dataclasses import dataclass, field

from hive.dialects.operations import Operation
from hive.fleet.engines import Engine


@dataclass(slots=True, eq=False)
class Ticket:
    """One exchange's wish for a slot. Times are the hub's clock, in seconds."""

    model: str
    """Canonical name."""
    operation: Operation
    deadline: float
    number: int = 0
    """Order of arrival; kept when a busy engine sends the ticket back."""
    lane: tuple[str, bool] = field(init=False)
    """The queue it waits in: its model, and whether it needs a slot."""
    hopeless_since: float | None = None
    """Since when no engine that could serve it is ready."""
    excluded: set[Engine] = field(default_factory=set)
    """Engines that failed it."""

    def __post_init__(self) -> None:
        self.lane = self.model, self.operation.takes_slot

    def accepts(self, engine: Engine) -> bool:
        """May this engine serve it, slots aside?"""
        return (not self.excluded or engine not in self.excluded) and engine.serves(self.operation)


@dataclass(slots=True, eq=False)
class Lease:
    """The right to run one exchange on an engine; give it back with `Dispatcher.release`."""

    engine: Engine
    ticket: Ticket
    reason: str
    """Why this engine, in a few words."""
    is_held: bool = True
