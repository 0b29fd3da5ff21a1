"""What a kind and a version say of an engine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.dialects.tasks import ENGINE_ROUTES, Dialect
from hive.fleet.kinds import EngineKind, routes_of, usual_slots, version_numbers

OTHERS = [kind for kind in EngineKind if kind is not EngineKind.OLLAMA]
NEVER = {"/v1/messages/count_tokens", "/v1/audio/translations", "/v1/audio/speech", "/v1/rerank"}


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


@pytest.mark.parametrize(
    ("version", "lacking"),
    [
        ("0.9.3", {"/v1/responses", "/v1/messages", "/v1/audio/transcriptions"}),
        ("0.13.3", {"/v1/messages", "/v1/audio/transcriptions"}),
        ("0.14.0-rc1", {"/v1/audio/transcriptions"}),
        ("0.20.0", set()),
        ("unreadable", set()),
    ],
)
def test_an_ollama_lacks_the_routes_of_later_releases_and_some_for_ever(version: str, lacking: set[str]) -> None:
    paths = {route.path for route in routes_of(EngineKind.OLLAMA, version).values()}
    assert {route.path for route in ENGINE_ROUTES.values()} - paths == NEVER | lacking


@pytest.mark.parametrize("kind", OTHERS)
def test_the_other_kinds_have_every_route_but_ollamas_own(kind: EngineKind) -> None:
    found = routes_of(kind, "0.0.1")
    assert found == {key: route for key, route in ENGINE_ROUTES.items() if key[1] is not Dialect.OLLAMA}


@pytest.mark.parametrize(
    ("version", "slots"), [("0.9.6", (4, 4)), ("0.10.0", (1, 4)), ("0.33.0", (1, 4)), ("unreadable", (1, 4))]
)
def test_an_ollama_runs_one_request_of_a_model_at_a_time_since_0_10(version: str, slots: tuple[int, int]) -> None:
    assert usual_slots(EngineKind.OLLAMA, version) == slots


@pytest.mark.parametrize(
    ("kind", "slots"),
    [(EngineKind.LLAMA_CPP, 4), (EngineKind.VLLM, 32), (EngineKind.OPENAI, 8), (EngineKind.UNKNOWN, 8)],
)
def test_the_other_kinds_have_their_usual_slots_from_the_first_to_the_last(kind: EngineKind, slots: int) -> None:
    assert usual_slots(kind, "0.9.6") == (slots, slots)
