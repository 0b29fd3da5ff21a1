"""What an engine does now by the hub's orders: its exchanges, its rest, its load. The dispatcher writes a `Running`."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field


@dataclass(slots=True)
class Running:
    """The work of one engine. `Fleet` only takes models out of `loaded_as` that have left the engine's memory."""

    count: int = 0
    """How many exchanges hold a slot of the engine."""
    of_model: dict[str, int] = field(default_factory=dict)
    """The same by model; a model with none is absent."""
    relaying: int = 0
    """How many exchanges the engine passes on to another machine now."""
    ended: int = 0
    """How many exchanges that held a slot have ended."""
    rests_until: float = 0.0
    """The engine was busy or failed: it gets no new exchange before this time."""
    loading: str = ""
    """The model that the hub has the engine load now; "" for none."""
    loads_alone: bool = False
    """May the load evict other models? Then the engine gets no exchange until it is known what is left."""
    loaded_as: dict[str, str] = field(default_factory=dict)
    """The models that the hub had the engine load, with the options that decide how (`Ticket.load_options`)."""

    def keep_loaded(self, models: Container[str]) -> None:
        """Forget the loads of all other models: they are in the engine's memory no more."""
        self.loaded_as = {model: options for model, options in self.loaded_as.items() if model in models}
