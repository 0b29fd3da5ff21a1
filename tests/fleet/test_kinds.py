"""What follows from the kind and the version of an engine: its routes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.dialects.tasks import ENGINE_ROUTES, Dialect, Task
from hive.fleet.engines import Engine, Fleet
from hive.fleet.kinds import EngineKind, version_numbers
from hive.fleet.known import EngineReport, LoadedModel, Model


def model(key: str, *, digest: str = "d", modified_at: str = "2026-01-01T00:00:00Z") -> Model:
    return Model(key, key, digest, 1, modified_at, b"{}", b"{}")


def report(
    *keys: str,
    kind: EngineKind = EngineKind.OLLAMA,
    version: str = "0.33.0",
    loaded: tuple[str, ...] = (),
    slots: int | None = None,
) -> EngineReport:
    models = tuple(model(key) for key in keys)
    return EngineReport(kind, version, models, tuple(LoadedModel(key, "", b"{}") for key in loaded), slots)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("0.33.0-rc2", (0, 33, 0)),
        ("0.9.3", (0, 9, 3)),
        ("0.13.3+build.7", (0, 13, 3)),
        ("1", (1,)),
        ("0.10.x", (0, 10)),
        ("b11434", ()),
        ("", ()),
        ("dev", ()),
        ("0.²", (0,)),
        ("0.99999999999999999999", (0, 999999999)),
    ],
)
def test_versions_are_read_by_their_leading_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers


@given(st.text(max_size=20))
@settings(deadline=None, max_examples=100)
def test_any_version_can_be_read(version: str) -> None:
    assert all(number >= 0 for number in version_numbers(version))


def has(engine: Engine, path: str) -> bool:
    """Has the engine a route of its own at this path?"""
    asked: list[tuple[Task, Dialect]] = [key for key, route in ENGINE_ROUTES.items() if route.path == path]
    (key,) = asked
    route = engine.route_for(*key)
    assert route is None or route.path == path
    return route is not None


@pytest.mark.parametrize(
    ("path", "before", "since"),
    [
        ("/v1/responses", "0.13.2", "0.13.3"),
        ("/v1/messages", "0.13.9", "0.14.0"),
        ("/v1/audio/transcriptions", "0.19.5", "0.20.0"),
    ],
)
def test_an_ollama_serves_a_route_since_the_release_that_brought_it(path: str, before: str, since: str) -> None:
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])
    for version, serves in ((before, False), (since, True), (since + "-rc1", True), ("0.33.0-rc2", True), ("", True)):
        fleet.learn(engine, report("m", version=version))
        assert has(engine, path) is serves


@pytest.mark.parametrize(
    "path", ["/v1/messages/count_tokens", "/v1/audio/speech", "/v1/audio/translations", "/v1/rerank"]
)
def test_an_ollama_never_had_these_routes(path: str) -> None:
    engine = Engine("a", "http://a")
    Fleet([engine]).learn(engine, report("m"))
    assert not has(engine, path)


@pytest.mark.parametrize("kind", [EngineKind.LLAMA_CPP, EngineKind.VLLM, EngineKind.OPENAI])
def test_other_kinds_serve_v1_and_none_of_ollamas_own_routes(kind: EngineKind) -> None:
    engine = Engine("a", "http://a")
    Fleet([engine]).learn(engine, report("m", kind=kind, version=""))
    assert has(engine, "/v1/chat/completions")
    assert has(engine, "/v1/messages")
    assert not has(engine, "/api/chat")
