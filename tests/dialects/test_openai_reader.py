"""The text in the events of a chat and of a completion."""

from __future__ import annotations

from hive.dialects.openai_reader import OpenAiReader

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}\n\n'
CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
COMPLETION = b'data: {"choices":[{"index":0,"text":"b"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_the_deltas_are_the_texts_of_all_choices() -> None:
    assert OpenAiReader(500).deltas(ROLE + b": ping\n\n" + CHAT + COMPLETION + USAGE + DONE) == ["a", "b"]


def test_an_event_that_cannot_be_read_has_no_delta() -> None:
    assert OpenAiReader(500).deltas(b'data: {"choices":5}\n\ndata: nonsense\n\n') == []
