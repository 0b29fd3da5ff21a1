"""The table of routes: for each kind of engine, which function answers a method and path."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hive.sim import library_routes, ollama_routes, openai_routes, probe_routes
from hive.sim.bodies import Body, BodyError, parse_body
from hive.sim.desk import Refusal, SimDesk
from hive.sim.options import SimKind
from hive.sim.surfaces import (
    PREFLIGHT,
    SimReply,
    is_host_allowed,
    is_origin_allowed,
    unknown_path,
    wrong_method,
)
from hive.sim.wire import SimRequest
from hive.sim.work import Decision

Route = Callable[[SimDesk, SimRequest, Body], Decision]
Table = Mapping[str, Mapping[str, Route]]
"""Path, then method. A path that ends in a slash accepts one more part."""

WORK_PATHS = frozenset(
    {
        "/api/generate",
        "/api/chat",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
    }
)
LIST_PATHS = frozenset({"/api/tags", "/api/ps"})
_BODILESS = frozenset({"GET", "HEAD"})


def _get(route: Route, *, has_head: bool = False) -> Mapping[str, Route]:
    return {"GET": route} | ({"HEAD": route} if has_head else {})


def _post(route: Route) -> Mapping[str, Route]:
    return {"POST": route}


_OPENAI: Table = {
    "/v1/models": _get(openai_routes.list_models),
    "/v1/chat/completions": _post(openai_routes.chat_completions),
    "/v1/completions": _post(openai_routes.completions),
    "/v1/embeddings": _post(openai_routes.embeddings),
    "/v1/responses": _post(openai_routes.responses),
}
_ANTHROPIC: Table = {"/v1/messages": _post(openai_routes.messages)}
_COUNT: Table = {"/v1/messages/count_tokens": _post(openai_routes.count_message_tokens)}
_ONE_MODEL: Table = {"/v1/models/": _get(openai_routes.one_model)}
_OLLAMA: Table = {
    "/": _get(probe_routes.root, has_head=True),
    "/api/version": _get(probe_routes.version, has_head=True),
    "/api/status": _get(probe_routes.status),
    "/api/me": _post(probe_routes.account),
    "/api/tags": _get(library_routes.tags, has_head=True),
    "/api/ps": _get(library_routes.ps),
    "/api/show": _post(library_routes.show),
    "/api/generate": _post(ollama_routes.generate),
    "/api/chat": _post(ollama_routes.chat),
    "/api/embed": _post(ollama_routes.embed),
    "/api/embeddings": _post(ollama_routes.embeddings),
    "/api/pull": _post(library_routes.pull),
    "/api/push": _post(library_routes.push),
    "/api/create": _post(library_routes.create),
    "/api/copy": _post(library_routes.copy),
    "/api/delete": {"DELETE": library_routes.delete},
    "/api/blobs/": {"HEAD": library_routes.has_blob, "POST": library_routes.upload_blob},
}
_LLAMA_CPP: Table = {
    "/health": _get(probe_routes.health),
    "/v1/health": _get(probe_routes.health),
    "/models": _get(openai_routes.list_models),
    "/props": _get(probe_routes.props),
    "/slots": _get(probe_routes.slots),
}
_VLLM: Table = {
    "/health": _get(probe_routes.empty_health),
    "/ping": _get(probe_routes.empty_health),
    "/version": _get(probe_routes.version),
    "/metrics": _get(probe_routes.metrics),
}
TABLES: Mapping[SimKind, Table] = {
    SimKind.OLLAMA: {**_OPENAI, **_ANTHROPIC, **_ONE_MODEL, **_OLLAMA},
    SimKind.LLAMA_CPP: {**_OPENAI, **_ANTHROPIC, **_COUNT, **_LLAMA_CPP},
    SimKind.VLLM: {**_OPENAI, **_ANTHROPIC, **_COUNT, **_ONE_MODEL, **_VLLM},
    SimKind.OPENAI: {**_OPENAI, **_ONE_MODEL},
}


def decide(desk: SimDesk, request: SimRequest) -> Decision:
    """Return the engine's decision about the request. Errors are replies."""
    try:
        route = _find(desk.kind, request)
        if isinstance(route, SimReply):
            return route
        is_bodiless = request.method in _BODILESS or request.path.startswith("/api/blobs/")
        has_no_body = request.path == "/api/me"
        body = Body() if is_bodiless or has_no_body else parse_body(request.body)
        return route(desk, request, body)
    except BodyError as error:
        return desk.refuse(request.path, 400, str(error)).reply
    except Refusal as refusal:
        return refusal.reply


def _find(kind: SimKind, request: SimRequest) -> Route | SimReply:
    if kind is SimKind.OLLAMA and (refused := _check_browser(request)):
        return refused
    table = TABLES[kind]
    parent, _, last = request.path.rpartition("/")
    methods = table.get(request.path) or (table.get(f"{parent}/") if last and parent else None)
    if methods is None:
        return unknown_path(kind)
    if request.method == "OPTIONS" and kind is SimKind.OLLAMA:
        return SimReply(204, b"", "", (*PREFLIGHT, ("Allow", ",".join(methods))))
    return methods.get(request.method) or wrong_method(kind, ", ".join(methods))


def _check_browser(request: SimRequest) -> SimReply | None:
    origin = request.header("origin")
    if not is_host_allowed(request.header("host")) or (origin and not is_origin_allowed(origin)):
        return SimReply(403, b"", "")
    return None


def cors(kind: SimKind, request: SimRequest) -> tuple[tuple[str, str], ...]:
    """Return the headers that allow a page in a browser to read the answer."""
    if kind is SimKind.LLAMA_CPP:
        return (("Access-Control-Allow-Origin", request.header("origin") or ""),)
    origin = request.header("origin") if kind is SimKind.OLLAMA else None
    if not origin or not is_origin_allowed(origin):
        return ()
    return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))
