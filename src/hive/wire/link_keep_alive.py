"""Decides when a ping is due on a socket, and when the silence of its other end has lasted too long."""

from __future__ import annotations

from enum import Enum

from hive.wire.link_rules import PING_SECONDS, PONG_SECONDS, STALL_SECONDS


class Silence(Enum):
    """The result of a tick."""

    FINE = "nothing is to be done"
    AWAY = "we were away ourselves: nothing may be judged"
    PING = "a ping is due"
    UNANSWERED = "no answer to a ping"
    SILENT = "the hub is silent"


class KeepAlive:
    """The silence on one socket. The hub's side pings and waits for an answer; the node's side only listens."""

    __slots__ = ("_pinged", "_sends_pings", "_ticked", "asked", "heard", "silence_seconds")

    def __init__(self, now: float, *, sends_pings: bool) -> None:
        self.heard = now
        """The time at which the last bytes came; `LinkSocket.receive` writes it."""
        self.asked: float | None = None
        """The time of a ping that has no answer yet; None if there is none. Any bytes are an answer."""
        self.silence_seconds = PING_SECONDS + PONG_SECONDS
        """Seconds for which the hub may send nothing; for the node's side."""
        self._sends_pings = sends_pings
        self._pinged = self._ticked = now

    def tick(self, now: float, *, is_excused: bool, patience: float) -> Silence:
        """Let time pass; `patience` is how long a ping may stay without an answer, in seconds.

        `is_excused`: reading is paused, or bytes that wait to be written have become fewer since the last tick.
        """
        was_away = now - self._ticked > STALL_SECONDS
        self._ticked = now
        if was_away:
            return Silence.AWAY
        if is_excused:
            self.heard = now
            self.asked = None if self.asked is None else now
        if not self._sends_pings:
            return Silence.SILENT if now - self.heard > self.silence_seconds else Silence.FINE
        if self.asked is not None and now - self.asked > patience:
            return Silence.UNANSWERED
        if now - self._pinged < PING_SECONDS:
            return Silence.FINE
        self._pinged = now
        if self.asked is None:
            self.asked = now
        return Silence.PING
