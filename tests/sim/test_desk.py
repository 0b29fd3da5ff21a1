"""What the routes share: how a model is found, how a missing one is told, and what is said."""

from __future__ import annotations

import json

import pytest

from hive.sim.bodies import Body, parse_body
from hive.sim.desk import THOUGHTS, Refusal
from hive.sim.options import SimKind
from hive.sim.work import Settlement, Work

from .desks import CALL, make_desk, make_request


def body(**fields: object) -> Body:
    return parse_body(json.dumps(fields).encode())


TASK = Settlement(lambda _: None, is_instant=True)  # type: ignore[arg-type,return-value]


def test_a_model_is_found_under_either_of_its_keys() -> None:
    desk = make_desk("tiny", "other")
    assert desk.model("/api/chat", body(model="OTHER")).name == "other:latest"
    assert desk.model("/api/show", body(name="tiny")).name == "tiny:latest"


@pytest.mark.parametrize(
    ("model", "status"), [("", 400), ("bad name", 400), ("unknown", 404)], ids=["none", "no name", "unknown"]
)
def test_a_request_without_a_model_that_is_there_is_refused(model: str, status: int) -> None:
    with pytest.raises(Refusal) as raised:
        make_desk().model("/api/chat", body(model=model))
    assert raised.value.reply.status == status


def test_a_llama_cpp_answers_with_its_own_model_whatever_the_name() -> None:
    desk = make_desk(kind=SimKind.LLAMA_CPP)
    asked = body(model="anything")
    model = desk.model("/v1/chat/completions", asked)
    assert (model.name, desk.echo(model, asked)) == ("tiny:latest", "tiny")


def test_an_ollama_echoes_the_name_as_the_client_wrote_it() -> None:
    desk = make_desk()
    asked = body(model="TINY")
    assert desk.echo(desk.model("/api/chat", asked), asked) == "TINY"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/chat", "model 'x' not found"),
        ("/api/embed", 'model "x" not found, try pulling it first'),
        ("/api/show", "model 'x:latest' not found"),
    ],
)
def test_each_route_of_an_ollama_has_its_words_for_a_missing_model(path: str, text: str) -> None:
    answer = make_desk().missing(path, "x")
    assert (answer.status, json.loads(answer.body)) == (404, {"error": text})


def test_another_server_has_one_sentence_for_it() -> None:
    answer = make_desk(kind=SimKind.VLLM).missing("/v1/completions", "x")
    assert json.loads(answer.body)["error"]["message"] == "The model `x` does not exist."


def test_a_model_that_is_there_can_be_told_missing() -> None:
    answer = make_desk().missing_model(make_request("/api/chat", {"model": "tiny"}))
    assert json.loads(answer.body) == {"error": "model 'tiny' not found"}
    assert make_desk().missing_model(make_request("/api/chat", b"{")).status == 404


def test_answers_are_numbered() -> None:
    desk = make_desk()
    assert [desk.number(), desk.number()] == [1, 2]


@pytest.mark.parametrize(
    ("limit", "tokens", "reason"), [(None, 24, "stop"), (-1, 24, "stop"), (5, 5, "length"), (0, 0, "length")]
)
def test_an_answer_is_as_long_as_the_request_says(limit: int | None, tokens: int, reason: str) -> None:
    desk = make_desk()
    asked = body(model="tiny", prompt="hello")
    speech = desk.speech(desk.model("/api/generate", asked), asked, limit, thinks=False)
    assert (speech.tokens, speech.reason) == (tokens, reason)


def test_a_prompt_is_never_longer_than_the_context() -> None:
    desk = make_desk(context_length=10)
    asked = body(model="tiny", prompt="x" * 1000)
    assert desk.speech(desk.model("/api/generate", asked), asked, 1, thinks=False).prompt_tokens == 10


def test_only_a_model_that_can_think_thinks_and_only_when_asked() -> None:
    desk = make_desk("thinker", "tiny")
    asked = body(model="thinker", prompt="x")
    thinker, tiny = desk.model("/api/chat", asked), desk.model("/api/chat", body(model="tiny"))
    assert len(desk.speech(thinker, asked, 10, thinks=True).thoughts) == THOUGHTS
    assert desk.speech(thinker, asked, 10, thinks=False).thoughts == []
    assert desk.speech(tiny, asked, 10, thinks=True).thoughts == []


def test_tools_are_called_if_the_engine_was_told_a_call() -> None:
    asked = body(model="tiny", prompt="x", tools=[{}])
    for desk, call in ((make_desk(tool_call=CALL), CALL), (make_desk(), None)):
        assert desk.speech(desk.model("/api/chat", asked), asked, 10, thinks=False).call == call


def test_work_of_an_ollama_says_context_and_keep_alive() -> None:
    desk = make_desk()
    asked = body(model="tiny", options={"num_ctx": 99}, keep_alive="1m")
    assert desk.work(desk.model("/api/chat", asked), asked, TASK) == Work("tiny:latest", 99, 60.0, TASK)


def test_other_servers_load_once_so_that_no_request_changes_it() -> None:
    desk = make_desk(kind=SimKind.VLLM)
    asked = body(model="tiny", options={"num_ctx": 99}, keep_alive="1m")
    assert desk.work(desk.model("/v1/completions", asked), asked, TASK) == Work("tiny:latest", 4096, None, TASK)
