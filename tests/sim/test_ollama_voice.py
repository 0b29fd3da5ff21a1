"""The lines of /api/generate and /api/chat."""

from __future__ import annotations

import json

import pytest

from hive.sim.ollama_voice import OllamaVoice
from hive.sim.voices import Speech, Timings
from hive.sim.words import make_word

from .desks import CALL, CALLING, THOUGHT, TIMINGS, WORDS, clock


def voice_of(speech: Speech, *, is_chat: bool = False, is_raw: bool = False) -> OllamaVoice:
    return OllamaVoice(speech, "tiny", clock, is_chat=is_chat, is_raw=is_raw)


def test_a_line_carries_model_time_and_one_word() -> None:
    assert json.loads(voice_of(WORDS).token(make_word(' "a"'))) == {
        "model": "tiny",
        "created_at": "2026-01-01T00:00:00.000000000Z",
        "response": ' "a"',
        "done": False,
    }


def test_a_chat_says_it_in_a_message() -> None:
    line = json.loads(voice_of(WORDS, is_chat=True).token(make_word(" a")))
    assert line["message"] == {"role": "assistant", "content": " a"}
    assert "response" not in line


def test_a_thought_stands_beside_an_empty_answer() -> None:
    assert json.loads(voice_of(THOUGHT, is_chat=True).thought(make_word(" hm")))["message"] == {
        "role": "assistant",
        "content": "",
        "thinking": " hm",
    }


def test_the_last_line_tells_reason_counts_and_times() -> None:
    last = json.loads(voice_of(WORDS, is_chat=True).closing(TIMINGS))
    assert last.pop("message") == {"role": "assistant", "content": ""}
    assert {name: value for name, value in last.items() if name not in ("model", "created_at")} == {
        "done": True,
        "done_reason": "length",
        "total_duration": 40,
        "load_duration": 10,
        "prompt_eval_count": 7,
        "prompt_eval_duration": 20,
        "eval_count": 2,
        "eval_duration": 30,
    }


def test_counts_of_zero_are_left_out_as_go_does() -> None:
    assert "load_duration" not in json.loads(voice_of(WORDS).closing(Timings(total=1)))


@pytest.mark.parametrize(
    ("is_chat", "is_raw", "has_context"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_only_a_generation_that_is_not_raw_returns_its_context(is_chat: bool, is_raw: bool, has_context: bool) -> None:
    last = json.loads(voice_of(WORDS, is_chat=is_chat, is_raw=is_raw).closing(TIMINGS))
    assert ("context" in last) is has_context


def test_a_whole_answer_is_all_words_with_the_end() -> None:
    whole = json.loads(voice_of(THOUGHT).whole(TIMINGS))
    assert (whole["response"], whole["thinking"], whole["done"]) == (" one", " hm", True)


def test_an_unfinished_answer_has_the_words_and_no_end() -> None:
    unfinished = json.loads(voice_of(WORDS).unfinished())
    assert (unfinished["response"], unfinished["done"]) == (' one "two"', False)
    assert "done_reason" not in unfinished


@pytest.mark.parametrize("in_stream", [True, False])
def test_a_call_is_whole_in_stream_and_answer(in_stream: bool) -> None:
    voice = voice_of(CALLING, is_chat=True)
    message = json.loads(voice.call(CALL) if in_stream else voice.whole(TIMINGS))["message"]
    assert message["content"] == ""
    assert message["tool_calls"] == [
        {"id": "call_00000001", "function": {"index": 0, "name": "weather", "arguments": CALL.arguments}}
    ]


def test_a_lifecycle_answer_says_what_became_of_the_model() -> None:
    answer = json.loads(voice_of(Speech(0)).lifecycle("unload"))
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "unload", "")


def test_an_error_is_a_line() -> None:
    assert voice_of(WORDS).error("broken") == b'{"error":"broken"}\n'
