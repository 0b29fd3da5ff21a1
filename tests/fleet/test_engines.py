"""Engines and the fleet: slots, health, and which engine has which model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.dialects.tasks import ENGINE_ROUTES, Dialect, Task
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport, Known, LoadedModel, Model


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
def test_an_ollama_never_had_these(path: str) -> None:
    engine = Engine("a", "http://a")
    Fleet([engine]).learn(engine, report("m"))
    assert not has(engine, path)


@pytest.mark.parametrize("kind", [EngineKind.LLAMA_CPP, EngineKind.VLLM, EngineKind.OPENAI])
def test_the_others_serve_v1_and_nothing_of_ollama_s_own(kind: EngineKind) -> None:
    engine = Engine("a", "http://a")
    Fleet([engine]).learn(engine, report("m", kind=kind, version=""))
    assert has(engine, "/v1/chat/completions")
    assert has(engine, "/v1/messages")
    assert not has(engine, "/api/chat")


@pytest.mark.parametrize(
    ("configured", "reported", "kind", "slots"),
    [
        (None, None, EngineKind.OLLAMA, 1),
        (None, None, EngineKind.VLLM, 32),
        (None, None, EngineKind.OPENAI, 8),
        (None, 2, EngineKind.LLAMA_CPP, 2),
        (7, 2, EngineKind.LLAMA_CPP, 7),
        (1, None, EngineKind.VLLM, 1),
    ],
)
def test_slots_are_configured_or_reported_or_usual(
    configured: int | None, reported: int | None, kind: EngineKind, slots: int
) -> None:
    engine = Engine("a", "http://a", configured_slots=configured)
    Fleet([engine]).learn(engine, report("m", kind=kind, slots=reported))
    assert engine.slots == slots


def test_a_free_slot_is_one_without_an_exchange() -> None:
    engine = Engine("a", "http://a", slots=2)
    engine.running.count = 2


def test_the_fleet_knows_which_engines_have_a_model() -> None:
    a, b = Engine("a", "http://a"), Engine("b", "http://b")
    fleet = Fleet([a, b])
    assert fleet.having("m:latest") == []
    fleet.learn(a, report("m:latest", "n:latest"))
    fleet.learn(b, report("m:latest"))
    assert fleet.having("m:latest") == [a, b]
    assert fleet.having("n:latest") == [a]
    fleet.set_health(a, Health.DOWN)
    assert fleet.having("n:latest") == [a]
    fleet.learn(a, report("o:latest"))
    assert fleet.having("m:latest") == [b]
    assert fleet.having("n:latest") == []


class Walked(list[Engine]):
    """A list that knows how often it was gone through."""

    walks = 0

    def __iter__(self) -> Iterator[Engine]:
        self.walks += 1
        return super().__iter__()


def test_many_reports_in_a_row_are_indexed_once() -> None:
    fleet, engines = Fleet(), [Engine(str(number), f"http://{number}") for number in range(5)]
    fleet.engines = walked = Walked()
    for engine in engines:
        fleet.add(engine)
        fleet.learn(engine, report("m:latest"))
    fleet.remove(engines[0])
    assert walked.walks == 0
    assert [fleet.having("m:latest") for _ in range(2)] == [engines[1:]] * 2
    assert walked.walks == 1


def test_the_revision_rises_when_a_listing_changes_and_only_then() -> None:
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])

    def changes(is_change: bool) -> bool:
        nonlocal last
        rose, last = fleet.revision > last, fleet.revision
        assert rose is is_change
        return rose

    last = fleet.revision
    assert changes(fleet.learn(engine, report("m:latest")))
    assert not changes(fleet.learn(engine, report("m:latest")))
    assert not changes(fleet.learn(engine, report("m:latest", version="0.34.0", slots=3)))
    assert changes(fleet.learn(engine, report("m:latest", loaded=("m:latest",))))
    assert not changes(fleet.learn_loaded(engine, [LoadedModel("m:latest", "", b"{}")]))
    assert changes(fleet.learn_loaded(engine, [LoadedModel("m:latest", "later", b"{}")]))
    assert changes(fleet.learn_loaded(engine, []))
    assert changes(fleet.set_health(engine, Health.READY))
    assert not changes(fleet.set_health(engine, Health.READY))
    assert changes(fleet.set_health(engine, Health.SUSPECT, "silent for 5 s"))
    assert engine.error == "silent for 5 s"


REPORTS = st.lists(st.sampled_from(["m", "n", "o", "p"]), unique=True, max_size=4)


@given(st.lists(st.tuples(st.integers(0, 2), REPORTS), max_size=12))
@settings(deadline=None, max_examples=100)
def test_the_index_agrees_with_the_last_reports(steps: list[tuple[int, list[str]]]) -> None:
    engines = [Engine(str(number), f"http://{number}") for number in range(3)]
    fleet = Fleet(engines)
    last: dict[int, list[str]] = {}
    for number, keys in steps:
        fleet.learn(engines[number], report(*keys))
        last[number] = keys
    for key in ("m", "n", "o", "p"):
        assert fleet.having(key) == [engines[number] for number in range(3) if key in last.get(number, [])]


def test_engines_that_are_added_and_removed_are_counted() -> None:
    a, b = Engine("a", "http://a", health=Health.READY), Engine("b", "http://b", health=Health.READY)
    fleet = Fleet()
    for engine in (a, b):
        fleet.add(engine)
        fleet.learn(engine, report("m:latest"))
        fleet.learn_loaded(engine, [LoadedModel("m:latest", "", b"{}")])
    assert fleet.copies == {"m:latest": 2}
    shape = fleet.shape
    fleet.remove(a)
    assert fleet.copies == {"m:latest": 1}
    assert fleet.having("m:latest") == [b]
    assert fleet.shape > shape
    assert a not in fleet.changed
    fleet.learn_loaded(a, ())  # an exchange on it ends, and it unloads
    fleet.remove(a)
    assert fleet.copies == {"m:latest": 1}
    c = Engine("c", "http://c", known=Known(loaded=dict(b.known.loaded)))
    fleet.add(c)
    assert fleet.copies == {"m:latest": 2}
    assert c in fleet.changed


def test_only_an_engine_in_service_takes_work() -> None:
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])
    for health in Health:
        fleet.set_health(engine, health)
        assert engine.takes_work is (health in (Health.READY, Health.PROBATION))
        assert engine.is_last_resort is (health is Health.DOUBTFUL)


def test_the_slots_that_a_node_says_of_its_ollama_are_for_all_its_models() -> None:
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])
    loaded = [LoadedModel(key, "", b"{}") for key in ("m", "n")]
    fleet.learn(engine, report("m", "n", slots=3))
    fleet.learn_loaded(engine, loaded)
    assert (engine.slots, engine.model_slots) == (3, 3)
    fleet.learn(engine, report("m", "n"))
    fleet.learn_loaded(engine, loaded)
    assert (engine.slots, engine.model_slots) == (2, 1)
