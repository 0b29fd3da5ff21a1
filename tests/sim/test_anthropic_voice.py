"""The events of /v1/messages in their order."""

from __future__ import annotations

import json

import pytest

from hive.sim.anthropic_voice import AnthropicVoice
from hive.sim.voices import Speech

from .desks import CALL, CALLING, THOUGHT, TIMINGS, WORDS, events


def said(speech: Speech) -> list[tuple[str, dict[str, object]]]:
    """Return the events of a whole stream."""
    voice = AnthropicVoice(speech, "tiny", 5)
    data = voice.opening()
    if speech.call:
        data += voice.call(speech.call)
    else:
        data += b"".join(map(voice.thought, speech.thoughts)) + b"".join(map(voice.token, speech.words))
    return events(data + voice.closing(TIMINGS))


def test_a_text_is_one_block_between_start_and_stop() -> None:
    names = [name for name, _ in said(WORDS)]
    deltas = ["content_block_delta"] * 2
    assert names == [
        "message_start", "content_block_start", *deltas, "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_each_event_says_its_name_in_its_type() -> None:
    assert all(name == body["type"] for name, body in said(THOUGHT))


def test_the_deltas_are_the_words() -> None:
    texts = [body["delta"]["text"] for name, body in said(WORDS) if name == "content_block_delta"]  # type: ignore[index]
    assert texts == [" one", ' "two"']


def test_thoughts_are_a_block_before_the_text() -> None:
    blocks = [body for name, body in said(THOUGHT) if name == "content_block_start"]
    assert [(each["index"], each["content_block"]["type"]) for each in blocks] == [(0, "thinking"), (1, "text")]  # type: ignore[index]


def test_a_call_is_a_block_with_its_input_as_partial_json() -> None:
    found = said(CALLING)
    (delta,) = [body["delta"] for name, body in found if name == "content_block_delta"]
    assert json.loads(delta["partial_json"]) == CALL.arguments  # type: ignore[index]
    assert found[-2][1]["delta"] == {"stop_reason": "tool_use"}


@pytest.mark.parametrize(
    ("speech", "reason"),
    [(WORDS, "max_tokens"), (THOUGHT, "end_turn"), (CALLING, "tool_use")],
    ids=["words", "thought", "call"],
)
def test_stream_and_whole_answer_tell_the_same_reason_and_usage(speech: Speech, reason: str) -> None:
    whole = json.loads(AnthropicVoice(speech, "tiny", 5).whole(TIMINGS))
    delta = said(speech)[-2][1]
    assert whole["stop_reason"] == reason == delta["delta"]["stop_reason"]  # type: ignore[index]
    assert whole["usage"] == delta["usage"] == {"input_tokens": 7, "output_tokens": speech.tokens}


def test_a_whole_answer_has_its_blocks_and_the_id_of_its_number() -> None:
    whole = json.loads(AnthropicVoice(THOUGHT, "tiny", 5).whole(TIMINGS))
    assert whole["content"] == [{"type": "thinking", "thinking": " hm"}, {"type": "text", "text": " one"}]
    assert whole["id"] == "msg_000000000000000000000005"


def test_an_error_is_an_event_of_its_own() -> None:
    ((name, body),) = events(AnthropicVoice(WORDS, "tiny", 5).error("broken"))
    assert (name, body["error"]) == ("error", {"type": "api_error", "message": "broken"})
