"""Real engines, hubs over them, and clients' keys. What is not installed is skipped with a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from . import installed
from .hub import DIALED, IS_DIRECT, Direct, Hub, as_one, need_link, over_each_link
from .installed import EACH_LLAMA, EACH_OLLAMA, LLAMAS, OLLAMAS, Fleet


def _named(urls: Sequence[str]) -> dict[str, str]:
    return {chr(ord("a") + i): url for i, url in enumerate(urls)}


@pytest.fixture(scope="session")
def fleets() -> Iterator[Callable[[str], Fleet]]:
    """Return a function from a kind to its running servers with all models; each is started once."""
    running: dict[str, Fleet] = {}

    def fleet_of(kind: str) -> Fleet:
        installed.need(kind)
        if kind not in running:
            models = (*installed.ALL_MODELS, "tiny-rerank") if kind in LLAMAS else installed.ALL_MODELS
            running[kind] = installed.start_fleet(kind, models)
        return running[kind]

    yield fleet_of
    for fleet in running.values():
        fleet.stop()


@pytest.fixture(scope="session", params=as_one(over_each_link(*EACH_OLLAMA, *EACH_LLAMA)))
def kind_and_link(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A kind of engine, and how the hub reaches its servers: each pair in turn."""
    return request.param


@pytest.fixture(scope="session")
def fleet(kind_and_link: tuple[str, str], fleets: Callable[[str], Fleet]) -> Fleet:
    """The servers of one kind."""
    return fleets(kind_and_link[0])


@pytest.fixture(scope="session")
def hub_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Hub | Direct]]:
    """Return a function from fleets and a link to the hub over them; the same arguments give the same hub."""
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, ...], Hub] = {}

        def hub_of(fleet: Fleet, *others: Fleet, link: str = DIALED, **env: str) -> Hub | Direct:
            if IS_DIRECT:
                return Direct(fleet)
            need_link(link)
            urls = [url for each in (fleet, *others) for url in each.nodes().values()]
            key = (link, *urls, *(f"{name}={value}" for name, value in env.items()))
            if key not in running:
                hub = Hub(tmp_path_factory.mktemp("hub"), _named(urls), env=env, link=link)
                running[key] = stack.enter_context(hub)
            return running[key]

        yield hub_of


@pytest.fixture(scope="session")
def hub(fleet: Fleet, kind_and_link: tuple[str, str], hub_over: Callable[..., Hub | Direct]) -> Hub | Direct:
    """The hub over the servers of one kind."""
    return hub_over(fleet, link=kind_and_link[1])


@pytest.fixture
def fresh() -> Iterator[Callable[..., Any]]:
    """Return a function that starts an engine of this test's own, which it may kill."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, *models: str, **env: str) -> Any:
            installed.need(kind)
            engine = (
                installed.start_ollama(kind, models, env) if kind in OLLAMAS else installed.start_llama(kind, models[0])
            )
            stack.callback(engine.stop)
            return engine

        yield start


@pytest.fixture
def hub_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Hub | Direct]]:
    """Return a function that starts a hub of this test's own over engines by a link, `--slots` each."""
    with contextlib.ExitStack() as stack:

        def start(*engines: Any, slots: int | None = None, link: str = DIALED, **env: str) -> Hub | Direct:
            if IS_DIRECT:
                return Direct(Fleet("direct", {"tiny-babble": engines[0]}))
            need_link(link)
            nodes = _named([engine.url for engine in engines])
            return stack.enter_context(Hub(tmp_path_factory.mktemp("hub"), nodes, slots=slots, link=link, env=env))

        yield start
