"""How far an exchange that runs has come: what its client waits for now, and since when."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """Where an exchange is."""

    READING = "reading"
    """Its body is unpacked, or its model looked for."""
    QUEUED = "queued"
    """It waits for a slot."""
    SENT = "sent"
    """It has a slot; no byte of an answer has come yet."""
    ANSWERING = "answering"


class Progress(msgspec.Struct, frozen=True):
    """What an exchange shows of itself. Lengths are in seconds."""

    stage: Stage
    age: float
    queued: float
    """All its waits for a slot so far, the one under way included."""
    first_byte: float | None
    """From the request to the first byte of the answer under way."""
    bytes_out: int
