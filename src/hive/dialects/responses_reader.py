"""Reads the events of OpenAI's Responses."""

from __future__ import annotations

import msgspec

from hive.dialects.sse_reader import SseReader

_TEXT = "response.output_text.delta"


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: object = None


_decode = msgspec.json.Decoder(_ResponseEvent).decode


class ResponsesReader(SseReader):
    """Reads the events of a response."""

    __slots__ = ()

    whole_types = frozenset({"response.completed", "response.incomplete"})
    error_types = frozenset({"error", "response.failed"})

    def texts(self, data: bytes) -> list[str]:
        event = _decode(data)
        return [event.delta] if event.type == _TEXT and isinstance(event.delta, str) else []
