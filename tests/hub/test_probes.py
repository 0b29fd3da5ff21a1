"""What the hub learns of its engines, and how soon: no request waits for that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from hive.config import NodeSettings
from hive.fleet.engines import Health
from hive.testing import SimKind, SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import run_scripted

from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, metric, request


@pytest.fixture(autouse=True)
def dialed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a dialed engine is asked by the hub itself."""
    monkeypatch.setattr("hive.testing.hub.usual_link", "dialed")


QUICK = {"probe_interval": 0.2, "probe_timeout": 0.3, "models_interval": 0.3}


def is_ready(hub: ThreadedHub, node: str) -> bool:
    return metric(hub.port, "hive_node_ready", hub.admin_key, node=node) == 1


def models(hub: ThreadedHub) -> list[str]:
    return [model["name"] for model in ask(hub.port, get("/api/tags")).json()["models"]]  # type: ignore[index,union-attr]


def test_a_dead_and_a_frozen_node_at_the_start_delay_nothing(
    engine: ThreadedEngine, second_engine: ThreadedEngine
) -> None:
    second_engine.set_fault("freeze")
    nodes = {"dead": "http://127.0.0.1:1", "frozen": second_engine.url, "a": engine.url}
    began = time.monotonic()
    with run_hub(nodes, wait=False) as hub:
        eventually(lambda: is_ready(hub, "a"), 3)
        assert ask(hub.port, request(body=GENERATE)).status == 200
        assert ask(hub.port, get("/api/tags")).status == 200
        assert time.monotonic() - began < 4
        assert not is_ready(hub, "dead")
        assert not is_ready(hub, "frozen")


def test_the_first_request_of_a_hub_that_just_started_finds_its_model(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, link="dialed", wait=False) as hub:
        assert ask(hub.port, request(body=GENERATE)).status == 200


def test_a_node_that_dies_is_left_out_and_taken_back(engine: ThreadedEngine) -> None:
    with run_in_thread() as other:
        port, url = other.port, other.url
        with ExitStack() as hubs:
            hub = hubs.enter_context(run_hub({"a": engine.url, "b": url}, **QUICK))
            assert is_ready(hub, "b")
            hubs_end = hubs.pop_all()
    with hubs_end:
        eventually(lambda: not is_ready(hub, "b"), 2)
        assert [ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") for _ in range(4)] == ["a"] * 4
        with run_in_thread(port=port):
            eventually(lambda: is_ready(hub, "b"), 2)


def test_a_model_that_appears_or_goes_is_known_within_the_interval(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, **QUICK) as hub:
        assert models(hub) == ["tiny:latest"]
        httpx.post(f"{engine.url}/api/copy", json={"source": "tiny", "destination": "copied"}).raise_for_status()
        eventually(lambda: "copied:latest" in models(hub), 2)
        httpx.request("DELETE", f"{engine.url}/api/delete", json={"model": "copied"}).raise_for_status()
        eventually(lambda: "copied:latest" not in models(hub), 2)


def test_what_is_loaded_is_known_soon_after_a_request(engine: ThreadedEngine) -> None:
    def loaded() -> list[str]:
        return [model["name"] for model in ask(hub.port, get("/api/ps")).json()["models"]]  # type: ignore[index,union-attr]

    with run_hub({"a": engine.url}) as hub:
        assert loaded() == []
        ask(hub.port, request(body=GENERATE))
        eventually(lambda: loaded() == ["tiny:latest"], 3)
        ask(hub.port, request(body={"model": "tiny", "keep_alive": 0}))
        eventually(lambda: loaded() == [], 3)


PROBE_FAULTS = [
    ("endless-headers", None, None), ("lying-length", 10, None), ("lying-length", -10, None),
    ("error-500", None, "/api/tags"), ("bad-credentials", None, "/api/tags"), ("malformed", None, "/api/tags"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "argument", "path"), PROBE_FAULTS)
def test_a_node_whose_probes_are_broken_gets_no_work_and_comes_back(
    engine: ThreadedEngine, fault: str, argument: float | None, path: str | None
) -> None:
    with run_in_thread() as broken:
        broken.set_fault(fault, argument, path=path)
        with run_hub({"broken": broken.url, "a": engine.url}, **QUICK) as hub:
            assert not is_ready(hub, "broken")
            for _ in range(4):
                assert ask(hub.port, request(body=GENERATE)).header("X-Hive-Node") == "a"
            broken.clear_faults()
            eventually(lambda: is_ready(hub, "broken"), 3)


@pytest.mark.parametrize("fault", ["early-hints", "close-delimited"])
def test_a_node_whose_probes_are_odd_but_right_works(fault: str) -> None:
    with run_in_thread() as odd:
        odd.set_fault(fault, path="/api/version")
        with run_hub({"odd": odd.url}, **QUICK) as hub:
            eventually(lambda: is_ready(hub, "odd"), 3)
            assert ask(hub.port, request(body=GENERATE)).status == 200


def test_listings_never_wait_for_a_node(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, **QUICK) as hub:
        engine.set_fault("freeze")
        began = time.monotonic()
        for path in ("/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/tiny", "/"):
            assert ask(hub.port, get(path)).status == 200
        assert time.monotonic() - began < 2
        engine.clear_faults()


@pytest.mark.parametrize("kind", [SimKind.LLAMA_CPP, SimKind.VLLM, SimKind.OPENAI])
def test_other_engines_are_told_apart_and_used(kind: SimKind) -> None:
    with run_in_thread(SimOptions(kind=kind, models=("org/model",))) as engine, run_hub({"a": engine.url}) as hub:
        nodes = httpx.get(f"{hub.url}/hive/v1/nodes", headers={"Authorization": f"Bearer {hub.admin_key}"}).json()
        assert nodes["nodes"][0]["kind"] == kind.value
        listed = [model["id"] for model in ask(hub.port, get("/v1/models")).json()["data"]]  # type: ignore[index,union-attr]
        answer = ask(
            hub.port,
            request("/v1/chat/completions", {"model": listed[0], "messages": [{"role": "user", "content": "hi"}]}),
        )
        assert answer.status == 200
        assert ask(hub.port, request("/api/chat", {"model": listed[0], "messages": []})).status == 501


def test_slots_of_the_settings_count_and_those_of_the_node_more(engine: ThreadedEngine) -> None:
    nodes = {"a": NodeSettings(name="a", url=engine.url, slots=3), "b": NodeSettings(name="b", url=engine.url)}
    with run_hub(nodes, slots=7) as hub:
        slots = [metric(hub.port, "hive_node_slots", hub.admin_key, node=name) for name in ("a", "b")]
        assert slots == [3, 7]


# --- what blocks, and what that says ---


def health(hub: ThreadedHub) -> Health:
    return hub.call(lambda server: server.hub.fleet.engines[0].health)


def impatient(monkeypatch: pytest.MonkeyPatch, suspect_after: float) -> None:
    """Let what takes many seconds take less."""
    monkeypatch.setattr("hive.hub.probes.LISTING_TIMEOUT", 0.3)
    monkeypatch.setattr("hive.fleet.health.SUSPECT_AFTER", suspect_after)


def count(engine: ThreadedEngine, path: str) -> int:
    return engine.state().received.get(path, 0)


def test_a_listing_that_blocks_keeps_no_sign_of_life_waiting(
    engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, suspect_after=5)
    with run_hub({"a": engine.url}, **QUICK) as hub:
        engine.set_fault("freeze", path="/api/ps")
        blocked = count(engine, "/api/ps")
        eventually(lambda: count(engine, "/api/ps") > blocked, 2)
        asked = count(engine, "/api/version")
        eventually(lambda: count(engine, "/api/version") >= asked + 3, 2)
        assert health(hub) is Health.READY


def test_a_listing_that_blocks_costs_no_request_that_waits_for_its_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Ollama that loads a model answers /api/version at once and /api/ps not at all."""
    impatient(monkeypatch, suspect_after=0.2)
    with (
        run_in_thread(SimOptions(ttft=1.2)) as engine,
        run_hub({"a": engine.url}, probe_interval=0.2, models_interval=0.2) as hub,
        Wire(hub.port) as wire,
    ):
        engine.set_fault("freeze", path="/api/ps")
        blocked = count(engine, "/api/ps")
        eventually(lambda: count(engine, "/api/ps") > blocked, 2)
        wire.send(request(body=GENERATE))
        assert wire.answer().status == 200
        assert health(hub) is Health.READY


def test_an_engine_is_ready_once_its_models_are_known_whatever_it_says_of_what_is_loaded(
    engine: ThreadedEngine,
) -> None:
    """A hub that starts while an Ollama loads a model."""
    engine.set_fault("freeze", path="/api/ps")
    with run_hub({"a": engine.url}, wait=False) as hub:
        eventually(lambda: is_ready(hub, "a"), 2)
        assert ask(hub.port, request(body=GENERATE)).status == 200


def test_an_engine_whose_first_listing_of_what_is_loaded_times_out_is_ready(
    engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch, suspect_after=5)
    engine.set_fault("freeze", path="/api/ps")
    with run_hub({"a": engine.url}) as hub:
        assert is_ready(hub, "a")
        assert ask(hub.port, request(body=GENERATE)).status == 200


def test_a_listing_that_times_out_makes_no_silent_engine_ready(
    engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The listing tells less of the engine's health than the probes beside it."""
    caplog.set_level(logging.INFO, "hive.hub.health_watch")
    impatient(monkeypatch, suspect_after=0.3)
    monkeypatch.setattr("hive.hub.probes.LISTING_TIMEOUT", 1.2)
    with run_hub({"alone": engine.url}, probe_interval=0.2, probe_timeout=0.2, models_interval=0.2) as hub:
        engine.set_fault("freeze", path="/api/ps")
        blocked = count(engine, "/api/ps")
        eventually(lambda: count(engine, "/api/ps") > blocked, 2)
        engine.set_fault("freeze")
        caplog.clear()
        hub.until(lambda server: all(prober._listing.done() for prober in server.hub.roster.watchers()), 2)
        said = [record.getMessage().partition(" (")[0] for record in caplog.records]
        assert [line for line in said if line.startswith("node alone") and "->" in line] == [
            "node alone: ready -> suspect"
        ]


def test_bytes_of_a_running_stream_are_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, suspect_after=0.8)  # a stream's signs are noted at every tick, of 0.5 s
    with (
        run_in_thread(SimOptions(tokens_per_second=20, default_tokens=36)) as engine,
        run_hub({"a": engine.url}, probe_interval=0.2, probe_timeout=0.2) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM))
        wire.until(b'"done":false')
        engine.set_fault("freeze", path="/api/version")
        silent = count(engine, "/api/version")
        seen = set()
        while b'"done":true' not in wire.until(b"\n\r\n"):
            seen.add(health(hub))
        assert seen == {Health.READY}
        assert count(engine, "/api/version") >= silent + 3


def test_a_listing_without_end_leaves_no_connection_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.net.ask.MAX_ANSWER_BYTES", 100_000)
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 200_000
    with run_scripted(lambda call: call.answer(b"{}")) as engine:
        answer: Callable[[str], bytes] = engine.probe_answer
        engine.probe_answer = lambda path: endless if path == "/api/ps" else answer(path)  # type: ignore[method-assign]
        with run_hub({"a": engine.url}, probe_interval=0.15, models_interval=0.1):
            engine.until(lambda engine: sum(b"/api/ps" in head for head in engine.probe_heads) >= 6)
            assert engine.open_connections <= 3
