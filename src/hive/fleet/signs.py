"""What is known of an engine's life: signs, as they come in. `hive.fleet.health` judges them."""

from __future__ import annotations

from dataclasses import dataclass

NEVER = float("-inf")


@dataclass(slots=True)
class Signs:
    """The signs of one engine. The shell writes them as they come; times are the hub's clock, in seconds."""

    last_sign: float = NEVER
    """A heartbeat, an answered probe, a byte of any exchange."""
    answered_at: float = NEVER
    """The server itself answered: a probe or a listing."""
    failure: str = ""
    """Why it cannot serve, in a few words: it refused the connection, or answered nonsense; "" after a good answer."""
    streams: int = 0
    """Answers of which a byte is due: begun and not ended, or overdue by far."""
    last_stream_byte: float = NEVER
    """The newest byte of any of them."""
    last_answer_byte: float = NEVER
    """The newest byte of any answer at all."""
    computing: int = 0
    """Exchanges whose first byte may well take so long, and loads: it may be busy with them."""
    has_stopped: bool = False
    """An agent saw the engine's process stopped, or its processors idle while it should work."""
    is_halted: bool = False
    """Was that the former: no process of it could go on if it wanted to?"""
    drained_by: str = ""
    """Who wants it empty, and why, in a few words."""
    has_left: bool = False
    """Has its node gone in good order? Then it is trusted at once when it is back."""
    is_remembered: bool = False
    """Is it only known from before the hub's start? Ends with the first news of it."""
    since: float = NEVER
    """When it came into its state."""
    falls: int = 0
    """How often it went down, or stood still, and was not forgiven."""
    fell_at: float = NEVER
    """When it did so last."""
    is_unproven: bool = False
    """Is its probation not over, whatever came in between?"""
    blames: int = 0
    """Exchanges in a row that failed by its own fault."""
    busies: int = 0
    """How often in a row it said that it is busy."""
    served: int = 0
    """Exchanges answered to their end in this state."""
