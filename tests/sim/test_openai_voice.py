"""The chunks of /v1/chat/completions and /v1/completions, as Ollama and others write them."""

from __future__ import annotations

import json

import pytest

from hive.sim.openai_voice import DONE, ChatVoice, Completion, CompletionVoice, usage
from hive.sim.options import SimKind
from hive.sim.voices import Speech
from hive.sim.words import make_word

from .desks import CALL, CALLING, THOUGHT, TIMINGS, WORDS, clock, events

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def facts(kind: SimKind = SimKind.OLLAMA, *, include_usage: bool = False) -> Completion:
    return Completion(1003, "tiny", kind, include_usage)


def chat(speech: Speech, kind: SimKind = SimKind.OLLAMA, *, include_usage: bool = False) -> ChatVoice:
    return ChatVoice(speech, facts(kind, include_usage=include_usage), clock)


def deltas(data: bytes) -> list[object]:
    return [body["choices"][0]["delta"] for _, body in events(data)]  # type: ignore[index]


def test_usage_is_the_sum_of_prompt_and_answer() -> None:
    assert usage(WORDS) == USAGE


def test_ollamas_first_chunk_has_role_and_word() -> None:
    voice = chat(WORDS)
    data = voice.opening() + voice.token(make_word(" a")) + voice.token(make_word(" b"))
    assert deltas(data) == [{"role": "assistant", "content": " a"}, {"content": " b"}]


@pytest.mark.parametrize("kind", [SimKind.VLLM, SimKind.LLAMA_CPP, SimKind.OPENAI])
def test_other_servers_send_the_role_alone_first(kind: SimKind) -> None:
    voice = chat(WORDS, kind)
    data = voice.opening() + voice.token(make_word(" a"))
    assert deltas(data) == [{"role": "assistant", "content": ""}, {"content": " a"}]


@pytest.mark.parametrize(
    ("kind", "key"),
    [(SimKind.OLLAMA, "reasoning"), (SimKind.VLLM, "reasoning"), (SimKind.LLAMA_CPP, "reasoning_content")],
)
def test_a_thought_stands_where_the_server_puts_it(kind: SimKind, key: str) -> None:
    voice = chat(THOUGHT, kind)
    (*_, delta) = deltas(voice.opening() + voice.thought(make_word(" hm")))
    assert delta[key] == " hm"  # type: ignore[index]
    assert json.loads(voice.whole(TIMINGS))["choices"][0]["message"][key] == " hm"


def test_the_end_has_the_reason_and_done() -> None:
    data = chat(WORDS).closing(TIMINGS)
    assert data.endswith(DONE)
    ((_, last),) = events(data)
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]


def test_usage_is_a_chunk_without_choices_and_only_on_demand() -> None:
    (_, (_, last)) = events(chat(WORDS, include_usage=True).closing(TIMINGS))
    assert (last["choices"], last["usage"]) == ([], USAGE)


@pytest.mark.parametrize("in_stream", [True, False])
def test_a_call_carries_its_arguments_as_text(in_stream: bool) -> None:
    voice = chat(CALLING)
    data = events(voice.call(CALL))[0][1]["choices"] if in_stream else json.loads(voice.whole(TIMINGS))["choices"]
    message = data[0]["delta" if in_stream else "message"]  # type: ignore[index]
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == CALL.arguments
    assert ("index" in call) is in_stream


def test_a_whole_chat_has_message_usage_and_the_servers_fingerprint() -> None:
    whole = json.loads(chat(WORDS).whole(TIMINGS))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": ' one "two"'}
    assert (whole["usage"], whole["system_fingerprint"], whole["object"]) == (USAGE, "fp_ollama", "chat.completion")
    assert "system_fingerprint" not in json.loads(chat(WORDS, SimKind.VLLM).whole(TIMINGS))


def test_ids_wrap_as_ollamas_do() -> None:
    assert json.loads(chat(WORDS).whole(TIMINGS))["id"] == "chatcmpl-4"


def test_a_completion_streams_texts_and_ends_with_an_empty_one() -> None:
    voice = CompletionVoice(WORDS, facts(), clock)
    data = voice.token(make_word(" a")) + voice.closing(TIMINGS)
    assert data.endswith(DONE)
    assert [body["choices"] for _, body in events(data)] == [
        [{"text": " a", "index": 0, "finish_reason": None}],
        [{"text": "", "index": 0, "finish_reason": "length"}],
    ]


@pytest.mark.parametrize(("kind", "has_zeros"), [(SimKind.OLLAMA, True), (SimKind.VLLM, False)])
def test_an_ollama_that_is_asked_for_usage_puts_zeros_into_every_chunk(kind: SimKind, has_zeros: bool) -> None:
    voice = CompletionVoice(WORDS, facts(kind, include_usage=True), clock)
    ((_, chunk),) = events(voice.token(make_word(" a")))
    assert ("usage" in chunk) is has_zeros


def test_a_completion_has_no_place_for_thoughts_and_calls() -> None:
    voice = CompletionVoice(THOUGHT, facts(), clock)
    assert voice.thought(make_word(" hm")) + voice.call(CALL) + voice.opening() == b""


def test_a_whole_completion_has_text_and_usage() -> None:
    whole = json.loads(CompletionVoice(WORDS, facts(), clock).whole(TIMINGS))
    assert (whole["choices"][0]["text"], whole["usage"]) == (' one "two"', USAGE)


@pytest.mark.parametrize("voice", [ChatVoice, CompletionVoice])
def test_an_error_is_an_event_before_done(voice: type[ChatVoice] | type[CompletionVoice]) -> None:
    data = voice(WORDS, facts(), clock).error("broken")
    ((_, body),) = events(data)
    assert body["error"]["message"] == "broken"  # type: ignore[index]
    assert data.endswith(DONE)
