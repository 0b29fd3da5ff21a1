"""The text in the events of a message."""

from __future__ import annotations

from hive.dialects.anthropic_reader import AnthropicReader

TEXT = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n'
REASON = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_the_deltas_are_the_texts_of_the_blocks() -> None:
    assert AnthropicReader(500).deltas(TEXT + REASON + STOP) == ["a"]
