"""Real engines, hubs over them, and clients' keys. What is not installed is skipped with a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import installed
from .hub import IS_DIRECT, Direct, Hub
from .installed import EACH_LLAMA, EACH_OLLAMA, LLAMAS, OLLAMAS, Fleet


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


@pytest.fixture(scope="session", params=[*EACH_OLLAMA, *EACH_LLAMA])
def fleet(request: pytest.FixtureRequest, fleets: Callable[[str], Fleet]) -> Fleet:
    """The servers of one kind, each kind in turn."""
    return fleets(request.param)


@pytest.fixture(scope="session")
def hub_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Hub | Direct]]:
    """Return a function from a fleet to the hub over it; the same arguments give the same hub."""
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, ...], Hub] = {}

        def hub_of(fleet: Fleet, *others: Fleet, **env: str) -> Hub | Direct:
            if IS_DIRECT:
                return Direct(fleet)
            urls = [url for each in (fleet, *others) for url in each.nodes().values()]
            key = (*urls, *(f"{name}={value}" for name, value in env.items()))
            if key not in running:
                nodes = {chr(ord("a") + i): url for i, url in enumerate(urls)}
                running[key] = stack.enter_context(Hub(tmp_path_factory.mktemp("hub"), nodes, env=env))
            return running[key]

        yield hub_of


@pytest.fixture(scope="session")
def hub(fleet: Fleet, hub_over: Callable[..., Hub | Direct]) -> Hub | Direct:
    """The hub over the servers of one kind."""
    return hub_over(fleet)


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
    """Return a function that starts a hub of this test's own over engines, `--slots` each."""
    with contextlib.ExitStack() as stack:

        def start(*engines: Any, slots: int | None = None) -> Hub | Direct:
            if IS_DIRECT:
                return Direct(Fleet("direct", {"tiny-babble": engines[0]}))
            nodes = {chr(ord("a") + i): engine.url for i, engine in enumerate(engines)}
            return stack.enter_context(Hub(tmp_path_factory.mktemp("hub"), nodes, slots=slots))

        yield start
