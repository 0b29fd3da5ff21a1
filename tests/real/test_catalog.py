"""What the hub tells of its fleet, against what each engine tells of itself."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import installed
from .answers import described
from .hub import Direct, Hub, as_one, over_each_link, wait_for
from .installed import ALL_MODELS, EACH_LLAMA, EACH_OLLAMA, NEWEST_OLLAMA, OLDEST_OLLAMA, Fleet
from .wire import Answer, ask

pytestmark = pytest.mark.engines

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(params=as_one(over_each_link(*EACH_OLLAMA)))
def pair(
    request: pytest.FixtureRequest, fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct]
) -> tuple[str, str]:
    """The URLs of the hub over one Ollama, and of that Ollama."""
    kind, link = request.param
    fleet = fleets(kind)
    return hub_over(fleet, link=link).url, fleet.url_of("tiny-babble")


def entries(url: str, path: str) -> dict[str, dict[str, Any]]:
    """Return the models of a listing by name; each name must stand there once."""
    document = ask(url, "GET", path).json()
    rows = document["data"] if path == "/v1/models" else document["models"]
    by_name = {row["id" if path == "/v1/models" else "name"]: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_of_the_answer_is_ollamas(method: str, path: str, pair: tuple[str, str]) -> None:
    hub, engine = pair
    through, direct = ask(hub, method, path), ask(engine, method, path)
    assert described(through)[:2] == described(direct)[:2]
    if path == "/":
        assert described(through) == described(direct)


def test_version_names_the_api_the_hub_speaks(pair: tuple[str, str], request: pytest.FixtureRequest) -> None:
    hub, engine = pair
    answer = ask(hub, "GET", "/api/version")
    if hub != engine:
        assert answer.body == b'{"version":"0.33.0"}'
    assert list(answer.json()) == list(ask(engine, "GET", "/api/version").json())


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models"])
def test_listing_has_the_engines_entries_whole(path: str, pair: tuple[str, str]) -> None:
    hub, engine = pair
    assert entries(hub, path) == entries(engine, path)
    through, direct = ask(hub, "GET", path), ask(engine, "GET", path)
    assert described(through)[:2] == described(direct)[:2]


def test_newest_model_comes_first(pair: tuple[str, str]) -> None:
    hub, _ = pair
    times = [row["modified_at"] for row in ask(hub, "GET", "/api/tags").json()["models"]]
    parsed = [datetime.datetime.fromisoformat(time).replace(microsecond=0) for time in times]
    assert parsed == sorted(parsed, reverse=True)


@pytest.mark.parametrize("name", ["tiny-babble", "tiny-babble:latest", "TINY-babble"])
def test_one_model(name: str, pair: tuple[str, str]) -> None:
    hub, engine = pair
    through, direct = ask(hub, "GET", f"/v1/models/{name}"), ask(engine, "GET", f"/v1/models/{name}")
    assert described(through)[:2] == described(direct)[:2]
    assert through.body == direct.body


def test_loaded_models_are_listed_and_unloaded_ones_are_gone(pair: tuple[str, str]) -> None:
    hub, engine = pair

    def loaded(url: str) -> dict[str, dict[str, Any]]:
        return entries(url, "/api/ps")

    def chat(**more: object) -> Answer:
        return ask(hub, "POST", "/api/chat", {"model": "tiny-think", **more})

    # Other hubs share the engine: what this one remembers of its memory may be older than their last request.
    assert chat(messages=[], keep_alive=0).status == 200
    wait_for(lambda: "tiny-think:latest" not in loaded(hub), what="/api/ps to be without it", timeout=5)
    assert chat(messages=HELLO, stream=False).status == 200
    wait_for(lambda: "tiny-think:latest" in loaded(hub), what="/api/ps to list the loaded model", timeout=5)
    through, direct = loaded(hub)["tiny-think:latest"], loaded(engine)["tiny-think:latest"]
    times = [datetime.datetime.fromisoformat(row.pop("expires_at")) for row in (through, direct)]
    assert abs(times[0] - times[1]) < datetime.timedelta(seconds=60)
    assert through == direct
    assert len(through["digest"]) == 64
    assert chat(messages=[], keep_alive=0).status == 200
    wait_for(lambda: "tiny-think:latest" not in loaded(hub), what="/api/ps to drop it", timeout=5)


@pytest.fixture(scope="session")
def second_fleet(fleets: Callable[[str], Fleet]) -> Iterator[Fleet]:
    """The newest Ollama that there is; another engine of the oldest kind where that is the same."""
    if OLDEST_OLLAMA != NEWEST_OLLAMA:
        yield fleets(NEWEST_OLLAMA)
        return
    installed.need(NEWEST_OLLAMA)
    fleet = installed.start_fleet(NEWEST_OLLAMA)
    yield fleet
    fleet.stop()


@pytest.fixture(params=as_one(over_each_link(OLDEST_OLLAMA)))
def mixed(
    request: pytest.FixtureRequest,
    second_fleet: Fleet,
    fleets: Callable[[str], Fleet],
    hub_over: Callable[..., Hub | Direct],
) -> tuple[Hub | Direct, list[str]]:
    """A hub over the oldest and the newest Ollama, which have the same models; their URLs, oldest first."""
    oldest, link = request.param
    old = fleets(oldest)
    hub = hub_over(old, second_fleet, link=link)
    if isinstance(hub, Direct):
        pytest.skip("two engines are one only behind a hub")
    return hub, [old.url_of("tiny-babble"), second_fleet.url_of("tiny-babble")]


def test_a_model_of_two_engines_is_one_entry_whole_from_one_of_them(mixed: tuple[Hub, list[str]]) -> None:
    hub, engines = mixed
    listed = entries(hub.url, "/api/tags")
    old, new = (entries(url, "/api/tags") for url in engines)
    assert set(listed) == set(old) | set(new)
    for name, row in listed.items():
        assert row in (old[name], new[name])
        assert len(row["digest"]) == 64


def test_v1_models_of_two_engines_has_each_model_once(mixed: tuple[Hub, list[str]]) -> None:
    hub, engines = mixed
    assert set(entries(hub.url, "/v1/models")) == set(entries(engines[0], "/v1/models"))


def test_either_engine_answers_for_its_models(mixed: tuple[Hub, list[str]]) -> None:
    hub, engines = mixed
    body = {"model": "tiny-utf8", "messages": HELLO, "stream": False}
    answer = ask(hub.url, "POST", "/api/chat", body)
    direct = [ask(url, "POST", "/api/chat", body).json()["message"] for url in engines]
    assert answer.json()["message"] in direct
    assert answer.header("X-Hive-Node") in ("a", "b")


@pytest.mark.parametrize(("kind", "link"), over_each_link(*EACH_LLAMA))
def test_models_of_llama_cpp_are_listed_for_both_dialects(
    kind: str, link: str, fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct]
) -> None:
    hub = hub_over(fleets(kind), link=link)
    if isinstance(hub, Direct):
        pytest.skip("a llama.cpp server lists only its own model")
    for path in ("/v1/models", "/api/tags"):
        names = {name.removesuffix(":latest") for name in entries(hub.url, path)}
        assert names >= set(ALL_MODELS)
    for row in entries(hub.url, "/api/tags").values():
        datetime.datetime.fromisoformat(row["modified_at"])
        assert row["name"] == row["model"]
        assert isinstance(row["size"], int)
        # The Ollama command line cuts the digest at 12 characters and breaks on a shorter one.
        assert len(row["digest"]) >= 19
