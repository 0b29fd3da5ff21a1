"""The form of a translator: it takes units in the engine's dialect and returns bytes in the client's dialect."""

from __future__ import annotations

from typing import Protocol


class Untranslatable(ValueError):  # noqa: N818 - it names what arrived
    """An engine's answer has no meaning in the client's dialect. The text says what is wrong with it."""


class Translator(Protocol):
    """Turns one answer, as its engine wrote it, into what the client is to read. There is one for each attempt.

    An answer that needs no translation has no translator: its bytes go on unchanged. `units`, `end` and `whole` raise
    `Untranslatable`.
    """

    @property
    def needs_whole_units(self) -> bool:
        """Must the translator see every unit and body whole? Otherwise units too long to be held go on untranslated."""

    def content_type(self, engines: bytes) -> bytes:
        """Return the content type that the client reads, from the engine's."""

    def units(self, units: bytes) -> bytes:
        """Return what the client reads for some whole units of a stream; empty if they mean nothing to the client."""

    def end(self) -> bytes:
        """Return what the client reads after the last unit of a stream that is whole."""

    def whole(self, body: bytes) -> bytes:
        """Return what the client reads for an answer in one piece."""
