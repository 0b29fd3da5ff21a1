"""Names of models that the client spells differently from the engine: only Ollama accepts any spelling."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hive.dialects.fields import RoutingFields, replace_model


@dataclass(frozen=True, slots=True)
class Renaming:
    """The model's name as the engine writes it in its answers, and as the client must read it."""

    engine_text: tuple[bytes, ...]
    client_text: tuple[bytes, ...]

    def apply(self, data: bytes) -> bytes:
        """Return whole units with the client's spelling."""
        for theirs, ours in zip(self.engine_text, self.client_text, strict=True):
            data = data.replace(theirs, ours)
        return data


def rename(body: bytes, routing: RoutingFields, theirs: str) -> tuple[bytes, Renaming | None]:
    """Return the body with the engine's spelling, and the renaming for its answer; None if both spell it the same."""
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
