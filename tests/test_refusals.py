"""The hub refuses as Ollama 0.33 does, route by route, whatever Ollama is behind it."""

from __future__ import annotations

import pytest

from hive.testing.hub import ThreadedHub

from . import refusals
from .real.answers import described_error, dialect_of, is_error_of
from .real.wire import Answer, ask
from .refusals import BAD_BODIES, BAD_NAMES, BODIES, ROUTES, UNKNOWN_NAMES


def send(hub: ThreadedHub, path: str, **more: object) -> Answer:
    return ask(hub.url, "POST", path, {**more, **BODIES[path]})


@pytest.mark.parametrize("path", ROUTES)
def test_request_without_a_model(path: str, shared_hub: ThreadedHub) -> None:
    assert described_error(send(shared_hub, path)) == refusals.without_model(path)
    assert described_error(send(shared_hub, path, model="")) == refusals.without_model(path)


@pytest.mark.parametrize("name", UNKNOWN_NAMES)
@pytest.mark.parametrize("path", ROUTES)
def test_unknown_model(path: str, name: str, shared_hub: ThreadedHub) -> None:
    expected = refusals.unknown_model(path, name)
    assert described_error(send(shared_hub, path, model=name)) == expected
    assert described_error(send(shared_hub, path, model=name, stream=True)) == expected


@pytest.mark.parametrize("name", ["nope", "Nope:1"])
def test_unknown_model_in_the_path(name: str, shared_hub: ThreadedHub) -> None:
    answer = ask(shared_hub.url, "GET", f"/v1/models/{name}")
    assert described_error(answer) == refusals.unknown_model("/v1/models", name)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
@pytest.mark.parametrize("path", ROUTES)
def test_bad_name(path: str, name: str, shared_hub: ThreadedHub) -> None:
    assert described_error(send(shared_hub, path, model=name)) == refusals.bad_name(path)


@pytest.mark.parametrize("path", ROUTES)
def test_empty_body(path: str, shared_hub: ThreadedHub) -> None:
    assert described_error(ask(shared_hub.url, "POST", path, b"")) == refusals.empty_body(path)


@pytest.mark.parametrize("body", BAD_BODIES, ids=repr)
@pytest.mark.parametrize("path", ROUTES)
def test_bad_json(path: str, body: bytes, shared_hub: ThreadedHub) -> None:
    answer = ask(shared_hub.url, "POST", path, body)
    assert answer.status == 400
    assert is_error_of(dialect_of(path), answer), answer


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ROUTES)
def test_wrong_method(path: str, method: str, shared_hub: ThreadedHub) -> None:
    answer = ask(shared_hub.url, method, path)
    assert described_error(answer) == (405, "text/plain", "405 method not allowed")
    assert answer.header("Allow") == "POST"
