"""Ollama's routes about models: what is listed, fetched, copied, deleted and uploaded."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from hive.testing import SimOptions, run_in_thread

from .desks import lines, make_desk, refused, reply, shown

ASK = {"model": "tiny", "prompt": "hello"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def names(desk: object) -> list[str]:
    return [model["name"] for model in shown(desk, "/api/tags")["models"]]  # type: ignore[attr-defined,arg-type]


def test_the_lists_show_what_is_loaded(client_of: type) -> None:
    with run_in_thread(SimOptions(models=("tiny", "other"))) as engine:
        client = client_of(engine)
        assert [model["name"] for model in client.ask("/api/tags").json()["models"]] == [
            "tiny:latest",
            "other:latest",
        ]
        assert client.ask("/api/ps").json() == {"models": []}
        assert client.ask("/api/generate", {"model": "other"}).json()["done_reason"] == "load"
        loaded = client.ask("/api/ps").json()["models"]
        tags = {model["name"]: model["digest"] for model in client.ask("/api/tags").json()["models"]}
        assert [(model["name"], model["digest"]) for model in loaded] == [("other:latest", tags["other:latest"])]
        assert client.ask("/api/generate", {"model": "other", "keep_alive": 0}).json()["done_reason"] == "unload"
        assert client.ask("/api/ps").json() == {"models": []}
        assert engine.state().loads == 1


def test_a_pulled_model_appears_and_a_deleted_one_goes(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask("/api/pull", {"name": "new"}).lines()[-1] == {"status": "success"}
        assert client.ask("/api/chat", CHAT | {"model": "new", "stream": False}).status == 200
        assert client.ask("/api/delete", {"model": "new"}, "DELETE").status == 200
        assert client.ask("/api/chat", CHAT | {"model": "new"}).json() == {"error": "model 'new' not found"}
        assert "error" in client.ask("/api/pull", {"name": "missing-one"}).lines()[-1]


def test_a_blob_is_known_after_its_upload_and_then_answered_before_its_body(
    client_of: type, read_all: Callable
) -> None:
    path = "/api/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask(path, method="HEAD").status == 404
        assert client.ask(path, b"hullo").status == 400
        assert client.ask(path, b"hello").status == 201
        assert client.ask(path, method="HEAD").status == 200
        with socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
            link.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: 5\r\n\r\n".encode())
            assert read_all(link).startswith(b"HTTP/1.1 200 OK\r\n")


def test_show_tells_family_context_and_abilities() -> None:
    found = shown(make_desk("nomic-embed", context_length=99), "/api/show", {"model": "nomic-embed"})
    assert found["capabilities"] == ["embedding"]
    assert found["model_info"]["bert.context_length"] == 99  # type: ignore[index]


def test_a_pull_tells_its_progress_up_to_the_size_and_ends_with_success() -> None:
    desk = make_desk()
    told = lines(desk, "/api/pull", {"model": "new"})
    counted = [line["completed"] for line in told if "completed" in line]
    assert counted == sorted(counted)
    assert counted[-1] == next(line["total"] for line in told if "total" in line)
    assert (told[0]["status"], told[-1]["status"]) == ("pulling manifest", "success")
    assert "new:latest" in names(desk)


@pytest.mark.parametrize("path", ["/api/pull", "/api/create", "/api/push"])
def test_a_client_that_wants_no_stream_gets_the_last_line_alone(path: str) -> None:
    assert shown(make_desk(), path, {"model": "tiny", "stream": False}) == {"status": "success"}


def test_a_pull_of_what_is_in_no_registry_ends_in_an_error() -> None:
    desk = make_desk()
    text = "pull model manifest: file does not exist"
    assert lines(desk, "/api/pull", {"model": "missing-one"})[-1] == {"error": text}
    assert refused(desk, "/api/pull", {"model": "hub.example/me/no-such", "stream": False}) == (500, text)
    assert names(desk) == ["tiny:latest"]


@pytest.mark.parametrize("path", ["/api/pull", "/api/create"])
def test_a_model_needs_a_name_that_can_be_one(path: str) -> None:
    assert refused(make_desk(), path, {"model": "bad name"}) == (400, "invalid model name")


def test_only_a_model_that_is_there_is_pushed() -> None:
    assert refused(make_desk(), "/api/push", {"model": "other"})[0] == 404


def test_a_copy_is_listed_beside_its_source() -> None:
    desk = make_desk()
    assert reply(desk, "/api/copy", {"source": "tiny", "destination": "mine"}).status == 200
    assert sorted(names(desk)) == ["mine:latest", "tiny:latest"]


@pytest.mark.parametrize(
    ("source", "destination", "error"),
    [
        ("bad name", "mine", (400, 'source "bad name" is invalid')),
        ("tiny", "", (400, 'destination "" is invalid')),
        ("other", "mine", (404, 'model "other" not found')),
    ],
)
def test_a_copy_that_cannot_be_is_refused(source: str, destination: str, error: tuple[int, str]) -> None:
    assert refused(make_desk(), "/api/copy", {"source": source, "destination": destination}) == error


@pytest.mark.parametrize(("name", "status"), [("other", 404), ("bad name", 400)])
def test_only_a_model_that_is_there_is_deleted(name: str, status: int) -> None:
    desk = make_desk()
    assert refused(desk, "/api/delete", {"model": name}, "DELETE")[0] == status
    assert names(desk) == ["tiny:latest"]


def test_digests_can_be_made_wrong_in_the_lists() -> None:
    desk = make_desk()
    right = shown(desk, "/api/tags")["models"][0]["digest"]  # type: ignore[index]
    desk.has_wrong_digests = True
    assert shown(desk, "/api/tags")["models"][0]["digest"] != right  # type: ignore[index]
