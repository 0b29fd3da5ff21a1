"""A model that its engine knows by another name than the client: only Ollama reads names in any spelling."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hive.dialects.fields import RoutingFields, replace_model


@dataclass(frozen=True, slots=True)
class Renaming:
    """The engine knows the model by another name: what stands in its answers, and what the client is to read."""

    engine_text: tuple[bytes, ...]
    client_text: tuple[bytes, ...]

    def apply(self, data: bytes) -> bytes:
        """Return whole units with the client's spelling."""
        for theirs, ours in zip(self.engine_text, self.client_text, strict=True):
            data = data.replace(theirs, ours)
        return data


def rename(body: bytes, routing: RoutingFields, theirs: str) -> tuple[bytes, Renaming | None]:
    """Return the body with the engine's own spelling, and what gives the client's back to it in the answer."""
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
