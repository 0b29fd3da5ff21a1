"""The fleet as people and programs look at it: what the management API lists."""

from __future__ import annotations

import msgspec

from hive.api.management import ModelView, NodeView
from hive.fleet.engines import Engine, EngineKind, Health, Model
from hive.hub.core import Hub


class _Tags(msgspec.Struct):
    details: dict[str, object] | None = None


class Views:
    """Answers from memory what the management API asks about the fleet."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def nodes(self) -> list[NodeView]:
        """Return every node."""
        return [_node(engine) for engine in self._hub.fleet.engines]

    def models(self) -> list[ModelView]:
        """Return every model, by name."""
        having: dict[str, list[Engine]] = {}
        for engine in self._hub.fleet.engines:
            for key in engine.models:
                having.setdefault(key, []).append(engine)
        return [_model(key, engines) for key, engines in sorted(having.items())]


def _node(engine: Engine) -> NodeView:
    is_known = engine.kind is not EngineKind.UNKNOWN
    return NodeView(
        name=engine.node,
        url=engine.url,
        link="dialed",
        status=engine.health.value,
        kind=engine.kind.value if is_known else None,
        version=engine.version or None,
        slots=engine.slots,
        running=engine.running,
        models=len(engine.models),
        loaded=sorted(engine.loaded) if engine.health is not Health.DOWN else [],
        error=engine.error or None,
    )


def _model(key: str, engines: list[Engine]) -> ModelView:
    model: Model = max((engine.models[key] for engine in engines), key=lambda model: model.modified_at)
    return ModelView(
        name=key,
        nodes=[engine.node for engine in engines],
        loaded_on=[engine.node for engine in engines if key in engine.loaded and engine.health is not Health.DOWN],
        down_on=[engine.node for engine in engines if engine.health is Health.DOWN],
        size=model.size_bytes or None,
        digest=model.digest or None,
        details=_details(model.tags),
    )


def _details(tags: bytes) -> dict[str, object]:
    """Return what an engine says of a model; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(tags, type=_Tags).details or {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
