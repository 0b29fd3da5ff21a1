"""Official clients and frameworks, unchanged, with a hub where they expect an Ollama or OpenAI."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from .clients import run
from .hub import IS_DIRECT, Direct, Hub
from .installed import ALL_MODELS, NEWEST_OLLAMA, OLLAMAS, Fleet, has_route, version_of

pytestmark = pytest.mark.engines

SCRIPTED = "Grüße aus Köln — 世界 🌍 ok."
"""What tiny-utf8 says, whatever it is asked."""
THOUGHT = "The user greets me. I will be short."
AFTER_THOUGHT = "Hello, world! Grüße, 世界 🌍. Done."
WEATHER_CALL = ["get_weather", {"city": "Paris", "unit": "celsius"}]
NAMES = sorted(f"{name}:latest" for name in ALL_MODELS)
NOT_FOUND = [404, "model 'nope' not found"]
"""What 0.33 says, and so what the hub says over any engine."""
NOT_SERVED = "InternalServerError: Error code: 501 - no engine with this model serves /v1/responses (it is on ollama)"
"""What the hub says where only an older Ollama has the model."""

OLLAMA_PYTHON = {
    "chat": SCRIPTED,
    "chat_stream": [SCRIPTED, True, "stop", True],
    "chat_tools": WEATHER_CALL,
    "chat_think": [THOUGHT, AFTER_THOUGHT],
    "generate": SCRIPTED,
    "generate_stream": SCRIPTED,
    "embed": [64, 64],
    "embeddings": 64,
    "show": ["completion", "thinking", "tools"],
    "list_models": [[name, 64] for name in NAMES],
    "ps": True,
    "async_chat": SCRIPTED,
    "async_streams": [SCRIPTED],
    "missing_model": NOT_FOUND,
    "missing_model_stream": NOT_FOUND,
}
OLLAMA_JAVASCRIPT = {
    "list_models": NAMES,
    "chat": SCRIPTED,
    "chat_stream": SCRIPTED,
    "generate_stream": SCRIPTED,
    "embed": [64, 64],
    "show": ["completion", "thinking", "tools"],
    "version": "0.33",
    "missing_model": NOT_FOUND,
}
OPENAI = {
    "chat": [SCRIPTED, "stop"],
    "chat_stream": [SCRIPTED, "stop", True],
    "chat_tools": ["get_weather", ['"city":"Paris"', '"unit":"celsius"']],
    "completions": 4,
    "embeddings": [64, True],
    "models_list": sorted(ALL_MODELS),
    "models_retrieve": "tiny-utf8",
    "responses": SCRIPTED,
    "responses_stream": ["response.created", "response.completed", SCRIPTED],
    "missing_model": NOT_FOUND,
    "missing_model_retrieve": [404, "not_found_error"],
}
if not has_route(NEWEST_OLLAMA, "/v1/responses"):
    OPENAI_OVER_OLLAMA = {**OPENAI, "responses": NOT_SERVED, "responses_stream": NOT_SERVED}
else:
    OPENAI_OVER_OLLAMA = OPENAI
LANGCHAIN = {
    "invoke": SCRIPTED,
    "stream": SCRIPTED,
    "validated": SCRIPTED,
    "tools": WEATHER_CALL,
    "embed_query": 64,
    "embed_documents": [64, 64],
}
LLAMA_INDEX = {
    "complete": SCRIPTED,
    "stream_complete": SCRIPTED,
    "chat": SCRIPTED,
    "stream_chat": SCRIPTED,
}


@pytest.fixture(scope="module")
def results(
    fleets: Callable[[str], Fleet],
    hub_over: Callable[..., Hub | Direct],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], dict[str, Any]]:
    """Return a function from script and kind of engine to the script's results; each pair is run once."""
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def results_of(script: str, kind: str) -> dict[str, Any]:
        if (script, kind) not in known:
            hub = hub_over(fleets(kind))
            known[script, kind] = run(script, {"HIVE_TEST_URL": hub.url}, tmp_path_factory.mktemp("client"))
        return known[script, kind]

    return results_of


Results = Callable[[str, str], dict[str, Any]]


def comparable(checks: Iterable[str], kind: str = NEWEST_OLLAMA) -> list[str]:
    """Return the checks whose result is known: an older Ollama that stands in the hub's place has words of its own."""
    if not IS_DIRECT or version_of(kind) >= (0, 33):
        return list(checks)
    return [check for check in checks if not check.startswith(("missing", "responses", "version"))]


def over_each_ollama(checks: Iterable[str]) -> list[ParameterSet]:
    """Return each kind of Ollama with each check, as parameters; long over the older ones."""
    return [
        pytest.param(kind, check, marks=() if kind == NEWEST_OLLAMA else pytest.mark.long)
        for kind in OLLAMAS
        for check in comparable(checks, kind)
    ]


@pytest.mark.parametrize(("kind", "check"), over_each_ollama(OLLAMA_PYTHON))
def test_ollama_python(kind: str, check: str, results: Results) -> None:
    assert results("ollama_python.py", kind)[check] == OLLAMA_PYTHON[check]


@pytest.mark.parametrize("check", comparable(OLLAMA_JAVASCRIPT))
def test_ollama_javascript(check: str, results: Results) -> None:
    assert results("ollama_javascript.mjs", NEWEST_OLLAMA)[check] == OLLAMA_JAVASCRIPT[check]


@pytest.mark.parametrize("check", comparable(OPENAI))
def test_openai(check: str, results: Results) -> None:
    assert results("openai_python.py", NEWEST_OLLAMA)[check] == OPENAI_OVER_OLLAMA[check]


@pytest.mark.long
@pytest.mark.parametrize("check", OPENAI)
def test_openai_over_llama_cpp(check: str, results: Results) -> None:
    if IS_DIRECT:
        pytest.skip("a llama.cpp server has one model only, and takes any name for it")
    seen = results("openai_python.py", "llama-server")[check]
    expected = OPENAI[check]
    if check == "models_list":
        expected = sorted([*ALL_MODELS, "tiny-rerank"])
    if check == "models_retrieve":
        seen = seen.removesuffix(":latest")
    assert seen == expected


@pytest.mark.parametrize("check", LANGCHAIN)
def test_langchain(check: str, results: Results) -> None:
    assert results("langchain_ollama_classes.py", NEWEST_OLLAMA)[check] == LANGCHAIN[check]


@pytest.mark.parametrize("check", LLAMA_INDEX)
def test_llama_index(check: str, results: Results) -> None:
    assert results("llama_index_ollama.py", NEWEST_OLLAMA)[check] == LLAMA_INDEX[check]


@pytest.fixture(scope="module")
def keyed_hub(fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct]) -> tuple[str, str]:
    """The URL of a hub that demands keys even of its own machine, and a client key."""
    hub = hub_over(fleets(NEWEST_OLLAMA), HIVE_LOCAL_ACCESS="off")
    if isinstance(hub, Direct):
        pytest.skip("an Ollama knows no keys")
    return hub.url, hub.create_key("library")


def test_ollama_python_with_a_key(keyed_hub: tuple[str, str], tmp_path: pathlib.Path) -> None:
    url, key = keyed_hub
    env = {"HIVE_TEST_URL": url, "OLLAMA_API_KEY": key}
    assert run("ollama_python.py", env, tmp_path) == OLLAMA_PYTHON


@pytest.mark.long
def test_ollama_javascript_with_a_key(keyed_hub: tuple[str, str], tmp_path: pathlib.Path) -> None:
    url, key = keyed_hub
    env = {"HIVE_TEST_URL": url, "OLLAMA_API_KEY": key}
    assert run("ollama_javascript.mjs", env, tmp_path) == OLLAMA_JAVASCRIPT


def test_openai_with_a_key_and_with_a_wrong_one(keyed_hub: tuple[str, str], tmp_path: pathlib.Path) -> None:
    url, key = keyed_hub
    env = {"HIVE_TEST_URL": url, "HIVE_TEST_KEY": key}
    assert run("openai_python.py", env, tmp_path) == {**OPENAI_OVER_OLLAMA, "bad_key": [401, "false"]}
