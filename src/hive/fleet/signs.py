"""The signs of an engine's life, as they come in. `hive.fleet.health` judges them."""

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
    """How many answers owe a byte: they have begun and not ended, or their first byte is overdue by far."""
    last_stream_byte: float = NEVER
    """When the newest byte of any of these came."""
    last_answer_byte: float = NEVER
    """When the newest byte of any answer came."""
    computing: int = 0
    """How many exchanges may still read their prompt, and loads: the engine may be busy with them."""
    has_stopped: bool = False
    """An agent saw the engine's process stopped, or its processors idle while it should work."""
    is_halted: bool = False
    """Was its process stopped, so that nothing of it can go on?"""
    drained_by: str = ""
    """Why it is drained, or by whose order, in a few words; "" if it is not drained."""
    has_left: bool = False
    """Has its node left in good order? Then the engine is trusted at once when it is back."""
    is_remembered: bool = False
    """Is it only known from before the hub's start? The first news of it ends this."""
    since: float = NEVER
    """When its health last changed."""
    falls: int = 0
    """How often it went down, or stood still, since this was last forgiven."""
    fell_at: float = NEVER
    """When it last went down or stood still."""
    is_unproven: bool = False
    """Is a probation begun and not passed yet? Other states in between do not end it."""
    blames: int = 0
    """Exchanges in a row that failed by its own fault."""
    busies: int = 0
    """How often in a row it said that it is busy."""
    served: int = 0
    """Exchanges answered to their end since its health last changed."""
