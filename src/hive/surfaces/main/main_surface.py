"""The main surface as a value: it answers listings from memory, and unknown paths as Ollama would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote

import msgspec

from hive import OLLAMA_API_VERSION, errors
from hive.dialects.routes import Answered, Methods, Route
from hive.dialects.tasks import Dialect
from hive.errors import Fault
from hive.fleet.listings import Catalog
from hive.fleet.model_names import MAX_NAME, with_tag
from hive.hub.plan import Plan
from hive.net.stream import ClientStream
from hive.surfaces.main.main_routes import MAIN_ROUTES, MODEL, MODELS, PS, ROOT, TAGS, VERSION
from hive.surfaces.surface import Find, Redirect, Surface
from hive.wire.requests import RequestHead

_JSON = b"Content-Type: application/json; charset=utf-8\r\n"
_V1_JSON = b"Content-Type: application/json\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_VERSION = msgspec.json.encode({"version": OLLAMA_API_VERSION})


def main_surface(catalog: Catalog) -> Surface:
    """Return the main surface over a fleet's listings."""
    return Surface("main", MAIN_ROUTES, _Listings(catalog).answer, dialect_of, answer_unknown)


class _Listings:
    """Answers what clients ask about models, from memory."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._answers: Mapping[Route, tuple[bytes, Callable[[RequestHead], bytes]]] = {
            ROOT: (_TEXT, lambda _: b"Ollama is running"),
            TAGS: (_JSON, lambda _: catalog.tags()),
            PS: (_JSON, lambda _: catalog.ps()),
            VERSION: (_JSON, lambda _: _VERSION),
            MODELS: (_V1_JSON, lambda _: catalog.v1_models()),
            MODEL: (_V1_JSON, self._one_model),
        }

    def answer(self, stream: ClientStream, plan: Plan) -> None:
        """Answer one listing. Raises `Fault`."""
        fields, make = self._answers[plan.route]
        stream.send(200, fields + plan.fields, make(stream.head))

    def _one_model(self, head: RequestHead) -> bytes:
        name = unquote(head.path.removeprefix(MODEL.path))
        found = self._catalog.v1_model(name) if len(name) <= MAX_NAME else None
        if found is None:
            raise Fault(errors.MODEL_NOT_FOUND, f"model '{with_tag(name)}' not found")
        return found + b"\n"


def dialect_of(path: str) -> Dialect:
    """Return the dialect in which errors at a path without a route are worded."""
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


def answer_unknown(head: RequestHead, methods: Methods, find: Find) -> Redirect:
    """Return the redirect of a path that differs only by slashes. Raises `Fault`: 404 or 405, as Ollama's router."""
    if methods:
        allow = ", ".join(sorted(m for m, found in methods.items() if found.answered is not Answered.UPGRADE))
        raise Fault(errors.METHOD_NOT_ALLOWED, "405 method not allowed", (("Allow", allow),))
    clean = "/" + "/".join(part for part in head.path.split("/") if part)
    if clean != head.path and head.method in find(clean) and head.path_key is None:
        status = 301 if head.method == "GET" and head.path == clean + "/" else 307
        return Redirect(status, clean + ("?" + head.query if head.query else ""))
    raise Fault(errors.NOT_FOUND, "404 page not found")
