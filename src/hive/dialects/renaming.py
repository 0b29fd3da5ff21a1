"""Translates between two names of a model: its engine knows it by another name than the client."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hive.dialects.fields import RoutingFields, replace_model


@dataclass(frozen=True, slots=True)
class Renaming:
    """A translator that changes nothing of an answer but the name of its model."""

    engine_text: tuple[bytes, ...]
    """The text in the engine's answers, in its two spellings, without and with a space."""
    client_text: tuple[bytes, ...]
    """The text that the client is to read instead."""
    needs_whole_units: bool = False

    def content_type(self, engines: bytes) -> bytes:
        """Return the engine's content type."""
        return engines

    def units(self, units: bytes) -> bytes:
        """Return whole units with the client's name for the model."""
        for theirs, ours in zip(self.engine_text, self.client_text, strict=True):
            units = units.replace(theirs, ours)
        return units

    def end(self) -> bytes:
        """Return nothing: the engine's own end mark is the client's."""
        return b""

    def whole(self, body: bytes) -> bytes:
        """Return a body with the client's name for the model."""
        return self.units(body)


def rename(body: bytes, routing: RoutingFields, theirs: str) -> tuple[bytes, Renaming | None]:
    """Return a request's body with the engine's name for its model, and what translates the answer, if that is needed.

    Only Ollama reads names in any spelling.
    """
    ours = routing.model
    if theirs == ours and routing.is_exact:
        return body, None
    texts = [
        (b'"model":%b' % _quote(theirs), b'"model":%b' % _quote(ours)),
        (b'"model": %b' % _quote(theirs), b'"model": %b' % _quote(ours)),
    ]
    return replace_model(body, theirs), Renaming(tuple(a for a, _ in texts), tuple(b for _, b in texts))


def _quote(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
