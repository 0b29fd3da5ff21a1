"""What the double of an agent finds out of each kind of engine, and of one that is gone or silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest

from hive.testing import SimKind, SimOptions, ThreadedEngine, engine_looks, run_in_thread
from hive.testing.engine_looks import EngineLooks
from hive.wire.link_messages import NOTHING, ReportedEngine


def looked(
    urls: dict[str, str],
    between: Callable[[], object] = lambda: None,
    *,
    looks: int = 1,
    slots: int | None = None,
    credential: bytes = b"",
    edit: Callable[[ReportedEngine], ReportedEngine] = lambda engine: engine,
) -> tuple[ReportedEngine, ...]:
    """Look at engines so many times, with something in between; return what the last look found."""

    async def run() -> tuple[ReportedEngine, ...]:
        engines = EngineLooks(urls, slots, credential)
        engines.edit = edit
        try:
            for number in range(looks):
                if number:
                    between()
                await engines.look()
            return engines.report()
        finally:
            engines.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def names(listing: object) -> list[str]:
    return [each["name"] for each in json.loads(bytes(listing))["models"]]  # type: ignore[call-overload]


def test_an_ollama_is_reported_with_version_and_lists(engine: ThreadedEngine) -> None:
    (found,) = looked({"e": engine.url})
    assert (found.id, found.kind, found.version, found.address) == ("e", "ollama", "0.33.0", engine.url)
    assert names(found.tags) == ["tiny:latest"]
    assert names(found.ps) == []


@pytest.mark.parametrize("kind", [SimKind.LLAMA_CPP, SimKind.VLLM, SimKind.OPENAI])
def test_the_other_kinds_are_reported_with_their_list(kind: SimKind) -> None:
    with run_in_thread(SimOptions(kind=kind)) as engine:
        (found,) = looked({"e": engine.url})
    assert found.kind == kind
    assert json.loads(bytes(found.v1_models))["data"][0]["id"].startswith("tiny")


@pytest.mark.parametrize(("told", "slots"), [(None, 3), (5, 5)])
def test_a_llama_cpp_tells_its_slots_unless_they_were_told(told: int | None, slots: int) -> None:
    with run_in_thread(SimOptions(kind=SimKind.LLAMA_CPP, slots=3)) as engine:
        (found,) = looked({"e": engine.url}, slots=told)
    assert found.slots == slots


def test_every_engine_gets_the_credential(engine: ThreadedEngine) -> None:
    looked({"e": engine.url}, credential=b"Authorization: Bearer secret\r\n")
    assert all(("Authorization", "Bearer secret") in seen.headers for seen in engine.state().requests)


def test_an_engine_that_is_not_there_is_not_alive_and_says_why() -> None:
    (found,) = looked({"e": "http://127.0.0.1:1"})
    assert not found.is_alive
    assert found.error
    assert (found.tags, found.ps) == (NOTHING, NOTHING)


def test_an_engine_that_falls_silent_keeps_what_was_known(
    engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_looks, "_LOOK_TIMEOUT", 0.2)
    (found,) = looked({"e": engine.url}, lambda: engine.set_fault("freeze"), looks=2)
    assert (found.is_silent, found.is_alive, found.kind) == (True, True, "ollama")
    assert names(found.tags) == ["tiny:latest"]


def test_a_report_can_lie(engine: ThreadedEngine) -> None:
    (found,) = looked({"e": engine.url}, edit=lambda one: msgspec.structs.replace(one, version="9.9.9"))
    assert found.version == "9.9.9"


def test_a_look_at_a_live_engine_is_not_spoilt_by_a_dead_one(engine: ThreadedEngine) -> None:
    dead, alive = looked({"dead": "http://127.0.0.1:1", "alive": engine.url})
    assert (dead.is_alive, alive.is_alive) == (False, True)
