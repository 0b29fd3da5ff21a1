"""Events of the three dialects that stream them: what each feed returns, and the text in them."""

from __future__ import annotations

import pytest

from hive.dialects.anthropic_reader import AnthropicReader
from hive.dialects.openai_reader import OpenAiReader
from hive.dialects.responses_reader import ResponsesReader
from hive.dialects.unit_reader import Ending, UnitReader

CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
COMPLETION = b'data: {"choices":[{"index":0,"text":"b"}]}\n\n'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
STOP = b'data: {"type":"message_stop"}\n\n'
FAILED = b'data: {"type":"response.failed"}\n\n'
ERROR = b'data: {"type":"error","error":{"message":"boom"}}\n\n'
COMMENT = b": ping\n\n"


@pytest.mark.parametrize("event", [CHAT, COMPLETION, USAGE])
def test_one_plain_event_passes_as_it_is(event: bytes) -> None:
    reader = OpenAiReader(500)
    assert reader.feed(event) is event
    assert (reader.ending, reader.last_units) == (Ending.MISSING, event)


@pytest.mark.parametrize(
    ("reads", "event", "ending"),
    [
        (OpenAiReader, DONE, Ending.WHOLE),
        (OpenAiReader, STOP, Ending.MISSING),
        (OpenAiReader, FAILED, Ending.MISSING),
        (OpenAiReader, ERROR, Ending.ERROR),
        (AnthropicReader, STOP, Ending.WHOLE),
        (AnthropicReader, ERROR, Ending.ERROR),
        (ResponsesReader, FAILED, Ending.ERROR),
        (ResponsesReader, ERROR, Ending.ERROR),
    ],
)
def test_each_dialect_ends_in_its_own_way(reads: type[UnitReader], event: bytes, ending: Ending) -> None:
    for pieces in ([event], [event[:9], event[9:]], [CHAT + event], [event.replace(b"\n", b"\r\n")]):
        reader = reads(500)
        passed = b"".join(reader.feed(piece) for piece in pieces)
        assert (passed, reader.ending) == (b"".join(pieces), ending)


def test_what_an_engine_measured_stands_before_the_end_mark_and_is_kept_with_it() -> None:
    reader = OpenAiReader(500)
    reader.feed(CHAT)
    reader.feed(USAGE)
    reader.feed(DONE)
    assert reader.last_units == USAGE + DONE


def test_comments_pass_and_end_nothing() -> None:
    reader = OpenAiReader(500)
    reader.feed(DONE)
    assert reader.feed(COMMENT) == COMMENT
    assert reader.is_whole
