"""The progress of a running exchange: what its client waits for now, and since when."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """The stage of an exchange."""

    READING = "reading"
    """The body is being unpacked, or its model looked for."""
    QUEUED = "queued"
    """The exchange waits for a slot."""
    SENT = "sent"
    """The exchange has a slot. No byte of an answer has come yet."""
    ANSWERING = "answering"


class Progress(msgspec.Struct, frozen=True):
    """The progress that a running exchange shows. Durations are in seconds."""

    stage: Stage
    age: float
    queued: float
    """All waits for a slot so far, including the present one."""
    first_byte: float | None
    """The time from the request to the first byte of the present answer; None before that byte."""
    bytes_out: int
