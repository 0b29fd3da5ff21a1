"""How an engine is recognised: a transcript of questions and answers for each kind."""

from __future__ import annotations

import pytest

from hive import errors
from hive.errors import Fault
from hive.fleet.identity import PROBES, Identity, Reply, Steps, check, identify, slots_in_props
from hive.fleet.kinds import EngineKind

NOT_FOUND = Reply(404, b"")
PAGE = Reply(200, b"<html>")


def follow(steps: Steps, answers: dict[str, Reply]) -> tuple[Identity, list[str]]:
    """Answer by path, and return what was found and what was asked."""
    asked = []
    try:
        wanted = next(steps)
        while True:
            asked.append(wanted.path)
            wanted = steps.send(answers.get(wanted.path, NOT_FOUND))
    except StopIteration as done:
        return done.value, asked


KINDS = {
    "ollama": ({"/api/version": Reply(200, b'{"version":"0.33.0"}')}, Identity(EngineKind.OLLAMA, "0.33.0"), 1),
    "llama.cpp": ({"/props": Reply(200, b'{"build_info":"b1","x":1}')}, Identity(EngineKind.LLAMA_CPP, "b1"), 2),
    "vllm": (
        {"/version": Reply(200, b'{"version":"0.9"}'), "/v1/models": Reply(200, b'{"data":[{"owned_by":"vllm"}]}')},
        Identity(EngineKind.VLLM, "0.9"),
        4,
    ),
    "something else": ({"/v1/models": Reply(200, b'{"data":[]}')}, Identity(EngineKind.OPENAI, ""), 4),
    "a version alone": (
        {"/version": Reply(200, b'{"version":"1"}'), "/v1/models": Reply(200, b'{"data":[]}')},
        Identity(EngineKind.OPENAI, "1"),
        4,
    ),
    "pages for all paths": (dict.fromkeys(PROBES, PAGE), Identity(EngineKind.OPENAI, ""), 4),
}


@pytest.mark.parametrize(("answers", "identity", "questions"), KINDS.values(), ids=list(KINDS))
def test_recognised(answers: dict[str, Reply], identity: Identity, questions: int) -> None:
    found, asked = follow(identify(), answers)
    assert found == identity
    assert len(asked) == questions
    assert set(asked) <= PROBES


def test_a_server_without_an_answer_is_no_engine() -> None:
    with pytest.raises(Fault) as caught:
        follow(identify(), {})
    assert caught.value.kind is errors.NODE_GARBLED


OLLAMA = Identity(EngineKind.OLLAMA, "0.24.0")
LLAMA_CPP = Identity(EngineKind.LLAMA_CPP, "b1")


@pytest.mark.parametrize(
    ("known", "answers", "identity", "questions"),
    [
        (OLLAMA, {"/api/version": Reply(200, b'{"version":"0.33.0"}')}, Identity(EngineKind.OLLAMA, "0.33.0"), 1),
        (OLLAMA, {"/props": Reply(200, b'{"build_info":"b2"}')}, Identity(EngineKind.LLAMA_CPP, "b2"), 3),
        (LLAMA_CPP, {"/health": Reply(200, b"")}, LLAMA_CPP, 1),
        (LLAMA_CPP, {"/health": Reply(401, b"")}, LLAMA_CPP, 1),
        (LLAMA_CPP, {"/api/version": Reply(200, b'{"version":"1"}')}, Identity(EngineKind.OLLAMA, "1"), 2),
        (Identity(EngineKind.OPENAI, ""), {"/v1/models": Reply(200, b"{}")}, Identity(EngineKind.OPENAI, ""), 1),
    ],
)
def test_an_engine_is_alive_and_the_same_or_recognised_anew(
    known: Identity, answers: dict[str, Reply], identity: Identity, questions: int
) -> None:
    found, asked = follow(check(known), answers)
    assert found == identity
    assert len(asked) == questions


def test_an_engine_that_loads_its_model_is_busy() -> None:
    with pytest.raises(Fault) as caught:
        follow(check(LLAMA_CPP), {"/health": Reply(503, b"")})
    assert caught.value.kind is errors.NODE_BUSY


SLOTS = {
    b'{"total_slots":7}': 7,
    b'{"total_slots":4096}': 4096,
    b'{"total_slots":4097}': 4096,
    b'{"total_slots":0}': None,
    b'{"total_slots":-1}': None,
    b'{"total_slots":true}': None,
    b'{"total_slots":2.5}': None,
    b'{"total_slots":"many"}': None,
    b'{"total_slots":null}': None,
    b"{}": None,
    b"<": None,
    None: None,
}


@pytest.mark.parametrize(("body", "slots"), SLOTS.items(), ids=map(str, SLOTS))
def test_slots_are_the_number_that_a_llama_cpp_states_if_it_is_possible(body: bytes | None, slots: int | None) -> None:
    assert slots_in_props(body) == slots


def test_nonsense_for_slots_does_not_change_the_kind() -> None:
    props = Reply(200, b'{"build_info":"b1","total_slots":"many"}')
    assert follow(identify(), {"/props": props})[0] == LLAMA_CPP
