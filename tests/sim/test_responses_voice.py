"""The numbered events of /v1/responses."""

from __future__ import annotations

import json

import pytest

from hive.sim.responses_voice import ResponsesVoice
from hive.sim.voices import Speech
from hive.sim.words import make_word

from .desks import CALL, CALLING, THOUGHT, TIMINGS, WORDS, clock, events


def voice_of(speech: Speech, limit: int | None = None) -> ResponsesVoice:
    return ResponsesVoice(speech, "tiny", limit, 5, clock)


def said(speech: Speech) -> list[tuple[str, dict[str, object]]]:
    """Return the events of a whole stream."""
    voice = voice_of(speech)
    data = voice.opening()
    data += voice.call(speech.call) if speech.call else b"".join(map(voice.token, speech.words))
    return events(data + voice.closing(TIMINGS))


@pytest.mark.parametrize("speech", [WORDS, CALLING], ids=["words", "call"])
def test_events_are_numbered_without_a_gap_and_say_their_names(speech: Speech) -> None:
    found = said(speech)
    assert [body["sequence_number"] for _, body in found] == list(range(len(found)))
    assert all(name == body["type"] for name, body in found)


def test_a_message_is_begun_told_and_ended() -> None:
    assert [name.removeprefix("response.") for name, _ in said(WORDS)] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_the_deltas_are_the_text_that_is_told_at_the_end() -> None:
    found = said(WORDS)
    text = "".join(str(body["delta"]) for name, body in found if name.endswith("text.delta"))
    (done,) = [body["text"] for name, body in found if name.endswith("output_text.done")]
    assert text == done == ' one "two"'


def test_a_call_is_an_item_with_its_arguments() -> None:
    found = dict(said(CALLING))
    assert json.loads(str(found["response.function_call_arguments.done"]["arguments"])) == CALL.arguments
    assert "response.output_text.done" not in found
    (item,) = found["response.completed"]["response"]["output"]  # type: ignore[index]
    assert (item["type"], item["name"]) == ("function_call", "weather")


def test_a_response_that_is_begun_has_no_output_and_no_usage() -> None:
    begun = dict(said(WORDS))["response.created"]["response"]
    assert isinstance(begun, dict)
    assert (begun["status"], begun["output"], begun["usage"], begun["completed_at"]) == ("in_progress", [], None, None)


def test_the_end_of_a_stream_is_the_whole_answer() -> None:
    assert dict(said(WORDS))["response.completed"]["response"] == json.loads(voice_of(WORDS).whole(TIMINGS))


def test_a_whole_answer_tells_usage_ids_and_the_limit() -> None:
    whole = json.loads(voice_of(WORDS, 99).whole(TIMINGS))
    assert (whole["id"], whole["output"][0]["id"], whole["max_output_tokens"]) == ("resp_5", "msg_5", 99)
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"], whole["usage"]["total_tokens"]) == (
        7,
        2,
        9,
    )
    assert whole["created_at"] == whole["completed_at"] == 1_767_225_600


def test_thoughts_are_left_out() -> None:
    assert voice_of(THOUGHT).thought(make_word(" hm")) == b""


def test_an_error_is_an_event() -> None:
    ((name, body),) = events(voice_of(WORDS).error("broken"))
    assert (name, body["message"], body["code"]) == ("error", "broken", "server_error")
