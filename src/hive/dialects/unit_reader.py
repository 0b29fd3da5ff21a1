"""The base of the readers of streamed answers: whole units go on, a part of a unit is held, an end mark is noticed.

A unit is a line or an event, as the engine's dialect has it. An answer that ends without its end mark is not whole.
"""

from __future__ import annotations

import json
from enum import Enum

import msgspec

_LONGEST_CUT = 3
"""The most bytes of a separator that can have come without its last byte."""


class Ending(Enum):
    """Says whether the last whole unit of a stream ends the stream, and how."""

    WHOLE = "whole"
    ERROR = "error"
    """It ends with an error that the engine itself told the client."""
    MISSING = "missing"


class MalformedStream(ValueError):  # noqa: N818 - it names what arrived
    """A unit that no client could read."""


class Unit(msgspec.Struct):
    """The values in the JSON of a line or an event that can tell of the stream's end."""

    done: bool = False
    type: str = ""
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    @property
    def tells_error(self) -> bool:
        """Does the unit tell of an error?"""
        return isinstance(self.error, msgspec.Raw) and bytes(self.error) not in _NO_ERROR


decode_unit = msgspec.json.Decoder(Unit).decode
NOT_AT_ONCE = msgspec.DecodeError, UnicodeDecodeError, RecursionError
"""The errors of `decode_unit` for data that must be read again, leniently."""
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_NO_ERROR = frozenset({b"null", b'""'})


def read_unit(data: bytes) -> Unit:
    """Return the unit in a JSON object; lenient, as clients are. Raises `MalformedStream` for other data."""
    try:
        return decode_unit(data)
    except NOT_AT_ONCE:
        pass
    try:
        value = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedStream("something that is not a JSON object")
    type_, error = value.get("type"), msgspec.Raw(b"1") if value.get("error") else msgspec.UNSET
    return Unit(value.get("done") is True, type_ if isinstance(type_, str) else "", error)


def is_json(data: bytes) -> bool:
    """Could a client read this as one JSON value? Lenient, as clients are; data nested too deeply counts as JSON."""
    try:
        _skip(data)
    except msgspec.DecodeError:
        try:
            json.loads(data.decode("utf-8-sig", "replace"), strict=False)
        except ValueError:
            return False
        except RecursionError:
            pass
    except RecursionError:
        pass
    return True


class UnitReader:
    """Reads one streamed answer: `feed` it bytes, and `end` it.

    A unit of more than `held_bytes` is not held: it goes on in pieces (`long_piece`), unchecked, if that is allowed.
    """

    __slots__ = ("_held_bytes", "_long_start", "_partial", "_passes_long", "ending", "last_units", "long_piece")

    separator = b""
    """The bytes that end a unit."""

    def __init__(self, held_bytes: int, *, passes_long: bool = True) -> None:
        """`passes_long`: may a long unit be passed on in pieces? If not, the stream is malformed."""
        self._held_bytes = held_bytes
        self._passes_long = passes_long
        self._partial = b""
        """The start of a unit that has not ended, or the last bytes of a long one: empty only between two units."""
        self._long_start: bytes | None = None
        """The first bytes of a unit that is too long to be held and has not ended."""
        self.ending = Ending.MISSING
        """How the last whole unit so far ends the stream."""
        self.last_units = b""
        """The last whole units. With an end mark, the units before it too: an engine tells its measures there."""
        self.long_piece = b""
        """The piece of a long unit that must go on before the units that `feed` returned. The caller empties it."""

    @staticmethod
    def whole_bytes(data: bytes) -> int:
        """Return how many bytes from the start are whole units."""
        raise NotImplementedError

    @staticmethod
    def first_bytes(data: bytes) -> int:
        """Return how many bytes from the start are the first whole unit."""
        raise NotImplementedError

    def check(self, units: bytes) -> tuple[bytes, Ending | None]:
        """Return whole units as they may go on, and how the last unit ends the stream; None when no unit tells.

        Raises `MalformedStream`.
        """
        raise NotImplementedError

    def ending_of_start(self, start: bytes) -> Ending:
        """Return how a unit too long to be kept ends the stream, from its first bytes."""
        raise NotImplementedError

    def deltas(self, units: bytes) -> list[str]:
        """Return the pieces of text that whole units add to the answer."""
        raise NotImplementedError

    def ending_of(self, unit: bytes) -> Ending:
        """Return the ending that a unit gives, although its separator has not come."""
        try:
            return self.check(unit + self.separator)[1] or Ending.MISSING
        except MalformedStream:
            return Ending.MISSING

    @property
    def is_whole(self) -> bool:
        """Has the end mark come, without an unfinished unit after it?"""
        return self.ending is not Ending.MISSING and not self._partial

    @property
    def is_inside_long_unit(self) -> bool:
        """Has the beginning of a long unit gone on, but not its end?"""
        return self._long_start is not None

    def feed(self, data: bytes) -> bytes:
        """Take bytes, at least one; return the units that are whole now, as they may be sent. Raises `MalformedStream`.

        A dialect's own `feed` reads a single plain unit in one step, and leaves everything else to this one.
        """
        if self._partial:
            data = self._partial + data
            self._partial = b""
        end = self.whole_bytes(data)
        if end == 0:
            self._hold(data)
            return b""
        units = data
        if end != len(data):
            units, self._partial = data[:end], data[end:]
        if self._long_start is not None:
            units = self._end_long(units, self._long_start)
            if not units:
                return b""
        units, ending = self.check(units)
        if units:
            self.last_units = self.last_units + units if ending is Ending.WHOLE else units
        if ending is not None:
            self.ending = ending
        return units

    def end(self) -> bytes:
        """Note that the answer has ended; return its last unit if that ends the stream and lacks only its separator.

        Raises `MalformedStream`.
        """
        if self._partial and self.ending_of(self._partial) is not Ending.MISSING:
            return self.feed(self.separator)
        return b""

    def _hold(self, data: bytes) -> None:
        if len(data) <= self._held_bytes:
            self._partial = data
            return
        if not self._passes_long:
            raise MalformedStream(f"a line or event of more than {self._held_bytes} bytes")
        data, self._partial = data[:-_LONGEST_CUT], data[-_LONGEST_CUT:]
        if self._long_start is None:
            self._long_start = data
        self.long_piece = data

    def _end_long(self, units: bytes, start: bytes) -> bytes:
        """Pass on the rest of a long unit; return the units after it."""
        end = self.first_bytes(units)
        self.long_piece, rest = units[:end], units[end:]
        self.last_units, self._long_start = b"", None
        self.ending = self.ending_of_start(start)
        return rest
