"""The main surface: its listings come from memory, and what it does not own is told as Ollama tells it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hive.dialects.routes import Methods
from hive.dialects.tasks import Dialect
from hive.errors import METHOD_NOT_ALLOWED, NOT_FOUND, Fault
from hive.surfaces.main.main_routes import MAIN_ROUTES
from hive.surfaces.main.main_surface import answer_unknown, dialect_of
from hive.surfaces.surface import Redirect
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.requests import RequestHead

from ...raw import ask, get


def unknown(path: str, method: str = "GET", *, methods: Methods | None = None, query: str = "") -> Redirect:
    """Return what is said of a path that has no route for this method."""
    head = RequestHead(method, path, query, True, {})
    return answer_unknown(head, methods or {}, MAIN_ROUTES.find)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/api/x", Dialect.OLLAMA),
        ("/x", Dialect.OLLAMA),
        ("/v1/x", Dialect.OPENAI),
        ("/v1/messages/x", Dialect.ANTHROPIC),
    ],
)
def test_the_dialect_of_an_error_follows_from_the_path(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


def test_a_path_that_no_route_has_is_not_found() -> None:
    with pytest.raises(Fault) as raised:
        unknown("/nowhere")
    assert raised.value.kind is NOT_FOUND


def test_a_method_that_the_path_has_not_is_told_with_those_that_it_has() -> None:
    with pytest.raises(Fault) as raised:
        unknown("/api/tags", "DELETE", methods=MAIN_ROUTES.find("/api/tags"))
    assert raised.value.kind is METHOD_NOT_ALLOWED
    assert dict(raised.value.headers)["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("method", "path", "redirect"),
    [
        ("GET", "/api/tags/", Redirect(301, "/api/tags?x=1")),
        ("GET", "//api/tags", Redirect(307, "/api/tags?x=1")),
        ("POST", "/api/chat/", Redirect(307, "/api/chat?x=1")),
    ],
)
def test_a_path_that_differs_by_slashes_leads_to_the_route(method: str, path: str, redirect: Redirect) -> None:
    assert unknown(path, method, query="x=1") == redirect


def test_a_path_with_a_key_in_it_leads_nowhere() -> None:
    head = RequestHead("GET", "/api/tags/", "", True, {}, path_key=b"secret")
    with pytest.raises(Fault):
        answer_unknown(head, {}, MAIN_ROUTES.find)


@pytest.fixture(scope="module")
def hub(shared_engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    with run_hub({"a": shared_engine.url}) as hub:
        yield hub


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models", "/v1/models/tiny", "/api/version", "/"])
def test_listings_are_answered_from_memory(hub: ThreadedHub, shared_engine: ThreadedEngine, path: str) -> None:
    assert ask(hub.port, get(path, "X-Test: a listing\r\n")).status == 200
    assert all(("X-Test", "a listing") not in seen.headers for seen in shared_engine.state().requests)


@pytest.mark.parametrize("name", ["other-than-any", "m" * 10_000])
def test_a_model_that_no_engine_has_is_not_found(hub: ThreadedHub, name: str) -> None:
    assert ask(hub.port, get(f"/v1/models/{name}")).status == 404


def test_a_name_may_be_escaped(hub: ThreadedHub) -> None:
    assert ask(hub.port, get("/v1/models/tiny%3Alatest")).status == 200
