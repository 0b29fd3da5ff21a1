"""Reads streams of server-sent events by the rules that all dialects share; the reader of a dialect adds its own."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hive.dialects.unit_reader import (
    NOT_AT_ONCE,
    Ending,
    MalformedStream,
    Unit,
    UnitReader,
    decode_unit,
    read_unit,
)

_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b""})
_DONE = b"[DONE]"
_MISSING, _UNSET = Ending.MISSING, msgspec.UNSET


class SseReader(UnitReader):
    """Reads events. A dialect says which types of events end its streams, and where the text stands in an event."""

    __slots__ = ()

    separator = b"\n\n"
    whole_types: frozenset[str] = frozenset()
    """Types of events that end a whole stream."""
    error_types = frozenset({"error"})
    """Types of events that end a stream with an error."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, at least one; return the events that are whole now. Raises `MalformedStream`."""
        if self._partial or not data.startswith(b"data: {") or data.find(b"\n") != len(data) - 2:
            return UnitReader.feed(self, data)
        try:
            unit = decode_unit(data[6:])
        except NOT_AT_ONCE:
            return UnitReader.feed(self, data)
        self.ending = _MISSING if unit.error is _UNSET and not unit.type else self._ending_of(b"", unit)
        self.last_units = data
        return data

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        if data.endswith(b"\n\n"):
            return len(data)
        lf = data.rfind(b"\n\n")
        crlf = data.rfind(b"\r\n\r\n")
        return max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)

    @staticmethod
    def first_bytes(data: bytes) -> int:
        lf, crlf = data.find(b"\n\n"), data.find(b"\r\n\r\n")
        return crlf + 4 if crlf >= 0 and (lf < 0 or crlf < lf) else lf + 2 if lf >= 0 else 0

    def check(self, units: bytes) -> tuple[bytes, Ending | None]:
        ending: Ending | None = None
        for name, data in _events(units):
            if data:
                ending = Ending.WHOLE if data == _DONE else self._ending_of(name, read_unit(data))
        return units, ending

    def ending_of_start(self, start: bytes) -> Ending:
        name = start.lstrip(b"\r\n").partition(b"\n")[0].removeprefix(b"event:").strip().decode("latin-1")
        return Ending.WHOLE if name in self.whole_types else Ending.MISSING

    def deltas(self, units: bytes) -> list[str]:
        found: list[str] = []
        for _, data in _events(units):
            try:
                found += self.texts(data) if data and data != _DONE else ()
            except NOT_AT_ONCE:
                continue
        return [text for text in found if text]

    def texts(self, data: bytes) -> list[str]:
        """Return the pieces of text in the data of an event. Raises what `msgspec` raises for data of another form."""
        raise NotImplementedError

    def _ending_of(self, name: bytes, unit: Unit) -> Ending:
        if name == b"error" or unit.type in self.error_types or unit.tells_error:
            return Ending.ERROR
        return Ending.WHOLE if unit.type in self.whole_types else Ending.MISSING


def _events(units: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of each event. Raises `MalformedStream`."""
    plain = units.replace(b"\r\n", b"\n") if b"\r" in units else units
    for event in plain.split(b"\n\n"):
        yield _parse(event)


def _parse(event: bytes) -> tuple[bytes, bytes]:
    """Return name and data of an event; empty data for comments. Raises `MalformedStream` for an unknown field."""
    name, data = b"", b""
    for line in event.split(b"\n"):
        if not line:
            continue
        key, _, value = line.partition(b":")
        if key not in _FIELDS:
            raise MalformedStream("a line that is no server-sent event")
        if key == b"data":
            data = data + b"\n" + value.strip() if data else value.strip()
        elif key == b"event":
            name = value.strip()
    return name, data
