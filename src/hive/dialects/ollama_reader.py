"""Reads a stream of Ollama's own API: one JSON object a line."""

from __future__ import annotations

import msgspec

from hive.dialects.unit_reader import NOT_AT_ONCE, Ending, Unit, UnitReader, decode_unit, read_unit

_OPENING_BRACE = ord("{")
_MISSING, _UNSET = Ending.MISSING, msgspec.UNSET


class _Message(msgspec.Struct):
    content: str = ""


class _Line(msgspec.Struct):
    """The text in a line of /api/generate or of /api/chat."""

    response: str = ""
    message: _Message | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


class OllamaReader(UnitReader):
    """Reads lines. Blank lines are never passed on: three clients break on them."""

    __slots__ = ()

    separator = b"\n"

    def feed(self, data: bytes) -> bytes:
        """Take bytes, at least one; return the lines that are whole now. Raises `MalformedStream`."""
        if self._partial or data[0] != _OPENING_BRACE or data.find(b"\n") != len(data) - 1:
            return UnitReader.feed(self, data)
        try:
            unit = decode_unit(data)
        except NOT_AT_ONCE:
            return UnitReader.feed(self, data)
        self.ending = _MISSING if unit.error is _UNSET and not unit.done else _ending_of(unit)
        self.last_units = data
        return data

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        return data.rfind(b"\n") + 1

    @staticmethod
    def first_bytes(data: bytes) -> int:
        return data.find(b"\n") + 1

    def check(self, units: bytes) -> tuple[bytes, Ending | None]:
        lines = [line for line in units.split(b"\n") if line.strip()]
        if not lines:
            return b"", None
        for line in lines:
            unit = read_unit(line)
        return b"\n".join(lines) + b"\n", _ending_of(unit)

    def ending_of_start(self, start: bytes) -> Ending:
        return Ending.WHOLE if b',"done":true,' in start else Ending.MISSING

    def deltas(self, units: bytes) -> list[str]:
        found = []
        for line in units.splitlines():
            try:
                said = _decode_line(line)
            except NOT_AT_ONCE:
                continue
            found.append(said.response or (said.message.content if said.message is not None else ""))
        return [text for text in found if text]


def _ending_of(unit: Unit) -> Ending:
    if unit.tells_error:
        return Ending.ERROR
    return Ending.WHOLE if unit.done else Ending.MISSING
