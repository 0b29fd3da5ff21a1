"""What an engine says of itself, and which of its models need no load."""

from __future__ import annotations

from hive.fleet.engines import Engine, Fleet
from hive.fleet.kinds import EngineKind
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


def tagged(key: str, digest: str, *, is_remote: bool = False) -> Model:
    return Model(key, key, digest, 1, "", b"{}", b"{}", is_remote)


def test_a_model_in_memory_is_warm_by_all_its_names() -> None:
    """An Ollama lists it by the name alone that loaded it."""
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])
    models = (tagged("m:latest", "one"), tagged("m:8b", "one"), tagged("n:latest", "two"), tagged("bare", ""))
    fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.33.0", models, (LoadedModel("m:8b", "", b"{}"),)))
    assert engine.known.warm == {"m:latest", "m:8b"}
    assert engine.is_warm("m:latest")
    assert not engine.is_warm("n:latest")
    assert engine.known.names_of("m:latest") == {"m:latest", "m:8b"}
    assert engine.known.names_of("bare") == {"bare"}
    engine.running.loaded_as["m:latest"] = '{"num_ctx": 8}'
    fleet.learn_loaded(engine, (LoadedModel("m:8b", "later", b"{}"),))
    assert engine.is_warm("m:latest", '{"num_ctx": 8}')
    assert not engine.is_warm("m:latest")
    fleet.learn_loaded(engine, ())
    assert engine.known.warm == set()
    assert engine.running.loaded_as == {}


def test_a_model_that_runs_elsewhere_needs_no_load() -> None:
    engine = Engine("a", "http://a")
    fleet = Fleet([engine])
    models = (tagged("big:cloud", "one", is_remote=True), tagged("m:latest", "two"))
    fleet.learn(engine, EngineReport(EngineKind.OLLAMA, "0.33.0", models, ()))
    assert engine.is_warm("big:cloud")
    assert not engine.is_warm("m:latest")
