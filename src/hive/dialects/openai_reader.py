"""Reads the events of OpenAI's chat and completions, whose last one is `[DONE]`."""

from __future__ import annotations

import msgspec

from hive.dialects.sse_reader import SseReader


class _ChoiceDelta(msgspec.Struct):
    content: str | None = ""


class _Choice(msgspec.Struct):
    """A choice of a chat has a delta, a choice of a completion a text."""

    delta: _ChoiceDelta | None = None
    text: str = ""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Chunk).decode


class OpenAiReader(SseReader):
    """Reads the events of a chat or a completion."""

    __slots__ = ()

    def texts(self, data: bytes) -> list[str]:
        choices = _decode(data).choices
        return [(each.delta.content or "" if each.delta is not None else each.text) for each in choices]
