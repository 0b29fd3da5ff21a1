"""The routes of the main surface: which there are, which there are not, and by which right."""

from __future__ import annotations

import pytest

from hive.auth.keys import Right
from hive.dialects.routes import Answered, BodyForm, Route
from hive.dialects.tasks import Dialect
from hive.surfaces.main.main_routes import MAIN_ROUTES

INFERENCE = {
    "/api/generate": Dialect.OLLAMA,
    "/api/chat": Dialect.OLLAMA,
    "/api/embed": Dialect.OLLAMA,
    "/api/embeddings": Dialect.OLLAMA,
    "/api/show": Dialect.OLLAMA,
    "/v1/chat/completions": Dialect.OPENAI,
    "/v1/completions": Dialect.OPENAI,
    "/v1/embeddings": Dialect.OPENAI,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/messages": Dialect.ANTHROPIC,
    "/v1/messages/count_tokens": Dialect.ANTHROPIC,
    "/v1/audio/transcriptions": Dialect.OPENAI,
}
FROM_MEMORY = ["/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/m", "/v1/models/ns/m:tag", "/"]
MANAGE = [
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("HEAD", "/api/blobs/sha256:00"),
    ("POST", "/api/blobs/sha256:00"),
]


def by_name(name: str) -> Route:
    (found,) = (route for route in MAIN_ROUTES.routes if route.name == name)
    return found


def takes_slot(name: str) -> bool:
    task = by_name(name).task
    assert task is not None
    return task.takes_slot


@pytest.mark.parametrize(("path", "dialect"), INFERENCE.items())
def test_inference_is_a_post_that_an_engine_answers(path: str, dialect: Dialect) -> None:
    route = MAIN_ROUTES.find(path)["POST"]
    assert (route.answered, route.right, route.path) == (Answered.ENGINE, Right.INFER, path)
    assert route.dialect is dialect
    assert route.task is not None


@pytest.mark.parametrize("path", FROM_MEMORY)
def test_the_surface_answers_listings_itself(path: str) -> None:
    assert MAIN_ROUTES.find(path)["GET"].answered is Answered.SURFACE


def test_head_is_known_where_ollama_knows_it() -> None:
    assert [path for path in FROM_MEMORY if "HEAD" in MAIN_ROUTES.find(path)] == ["/api/tags", "/api/version", "/"]


@pytest.mark.parametrize(("method", "path"), MANAGE)
def test_a_change_of_models_needs_the_right_to_manage(method: str, path: str) -> None:
    assert MAIN_ROUTES.find(path)[method].right is Right.MANAGE


def test_only_the_root_is_open() -> None:
    assert {route.path for route in MAIN_ROUTES.routes if route.right is Right.NONE} == {"/"}


def test_an_old_client_leaves_api_out() -> None:
    assert MAIN_ROUTES.find("/generate") == {"POST": MAIN_ROUTES.find("/api/generate")["POST"]}
    assert MAIN_ROUTES.find("/chat")["POST"].path == "/api/chat"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/debug/pprof/",
        "/slots",
        "/props",
        "/completion",
        "/infill",
        "/models/load",
        "/v1/models/",
        "/api/blobs/",
        "/hive/v1/",
        "/hive/v1/keys",
        "/metrics",
        "/api",
        "/api/chat/",
        "/API/chat",
        "/api//chat",
        "/api/chat?x",
        "//api/chat",
        "/api/../api/chat",
        "",
        "/v1/chat",
        "/v1/files",
        "/k/hk_abc/api/chat",
    ],
)
def test_a_path_that_is_not_in_the_table_has_no_route(path: str) -> None:
    assert MAIN_ROUTES.find(path) == {}


def test_names_are_unique_labels_and_paths_are_literals() -> None:
    names = [route.name for route in MAIN_ROUTES.routes]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)
    assert all(route.path.startswith("/") and "?" not in route.path for route in MAIN_ROUTES.routes)


def test_show_and_a_count_of_tokens_pass_a_busy_node() -> None:
    assert not takes_slot("show")
    assert not takes_slot("v1_count_tokens")
    assert all(takes_slot(name) for name in ("generate", "chat", "embed", "v1_chat", "v1_messages"))


def test_only_show_may_name_its_model_name() -> None:
    assert [route.name for route in MAIN_ROUTES.routes if route.reads_name] == ["show"]


def test_audio_comes_as_a_form() -> None:
    forms = {route.path for route in MAIN_ROUTES.routes if route.form is BodyForm.MULTIPART}
    assert forms == {"/v1/audio/transcriptions", "/v1/audio/translations"}


def test_a_web_socket_for_responses_is_told_to_use_post() -> None:
    assert MAIN_ROUTES.find("/v1/responses")["GET"].answered is Answered.UPGRADE
