"""The routes below /v1: limits, vectors, lists, and what each kind of server shows of itself."""

from __future__ import annotations

import base64
import struct

import pytest

from hive.testing import SimKind

from .desks import make_desk, refused, reply, shown, spoken

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = {"model": "tiny", "messages": MESSAGES}


@pytest.mark.parametrize(("kind", "tokens"), [(SimKind.OLLAMA, 3), (SimKind.VLLM, 5), (SimKind.OPENAI, 5)])
def test_only_an_ollama_overlooks_the_newer_limit(kind: SimKind, tokens: int) -> None:
    body = CHAT | {"max_tokens": 3, "max_completion_tokens": 5}
    assert spoken(make_desk(kind=kind), "/v1/chat/completions", body).voice.speech.tokens == tokens


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"max_tokens": 3}),
        ("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 3}),
        ("/v1/responses", {"model": "tiny", "input": "x", "max_output_tokens": 3}),
        ("/v1/messages", CHAT | {"max_tokens": 3}),
    ],
)
def test_each_route_has_its_limit_and_streams_only_on_demand(path: str, body: dict[str, object]) -> None:
    desk = make_desk()
    whole, stream = spoken(desk, path, body), spoken(desk, path, body | {"stream": True})
    assert (whole.voice.speech.tokens, whole.is_stream, stream.is_stream) == (3, False, True)


def test_a_chat_needs_messages() -> None:
    assert refused(make_desk(), "/v1/chat/completions", {"model": "tiny"}) == (400, "[] is too short - 'messages'")
    assert refused(make_desk(), "/v1/messages", {"model": "tiny", "max_tokens": 1})[0] == 400


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 0}, {"max_tokens": -1}])
def test_an_anthropic_message_needs_a_limit(limit: dict[str, int]) -> None:
    text = "max_tokens is required and must be positive"
    assert refused(make_desk(), "/v1/messages", CHAT | limit) == (400, text)


@pytest.mark.parametrize(("kind", "thinks"), [("enabled", True), ("adaptive", True), ("disabled", False)])
def test_an_anthropic_message_says_whether_to_think(kind: str, thinks: bool) -> None:
    body = CHAT | {"model": "thinker", "max_tokens": 9, "thinking": {"type": kind}}
    assert bool(spoken(make_desk("thinker"), "/v1/messages", body).voice.speech.thoughts) is thinks


def test_a_model_that_embeds_does_not_talk() -> None:
    assert refused(make_desk("embed"), "/v1/chat/completions", CHAT | {"model": "embed"})[0] == 400


def test_tokens_of_a_message_are_counted_where_the_server_can() -> None:
    desk = make_desk(kind=SimKind.VLLM)
    assert int(str(shown(desk, "/v1/messages/count_tokens", CHAT)["input_tokens"])) > 1
    assert reply(make_desk(), "/v1/messages/count_tokens", CHAT).status == 404


def test_vectors_come_as_numbers_or_packed() -> None:
    desk = make_desk("embed")
    body = {"model": "embed", "input": ["a", "b"], "dimensions": 4}
    plain = shown(desk, "/v1/embeddings", body)
    packed = shown(desk, "/v1/embeddings", body | {"encoding_format": "base64"})
    assert [each["index"] for each in plain["data"]] == [0, 1]  # type: ignore[attr-defined]
    for one, other in zip(plain["data"], packed["data"], strict=True):  # type: ignore[call-overload]
        assert struct.unpack("<4f", base64.b64decode(other["embedding"])) == pytest.approx(one["embedding"])
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_there_is_something_to_embed_and_a_model_that_can() -> None:
    assert refused(make_desk("embed"), "/v1/embeddings", {"model": "embed"}) == (400, "invalid input")
    assert refused(make_desk(), "/v1/embeddings", {"model": "tiny", "input": "x"})[0] == 501


@pytest.mark.parametrize(
    ("kind", "name", "owner", "more"),
    [
        (SimKind.OLLAMA, "tiny:latest", "library", set()),
        (SimKind.VLLM, "tiny", "vllm", {"root", "parent", "max_model_len", "permission"}),
        (SimKind.LLAMA_CPP, "tiny", "llamacpp", {"meta"}),
        (SimKind.OPENAI, "tiny", "simulated", set()),
    ],
)
def test_each_kind_lists_its_models_in_its_way(kind: SimKind, name: str, owner: str, more: set[str]) -> None:
    (listed,) = shown(make_desk(kind=kind), "/v1/models")["data"]  # type: ignore[misc]
    assert (listed["id"], listed["owned_by"]) == (name, owner)
    assert set(listed) == {"id", "object", "created", "owned_by"} | more


def test_an_engine_without_models_lists_null_as_ollama_does() -> None:
    desk = make_desk()
    desk.catalogue.models.clear()
    assert shown(desk, "/v1/models")["data"] is None


def test_one_model_is_shown_as_it_was_asked_for() -> None:
    assert shown(make_desk(), "/v1/models/TINY")["id"] == "TINY"
    assert reply(make_desk(), "/v1/models/other").status == 404
