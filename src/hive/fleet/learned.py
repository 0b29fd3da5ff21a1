"""What the hub has learned of an engine from its work: slots, memory and speed.

The dispatcher's rules write a `Learned` (`scheduling.slots`, `scheduling.loads`, `scheduling.estimates`). `Fleet`
calls its methods when the engine says something that makes a lesson begin again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from hive.fleet.kinds import OTHER_SLOTS
from hive.fleet.pace import Mean, Pace


@dataclass(slots=True)
class Learned:
    """The lessons about one engine."""

    guess: float = OTHER_SLOTS
    """The slots as they are learned: halved when the engine says that it is busy, raised again by success."""
    first_slots: int = OTHER_SLOTS
    """The first guess: as an operator or the engine said, else as is usual for its kind."""
    most_slots: int = OTHER_SLOTS
    """The guess never passes this."""
    may_raise_at: float = 0.0
    """The guess is not raised before this time."""
    proven: float = float("inf")
    """How many exchanges with one model were seen or said to run at once. More may have to wait inside the engine."""
    insides: int = 0
    """How often an exchange was found to wait inside the engine."""
    proven_bytes: int = 0
    """The largest sum of the sizes of models that were in its memory at once. These bytes are known to fit."""
    full_bytes: float = float("inf")
    """The sum of the sizes of models that last did not stay in its memory together; infinite if none is known."""
    full_at: float = float("-inf")
    """When `full_bytes` was seen."""
    listed_at: float = float("-inf")
    """When the engine was last asked which models it has in memory."""
    paces: dict[str, Pace] = field(default_factory=dict)
    """How fast the engine was, by model."""
    service: Mean = field(default_factory=Mean)
    """Seconds that an exchange takes on the engine, whatever the model."""
    relative: Mean = field(default_factory=Mean)
    """The engine's seconds divided by the fleet's for the same models: 2 is half as fast."""
    load_rate: Mean = field(default_factory=Mean)
    """Seconds that the engine takes to load a byte of a model."""

    def begin_slots(self, first: int, most: int, *, is_guessed: bool) -> None:
        """Begin the guess anew, if other numbers of slots hold than before. `is_guessed`: no number was stated."""
        if (first, most) != (self.first_slots, self.most_slots) or self.guess > most:
            self.first_slots, self.most_slots = first, most
            self.guess = first
            self.proven = first if is_guessed else float("inf")
            self.insides = 0

    def keep_paces(self, models: Container[str]) -> None:
        """Forget the paces of all other models: the engine has them no more."""
        self.paces = {model: pace for model, pace in self.paces.items() if model in models}

    def note_held(self, size_bytes: int) -> None:
        """Learn that models of `size_bytes` in sum are in the engine's memory together."""
        self.proven_bytes = max(self.proven_bytes, size_bytes)
