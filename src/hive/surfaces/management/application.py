"""The management API, `/hive/v1/*`, for admin keys: keys, nodes and models; requests are in `request_routes`, events in
`event_routes`.

Its errors are in `error_answers`. The hub has judged the caller's right before this application is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Protocol

from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StrictBool, StrictStr

from hive import __version__
from hive.auth.keys import Key, Role
from hive.hub.event_feed import EventFeed
from hive.hub.key_cases import Keys
from hive.surfaces.management.error_answers import ErrorAnswer, answer_errors, refuse_unknown
from hive.surfaces.management.event_routes import serve_events
from hive.surfaces.management.management_routes import PREFIX
from hive.surfaces.management.request_routes import RequestsView, serve_requests


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the hub sees it now. What it has not learned yet is None."""

    name: str
    url: str | None
    link: str
    """dialed, joined or legacy."""
    status: str
    kind: str | None
    """The kind of its engine: ollama, openai, ..."""
    version: str | None
    slots: int
    running: int
    models: int
    """How many models it has."""
    loaded: Sequence[str]
    """Models in its memory."""
    error: str | None
    """Why it is not ready."""
    engine: str | None = None
    """A joined node's own name for the engine; None for a node without engines, and for a dialed node."""
    agent: str | None = None
    """The agent's name and version. This field and the fields below are only for joined nodes."""
    platform: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, object] | None = None
    """The share of its processors' time, its memory, free disk and GPUs, as in the last heartbeat."""
    heartbeat_age: float | None = None
    """Seconds since the last heartbeat; None for a node that has left."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What some nodes have under a model's name."""

    digest: str
    nodes: Sequence[str]


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model somewhere in the fleet, by its canonical name."""

    name: str
    nodes: Sequence[str]
    loaded_on: Sequence[str]
    down_on: Sequence[str]
    """Nodes that had it when they were last up."""
    size: int | None
    """The size, the digest and the details are from the entry that clients get in their lists."""
    digest: str | None
    details: Mapping[str, object]
    """The engine's own details of the model, unchanged."""
    versions: Sequence[ModelVersion] = ()
    """One for each digest that engines tell. More than one: the name is not the same model on every node."""


class FleetView(Protocol):
    """What the management API asks the hub about its fleet; answered from memory."""

    def nodes(self) -> Sequence[NodeView]:
        """Return every node, an entry for each of its engines."""

    def drain(self, node: str, is_draining: bool, by: str) -> Sequence[NodeView]:
        """Give a node no new work, or give it work again, for the key `by`; return its entries. Fault: NOT_FOUND."""

    def models(self) -> Sequence[ModelView]:
        """Return every model, one entry a name."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the application works with."""

    keys: Keys
    fleet: FleetView
    requests: RequestsView
    events: EventFeed


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key in a listing: its secret's first characters only."""

    name: str
    role: Role
    manage: bool
    shown: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CreatedKey(KeyView):
    """A key just made."""

    key: str
    """The secret, shown this once."""


class KeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: StrictStr
    role: Role
    manage: StrictBool = False


@dataclass(frozen=True, slots=True)
class KeyList:
    """The answer to a listing of keys."""

    keys: list[KeyView]


@dataclass(frozen=True, slots=True)
class NodeList:
    """The answer to a listing of nodes."""

    nodes: Sequence[NodeView]


@dataclass(frozen=True, slots=True)
class ModelList:
    """The answer to a listing of models."""

    models: Sequence[ModelView]


def create_app(services: Services) -> FastAPI:
    """Return the application; every error it answers has the shape of ErrorAnswer."""
    app = FastAPI(
        title="Hive management",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_unknown)],
        responses={code: {"model": ErrorAnswer, "description": "An error"} for code in ("4XX", "5XX", 422)},
    )
    answer_errors(app)
    _serve_keys(app, services.keys)
    serve_requests(app, PREFIX, services.requests)
    serve_events(app, PREFIX, services.events, services.keys)

    @app.get(f"{PREFIX}/nodes")
    async def nodes() -> NodeList:
        """List the nodes and their state now: an entry for each engine of a node."""
        return NodeList(services.fleet.nodes())

    @app.post(f"{PREFIX}/nodes/{{name}}/drain")
    async def drain(name: str, request: Request) -> NodeList:
        """Give a node no new work; what runs on it goes on."""
        return NodeList(services.fleet.drain(name, True, _key_name(request)))

    @app.post(f"{PREFIX}/nodes/{{name}}/resume")
    async def resume(name: str, request: Request) -> NodeList:
        """Give a drained node work again."""
        return NodeList(services.fleet.drain(name, False, _key_name(request)))

    @app.get(f"{PREFIX}/models")
    async def models() -> ModelList:
        """List the fleet's models and where they are."""
        return ModelList(services.fleet.models())

    return app


def _key_name(request: Request) -> str:
    """Return the name of the caller's key, which the hub has found."""
    return str(request.scope["hive"]["principal"].name)


def _serve_keys(app: FastAPI, keys: Keys) -> None:
    @app.get(f"{PREFIX}/keys")
    async def list_keys(revoked: bool = False) -> KeyList:
        """List the live keys; the revoked ones too with `revoked=true`."""
        return KeyList([_key_view(key) for key in keys.listed(revoked=revoked)])

    @app.post(f"{PREFIX}/keys", status_code=201)
    async def create_key(wanted: Annotated[KeyRequest, Body()], response: Response) -> CreatedKey:
        """Make a key; its secret is in this answer and nowhere else."""
        new = await keys.create(wanted.name, wanted.role, manage=wanted.manage)
        response.headers["Cache-Control"] = "no-store"
        view = _key_view(new.key)
        return CreatedKey(
            view.name, view.role, view.manage, view.shown, view.created_at, view.revoked_at, key=new.secret
        )

    @app.delete(f"{PREFIX}/keys/{{name}}")
    async def revoke_key(name: str) -> KeyView:
        """End a key at once."""
        return _key_view(await keys.revoke(name))


def _key_view(key: Key) -> KeyView:
    revoked_at = None if key.revoked_at is None else datetime.fromtimestamp(key.revoked_at, UTC)
    created_at = datetime.fromtimestamp(key.created_at, UTC)
    return KeyView(key.name, key.role, key.manage, key.shown, created_at, revoked_at)
