"""The closed table of routes: what is in it, what is not, and by which right."""

from __future__ import annotations

import pytest

from hive.auth.keys import Right
from hive.dialects.operations import (
    OPERATIONS,
    Answered,
    BodyForm,
    Dialect,
    Operation,
    dialect_of,
    methods_of,
)

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


@pytest.mark.parametrize(("path", "dialect"), INFERENCE.items())
def test_inference_is_a_post_that_an_engine_answers(path: str, dialect: Dialect) -> None:
    operation = methods_of(path)["POST"]
    assert (operation.answered, operation.right, operation.path) == (Answered.ENGINE, Right.INFER, path)
    assert operation.dialect is dialect


@pytest.mark.parametrize("path", FROM_MEMORY)
def test_listings_are_answered_from_memory(path: str) -> None:
    assert methods_of(path)["GET"].answered is Answered.CATALOG


def test_head_is_known_where_ollama_knows_it() -> None:
    assert [path for path in FROM_MEMORY if "HEAD" in methods_of(path)] == ["/api/tags", "/api/version", "/"]


@pytest.mark.parametrize(("method", "path"), MANAGE)
def test_changing_models_needs_the_right_to_manage(method: str, path: str) -> None:
    assert methods_of(path)[method].right is Right.MANAGE


@pytest.mark.parametrize("path", ["/hive/v1/keys", "/hive/v1/keys/name", "/metrics"])
def test_management_and_metrics_need_the_right_to_all(path: str) -> None:
    assert {operation.right for operation in methods_of(path).values()} == {Right.ADMIN}


def test_joining_needs_the_right_to_work() -> None:
    assert methods_of("/hive/link")["GET"].right is Right.WORK


def test_only_the_root_and_the_health_pages_are_open() -> None:
    open_paths = {operation.path for operation in OPERATIONS if operation.right is Right.NONE}
    assert open_paths == {"/", "/healthz", "/readyz"}


def test_metrics_are_open_to_a_local_request_and_nothing_else_is() -> None:
    assert [operation.name for operation in OPERATIONS if operation.locally_open] == ["metrics"]


def test_an_old_client_leaves_api_out() -> None:
    assert methods_of("/generate") == {"POST": methods_of("/api/generate")["POST"]}
    assert methods_of("/chat")["POST"].path == "/api/chat"


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
def test_what_is_not_in_the_table_has_no_operation(path: str) -> None:
    assert methods_of(path) == {}


def test_names_are_unique_labels_and_paths_literals() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)
    assert all(operation.path.startswith("/") and "?" not in operation.path for operation in OPERATIONS)


def by_name(name: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.name == name)


def test_show_passes_a_busy_node_and_counting_tokens_too() -> None:
    assert not by_name("show").takes_slot
    assert not methods_of("/v1/messages/count_tokens")["POST"].takes_slot
    assert all(by_name(name).takes_slot for name in ("generate", "chat", "embed", "v1_chat", "v1_messages"))


def test_only_show_may_name_its_model_name() -> None:
    assert [operation.name for operation in OPERATIONS if operation.reads_name] == ["show"]


def test_audio_comes_as_a_form() -> None:
    forms = {operation.path for operation in OPERATIONS if operation.form is BodyForm.MULTIPART}
    assert forms == {"/v1/audio/transcriptions", "/v1/audio/translations"}


def test_a_web_socket_for_responses_is_told_to_use_post() -> None:
    assert methods_of("/v1/responses")["GET"].answered is Answered.UPGRADE


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        *INFERENCE.items(),
        ("/api/nothing", Dialect.OLLAMA),
        ("/nothing", Dialect.OLLAMA),
        ("/v1/nothing", Dialect.OPENAI),
        ("/v1/models/m", Dialect.OPENAI),
        ("/v1/messages/batches", Dialect.ANTHROPIC),
        ("/hive/v1/keys", Dialect.HIVE),
        ("/hive/nothing", Dialect.HIVE),
        ("/healthz", Dialect.HIVE),
    ],
)
def test_a_path_tells_the_shape_of_its_errors(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect
