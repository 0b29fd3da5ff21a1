"""Reads the events of Anthropic's messages."""

from __future__ import annotations

import msgspec

from hive.dialects.sse_reader import SseReader


class _MessageDelta(msgspec.Struct):
    text: str = ""


class _MessageEvent(msgspec.Struct):
    delta: _MessageDelta | None = None


_decode = msgspec.json.Decoder(_MessageEvent).decode


class AnthropicReader(SseReader):
    """Reads the events of a message."""

    __slots__ = ()

    whole_types = frozenset({"message_stop"})

    def texts(self, data: bytes) -> list[str]:
        delta = _decode(data).delta
        return [delta.text] if delta is not None else []
