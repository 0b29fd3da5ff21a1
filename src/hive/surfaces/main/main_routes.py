"""The routes of the main surface: what clients of Ollama, OpenAI and Anthropic servers ask for."""

from __future__ import annotations

from hive.auth.keys import Right
from hive.dialects import tasks
from hive.dialects.routes import Answered, BodyForm, Route, RouteTable
from hive.dialects.tasks import ENGINE_ROUTES, Dialect, Task


def _engine(name: str, task: Task, dialect: Dialect, **more: object) -> Route:
    path = ENGINE_ROUTES[task, dialect].path
    return Route(name, "POST", path, dialect, Answered.ENGINE, task=task, **more)  # type: ignore[arg-type]


def _ollama(name: str, task: Task, **more: object) -> Route:
    return _engine(name, task, Dialect.OLLAMA, **more)


def _openai(name: str, task: Task, **more: object) -> Route:
    return _engine(name, task, Dialect.OPENAI, **more)


def _listing(name: str, path: str, dialect: Dialect, right: Right = Right.INFER, *, takes_head: bool = False) -> Route:
    return Route(name, "GET", path, dialect, Answered.SURFACE, right, takes_head=takes_head)


def _later(name: str, method: str, path: str, right: Right) -> Route:
    return Route(name, method, path, Dialect.OLLAMA, Answered.LATER, right)


ROOT = _listing("root", "/", Dialect.OLLAMA, Right.NONE, takes_head=True)
TAGS = _listing("tags", "/api/tags", Dialect.OLLAMA, takes_head=True)
PS = _listing("ps", "/api/ps", Dialect.OLLAMA)
VERSION = _listing("version", "/api/version", Dialect.OLLAMA, takes_head=True)
MODELS = _listing("models", "/v1/models", Dialect.OPENAI)
MODEL = _listing("model", "/v1/models/", Dialect.OPENAI)
_GENERATE = _ollama("generate", tasks.COMPLETE, unnamed_is_unknown=True)
_CHAT = _ollama("chat", tasks.CHAT)

MAIN_ROUTES = RouteTable(
    (
        _GENERATE,
        _CHAT,
        _ollama("show", tasks.SHOW, reads_name=True),
        _ollama("embed", tasks.EMBED, quotes_model=True, unnamed_is_unknown=True),
        _ollama("embeddings", tasks.EMBED_ONE, quotes_model=True),
        _openai("v1_chat", tasks.CHAT),
        _openai("v1_completions", tasks.COMPLETE, unnamed_is_unknown=True),
        _openai("v1_embeddings", tasks.EMBED, quotes_model=True, unnamed_is_unknown=True),
        _engine("v1_responses", tasks.CHAT, Dialect.RESPONSES),
        _engine("v1_messages", tasks.CHAT, Dialect.ANTHROPIC),
        _engine("v1_count_tokens", tasks.COUNT_TOKENS, Dialect.ANTHROPIC),
        _openai("v1_transcriptions", tasks.TRANSCRIBE, form=BodyForm.MULTIPART),
        _openai("v1_translations", tasks.TRANSLATE_SPEECH, form=BodyForm.MULTIPART),
        _openai("v1_speech", tasks.SPEAK),
        _openai("v1_rerank", tasks.RERANK),
        ROOT,
        TAGS,
        PS,
        VERSION,
        MODELS,
        MODEL,
        _later("pull", "POST", "/api/pull", Right.MANAGE),
        _later("push", "POST", "/api/push", Right.MANAGE),
        _later("create", "POST", "/api/create", Right.MANAGE),
        _later("copy", "POST", "/api/copy", Right.MANAGE),
        _later("delete", "DELETE", "/api/delete", Right.MANAGE),
        _later("blob_head", "HEAD", "/api/blobs/", Right.MANAGE),
        _later("blob_post", "POST", "/api/blobs/", Right.MANAGE),
        _later("status", "GET", "/api/status", Right.INFER),
        _later("me", "POST", "/api/me", Right.INFER),
        _later("signout", "POST", "/api/signout", Right.ADMIN),
        _later("recommendations", "GET", "/api/experimental/model-recommendations", Right.INFER),
        _later("web_search", "POST", "/api/experimental/web_search", Right.INFER),
        _later("web_fetch", "POST", "/api/experimental/web_fetch", Right.INFER),
        Route("v1_responses_socket", "GET", "/v1/responses", Dialect.RESPONSES, Answered.UPGRADE),
    ),
    aliases={"/generate": _GENERATE, "/chat": _CHAT},
)
"""The aliases are for an old client, which leaves out `/api`."""
