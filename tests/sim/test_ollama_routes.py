"""Ollama's routes that make a model work: what is said, what is only loaded, and what is refused."""

from __future__ import annotations

import pytest

from hive.sim.work import Settlement, Work
from hive.testing import SimOptions, ToolCall, run_in_thread

from .desks import decided, make_desk, refused, shown, spoken

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def test_a_request_with_tools_gets_the_scripted_tool_call(client_of: type) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with run_in_thread(SimOptions(tool_call=ToolCall("f", {"x": 1}))) as engine:
        client = client_of(engine)
        message = client.ask("/api/chat", CHAT | {"tools": tools, "stream": False}).json()["message"]
        assert message["tool_calls"][0]["function"] == {"index": 0, "name": "f", "arguments": {"x": 1}}
        assert "tool_calls" not in client.ask("/api/chat", CHAT | {"stream": False}).json()["message"]


@pytest.mark.parametrize(("stream", "is_stream"), [(None, True), (True, True), (False, False)])
def test_an_answer_is_a_stream_unless_it_is_not_wanted(stream: bool | None, is_stream: bool) -> None:
    assert spoken(make_desk(), "/api/chat", CHAT | {"stream": stream}).is_stream is is_stream


def test_the_answer_is_as_long_as_num_predict_says() -> None:
    body = {"model": "tiny", "prompt": "x", "options": {"num_predict": 3}}
    assert spoken(make_desk(), "/api/generate", body).voice.speech.tokens == 3


@pytest.mark.parametrize(("path", "verb"), [("/api/generate", "generate"), ("/api/chat", "chat")])
def test_a_model_that_embeds_does_not_talk(path: str, verb: str) -> None:
    body = CHAT | {"model": "embed", "prompt": "x"}
    assert refused(make_desk("embed"), path, body) == (400, f'"embed" does not support {verb}')


def test_a_model_that_cannot_think_refuses_to() -> None:
    assert refused(make_desk(), "/api/chat", CHAT | {"think": True}) == (400, '"tiny" does not support thinking')
    assert spoken(make_desk(), "/api/chat", CHAT | {"think": False}).voice.speech.thoughts == []


def test_a_model_that_can_think_does_unless_told_not_to() -> None:
    desk, body = make_desk("thinker"), CHAT | {"model": "thinker"}
    assert spoken(desk, "/api/chat", body).voice.speech.thoughts
    assert spoken(desk, "/api/chat", body | {"think": False}).voice.speech.thoughts == []


@pytest.mark.parametrize(("path", "body"), [("/api/generate", {}), ("/api/chat", {"messages": []})])
def test_to_ask_nothing_loads_the_model(path: str, body: dict[str, object]) -> None:
    assert shown(make_desk(), path, body | {"model": "tiny"})["done_reason"] == "load"


def test_to_ask_nothing_and_keep_nothing_unloads_it_at_once() -> None:
    desk = make_desk()
    decision = decided(desk, "/api/generate", {"model": "tiny", "keep_alive": 0})
    assert not isinstance(decision, Work)
    assert shown(desk, "/api/generate", {"model": "tiny", "keep_alive": 0})["done_reason"] == "unload"


def test_each_text_becomes_a_vector_and_the_tokens_are_counted() -> None:
    desk = make_desk("embed")
    found = shown(desk, "/api/embed", {"model": "embed", "input": ["one", "two"], "dimensions": 3})
    assert [len(vector) for vector in found["embeddings"]] == [3, 3]  # type: ignore[attr-defined]
    assert (found["prompt_eval_count"], found["total_duration"]) == (2, 40)


def test_to_embed_nothing_loads_a_model_of_any_kind_in_an_instant() -> None:
    decision = decided(make_desk(), "/api/embed", {"model": "tiny"})
    assert isinstance(decision, Work)
    assert isinstance(decision.task, Settlement)
    assert decision.task.is_instant


@pytest.mark.parametrize(("path", "body"), [("/api/embed", {"input": "x"}), ("/api/embeddings", {"prompt": "x"})])
def test_a_model_that_talks_does_not_embed(path: str, body: dict[str, object]) -> None:
    status, text = refused(make_desk(), path, body | {"model": "tiny"})
    assert (status, str(text)[:38]) == (501, "This server does not support embedding")


def test_the_old_route_embeds_one_text_and_nothing_as_nothing() -> None:
    desk = make_desk("embed")
    new = shown(desk, "/api/embed", {"model": "embed", "input": "x"})["embeddings"]
    assert [shown(desk, "/api/embeddings", {"model": "embed", "prompt": "x"})["embedding"]] == new
    assert shown(desk, "/api/embeddings", {"model": "embed"})["embedding"] == []
