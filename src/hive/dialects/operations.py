"""The closed table of routes: what the hub answers, by which right, and what of it goes to an engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hive.auth.keys import Right


class Dialect(Enum):
    """Whose shapes of errors and streams a route speaks."""

    __hash__ = object.__hash__  # Enum's own is written in Python: every request asks for it

    OLLAMA = "ollama"
    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    HIVE = "hive"


class Answered(Enum):
    """Who answers a route."""

    ENGINE = "engine"
    CATALOG = "catalog"
    """From what the hub remembers of the fleet."""
    APPLICATION = "application"
    """The management application behind the ASGI bridge."""
    LATER = "later"
    """Known, and not built yet: 501."""
    LINK = "link"
    """The connection becomes the link of a node."""
    UPGRADE = "upgrade"
    """Only with an upgrade that the hub does not speak: 426."""


class BodyForm(Enum):
    """Where a request names its model."""

    JSON = "json"
    MULTIPART = "multipart"


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `name` is its label in metrics and logs; `path` is what an engine is asked."""

    name: str
    method: str
    path: str
    dialect: Dialect
    answered: Answered
    right: Right = Right.INFER
    form: BodyForm = BodyForm.JSON
    takes_slot: bool = True
    """Does it compute, and so need a slot? `show` does not: it must pass a busy node."""
    is_relayed: bool = False
    """Does another machine than the engine's work for it? Of these an engine has a bounded number, and no slot."""
    reads_name: bool = False
    """May the model stand in `name`?"""
    locally_open: bool = False
    """Open to a local request whatever `local_access` gives beyond `off`."""
    unnamed_is_unknown: bool = False
    """Without a model Ollama says 404 `model '' not found` here, elsewhere 400 `model is required`."""
    answers_json: bool = True
    """Is an answer that does not stream JSON? Audio, and what is heard in it, may be anything."""
    quotes_model: bool = False
    """Ollama words an unknown model in two ways: this one in double quotes, with advice."""


def _engine(name: str, path: str, dialect: Dialect, **more: object) -> Operation:
    return Operation(name, "POST", path, dialect, Answered.ENGINE, **more)  # type: ignore[arg-type]


def _audio(name: str, path: str, form: BodyForm) -> Operation:
    return _engine(name, path, Dialect.OPENAI, form=form, answers_json=False)


def _catalog(name: str, path: str, dialect: Dialect = Dialect.OLLAMA, right: Right = Right.INFER) -> Operation:
    return Operation(name, "GET", path, dialect, Answered.CATALOG, right)


def _later(name: str, method: str, path: str, right: Right, dialect: Dialect = Dialect.OLLAMA) -> Operation:
    return Operation(name, method, path, dialect, Answered.LATER, right)


GENERATE = _engine("generate", "/api/generate", Dialect.OLLAMA, unnamed_is_unknown=True)
CHAT = _engine("chat", "/api/chat", Dialect.OLLAMA)
SHOW = _engine("show", "/api/show", Dialect.OLLAMA, takes_slot=False, reads_name=True)
ROOT = _catalog("root", "/", right=Right.NONE)
TAGS = _catalog("tags", "/api/tags")
PS = _catalog("ps", "/api/ps")
VERSION = _catalog("version", "/api/version")
MODELS = _catalog("models", "/v1/models", Dialect.OPENAI)
MODEL = _catalog("model", "/v1/models/", Dialect.OPENAI)
HEALTH = _catalog("healthz", "/healthz", Dialect.HIVE, Right.NONE)
READY = _catalog("readyz", "/readyz", Dialect.HIVE, Right.NONE)
METRICS = Operation("metrics", "GET", "/metrics", Dialect.HIVE, Answered.CATALOG, Right.ADMIN, locally_open=True)
MANAGEMENT = Operation("management", "*", "/hive/v1/", Dialect.HIVE, Answered.APPLICATION, Right.ADMIN)
LINK = Operation("link", "GET", "/hive/link", Dialect.HIVE, Answered.LINK, Right.WORK)
BLOB_HEAD = _later("blob_head", "HEAD", "/api/blobs/", Right.MANAGE)
BLOB_POST = _later("blob_post", "POST", "/api/blobs/", Right.MANAGE)

_WITH_HEAD = frozenset({ROOT.name, TAGS.name, VERSION.name, HEALTH.name, READY.name})

OPERATIONS: tuple[Operation, ...] = (
    GENERATE,
    CHAT,
    SHOW,
    _engine("embed", "/api/embed", Dialect.OLLAMA, quotes_model=True, unnamed_is_unknown=True),
    _engine("embeddings", "/api/embeddings", Dialect.OLLAMA, quotes_model=True),
    _engine("v1_chat", "/v1/chat/completions", Dialect.OPENAI),
    _engine("v1_completions", "/v1/completions", Dialect.OPENAI, unnamed_is_unknown=True),
    _engine("v1_embeddings", "/v1/embeddings", Dialect.OPENAI, quotes_model=True, unnamed_is_unknown=True),
    _engine("v1_responses", "/v1/responses", Dialect.RESPONSES),
    _engine("v1_messages", "/v1/messages", Dialect.ANTHROPIC),
    _engine("v1_count_tokens", "/v1/messages/count_tokens", Dialect.ANTHROPIC, takes_slot=False),
    _audio("v1_transcriptions", "/v1/audio/transcriptions", BodyForm.MULTIPART),
    _audio("v1_translations", "/v1/audio/translations", BodyForm.MULTIPART),
    _audio("v1_speech", "/v1/audio/speech", BodyForm.JSON),
    _engine("v1_rerank", "/v1/rerank", Dialect.OPENAI),
    ROOT,
    TAGS,
    PS,
    VERSION,
    MODELS,
    HEALTH,
    READY,
    METRICS,
    _later("pull", "POST", "/api/pull", Right.MANAGE),
    _later("push", "POST", "/api/push", Right.MANAGE),
    _later("create", "POST", "/api/create", Right.MANAGE),
    _later("copy", "POST", "/api/copy", Right.MANAGE),
    _later("delete", "DELETE", "/api/delete", Right.MANAGE),
    _later("status", "GET", "/api/status", Right.INFER),
    _later("me", "POST", "/api/me", Right.INFER),
    _later("signout", "POST", "/api/signout", Right.ADMIN),
    _later("recommendations", "GET", "/api/experimental/model-recommendations", Right.INFER),
    _later("web_search", "POST", "/api/experimental/web_search", Right.INFER),
    _later("web_fetch", "POST", "/api/experimental/web_fetch", Right.INFER),
    LINK,
    Operation("v1_responses_socket", "GET", "/v1/responses", Dialect.RESPONSES, Answered.UPGRADE),
)

_SHORT_PATHS = {"/generate": GENERATE, "/chat": CHAT}
"""An old client leaves `/api` out."""


def _build_routes() -> dict[str, dict[str, Operation]]:
    routes: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        methods = routes.setdefault(operation.path, {})
        methods[operation.method] = operation
        if operation.name in _WITH_HEAD:
            methods["HEAD"] = operation
    for path, operation in _SHORT_PATHS.items():
        routes[path] = {operation.method: operation}
    return routes


_ROUTES = _build_routes()
_NOTHING: dict[str, Operation] = {}
_PREFIXES: tuple[tuple[str, dict[str, Operation]], ...] = (
    (MODEL.path, {"GET": MODEL}),
    ("/api/blobs/", {"HEAD": BLOB_HEAD, "POST": BLOB_POST}),
    (MANAGEMENT.path, dict.fromkeys(("GET", "POST", "PUT", "PATCH", "DELETE"), MANAGEMENT)),
)


def methods_of(path: str) -> dict[str, Operation]:
    """Return the operations of a path by method; empty for a path that no surface owns."""
    found = _ROUTES.get(path)
    if found is not None:
        return found
    for prefix, methods in _PREFIXES:
        if path.startswith(prefix) and len(path) > len(prefix):
            return methods
    return _NOTHING


def dialect_of(path: str) -> Dialect:
    """Return whose error shape a path answers in, known to us or not."""
    for operation in methods_of(path).values():
        return operation.dialect
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    if path.startswith("/v1/"):
        return Dialect.OPENAI
    return Dialect.HIVE if path.startswith("/hive/") else Dialect.OLLAMA
