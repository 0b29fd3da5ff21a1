"""The fleet as people and programs look at it: what the management API lists."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hive.fleet.engines import Engine, Health
from hive.fleet.kinds import EngineKind, version_numbers
from hive.fleet.known import Model
from hive.hub.core import Hub
from hive.hub.joining import JoinedNode
from hive.surfaces.management.application import ModelVersion, ModelView, NodeView


class _Tags(msgspec.Struct):
    details: dict[str, object] | None = None


class Views:
    """Answers from memory what the management API asks about the fleet."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def nodes(self) -> list[NodeView]:
        """Return every node, an entry for each of its engines."""
        joined = self._hub.joining.nodes
        entries = [self._entry(engine, joined.get(engine.node)) for engine in self._hub.fleet.engines]
        empty = [self._without_engine(node) for node in joined.values() if not node.engines]
        return entries + empty

    def drain(self, node: str, is_draining: bool, by: str) -> list[NodeView]:
        """Give a node no new work, or give it work again, for the key `by`; return its entries. Fault: NOT_FOUND."""
        self._hub.node_cases.drain(node, is_draining, by)
        return [entry for entry in self.nodes() if entry.name == node]

    def models(self) -> list[ModelView]:
        """Return every model, by name."""
        having: dict[str, list[Engine]] = {}
        for engine in self._hub.fleet.engines:
            for key in engine.known.models:
                having.setdefault(key, []).append(engine)
        return [_model(key, engines) for key, engines in sorted(having.items())]

    def _entry(self, engine: Engine, node: JoinedNode | None) -> NodeView:
        view = NodeView(
            name=engine.node,
            engine=engine.id or None,
            url=engine.url or None,
            link="dialed",
            status=engine.health.value,
            kind=engine.known.kind.value if engine.known.kind is not EngineKind.UNKNOWN else None,
            version=engine.known.version or None,
            slots=engine.slots,
            running=engine.running.count,
            models=len(engine.known.models),
            loaded=sorted(engine.known.loaded) if engine.health is not Health.DOWN else [],
            error=engine.error or None,
        )
        return view if node is None else self._with_machine(view, node)

    def _without_engine(self, node: JoinedNode) -> NodeView:
        status = Health.DOWN.value if node.control is None else Health.JOINING.value
        error = node.absence or "its node has found no engine"
        view = NodeView(node.name, None, "joined", status, None, None, 0, 0, 0, [], error)
        return self._with_machine(view, node)

    def _with_machine(self, view: NodeView, node: JoinedNode) -> NodeView:
        is_here = node.control is not None
        return replace(
            view,
            link="joined",
            agent=node.agent,
            platform=node.platform,
            labels=dict(node.labels),
            machine=msgspec.to_builtins(node.machine),
            heartbeat_age=round(self._hub.now() - node.heartbeat_at, 1) if is_here else None,
        )


def _model(key: str, engines: list[Engine]) -> ModelView:
    model = _listed(key, engines)
    return ModelView(
        name=key,
        nodes=list(dict.fromkeys(engine.node for engine in engines)),
        loaded_on=list(dict.fromkeys(e.node for e in engines if key in e.known.loaded and e.health is not Health.DOWN)),
        down_on=list(dict.fromkeys(engine.node for engine in engines if engine.health is Health.DOWN)),
        size=model.size_bytes or None,
        digest=model.digest or None,
        details=_details(model.tags),
        versions=_versions(key, engines),
    )


def _listed(key: str, engines: list[Engine]) -> Model:
    """Return the entry that clients get of a model (`fleet.listings.Catalog`): the newest engine's that is not down."""
    up = [engine for engine in engines if engine.health is not Health.DOWN]
    return max(up or engines, key=lambda engine: version_numbers(engine.known.version)).known.models[key]


def _versions(key: str, engines: list[Engine]) -> list[ModelVersion]:
    """Return the digests of a model, each with the nodes that have it. Only an Ollama tells a true digest."""
    nodes: dict[str, list[str]] = {}
    for engine in engines:
        digest = engine.known.models[key].digest
        if digest and engine.known.kind is EngineKind.OLLAMA:
            nodes.setdefault(digest, []).append(engine.node)
    return [ModelVersion(digest, list(dict.fromkeys(having))) for digest, having in nodes.items()]


def _details(tags: bytes) -> dict[str, object]:
    """Return what an engine says of a model; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(tags, type=_Tags).details or {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
