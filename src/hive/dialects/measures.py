"""What an engine tells of its own pace at the end of an answer.

An answer is read in its engine's dialect. Ollama's final line has durations in nanoseconds. llama.cpp's last event has
`timings` in milliseconds. The `usage` of OpenAI and Anthropic has only counts. Only the last bytes of an answer are
read. A mark inside a text is not taken for a measure, because its quotes would be escaped.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from hive.dialects.tasks import Dialect

TAIL_BYTES = 1024
"""The number of bytes that are read at an answer's end."""
_NANO = 1e-9
_MILLI = 1e-3
_Whole = Annotated[int, Meta(ge=0, lt=1 << 53)]
_Decimal = Annotated[float, Meta(ge=0, lt=1 << 53)]
"""Values that no engine could mean are refused, so no arithmetic fails on the others."""


class Measured(msgspec.Struct, frozen=True):
    """The measures of an exchange that was served, in seconds and tokens; None for a value that was not measured."""

    first_byte: float | None = None
    """The time from the request until the engine's first byte, as the hub saw it."""
    prompt_tokens: int | None = None
    prompt_seconds: float | None = None
    output_tokens: int | None = None
    decode_seconds: float | None = None
    load_seconds: float | None = None
    total_seconds: float | None = None
    """The time by the engine's own clock, from the request to the end."""
    whole_seconds: float | None = None
    """From the request to the end of an answer in one piece, as the hub saw it, if the engine tells no durations."""

    @property
    def waited_inside(self) -> float | None:
        """Return the seconds in the engine's own queue; None when the engine did not tell enough."""
        prompt, decode, load = self.prompt_seconds, self.decode_seconds, self.load_seconds
        if self.total_seconds is None or prompt is None or decode is None or load is None:
            return None
        return max(0.0, self.total_seconds - prompt - decode - load)


class _Durations(msgspec.Struct):
    """The durations in Ollama's final line, in nanoseconds. Ollama leaves out those that have no value."""

    total_duration: _Whole
    load_duration: _Whole = 0
    prompt_eval_count: _Whole | None = None
    prompt_eval_duration: _Whole | None = None
    eval_count: _Whole | None = None
    eval_duration: _Whole | None = None

    @property
    def prompt_seconds(self) -> float | None:
        """Return how long the prompt took. For embeddings, which tell less, that is all the time but the load."""
        if self.prompt_eval_duration is not None:
            return self.prompt_eval_duration * _NANO
        return max(0, self.total_duration - self.load_duration) * _NANO if self.eval_count is None else None


class _Timings(msgspec.Struct):
    """The `timings` in llama.cpp's last event, in milliseconds."""

    prompt_n: _Whole
    prompt_ms: _Decimal
    predicted_n: _Whole
    predicted_ms: _Decimal


class _Usage(msgspec.Struct):
    prompt_tokens: _Whole | None = None
    completion_tokens: _Whole | None = None
    input_tokens: _Whole | None = None
    output_tokens: _Whole | None = None


T = TypeVar("T", _Durations, _Timings, _Usage)
_durations = msgspec.json.Decoder(_Durations)
_timings = msgspec.json.Decoder(_Timings)
_usage = msgspec.json.Decoder(_Usage)
_DURATIONS = (b'"total_duration":',)
_TIMINGS = b'"timings":{', b'"timings": {'
_USAGE = b'"usage":{', b'"usage": {'
"""The marks as engines write them, without and with a space."""
_DETAILS = re.compile(rb"\{[^{}]*\}")


def read_measured(
    dialect: Dialect, tail: bytes, first_byte: float | None = None, whole: float | None = None
) -> Measured:
    """Return the measures that stand at the end of an answer, in its engine's dialect.

    `first_byte`, `whole`: the seconds until the answer's first byte, or until its end, as the hub saw them.
    """
    if dialect is Dialect.OLLAMA:
        return _read_durations(tail, first_byte)
    timed = _object_with(tail, _TIMINGS, _timings)
    if timed is not None:
        return Measured(
            first_byte, timed.prompt_n, timed.prompt_ms * _MILLI, timed.predicted_n, timed.predicted_ms * _MILLI
        )
    used = _object_with(tail, _USAGE, _usage)
    if used is None:
        return Measured(first_byte)
    prompt = used.prompt_tokens if used.prompt_tokens is not None else used.input_tokens
    output = used.completion_tokens if used.completion_tokens is not None else used.output_tokens
    return Measured(first_byte, prompt, None, output, whole_seconds=whole)


def _read_durations(tail: bytes, first_byte: float | None) -> Measured:
    told = _object_with(tail, _DURATIONS, _durations, is_inside=True)
    if told is None:
        return Measured(first_byte)
    return Measured(
        first_byte,
        told.prompt_eval_count,
        told.prompt_seconds,
        told.eval_count,
        None if told.eval_duration is None else told.eval_duration * _NANO,
        told.load_duration * _NANO,
        told.total_duration * _NANO,
    )


def _object_with(
    tail: bytes, marks: tuple[bytes, ...], decoder: msgspec.json.Decoder[T], *, is_inside: bool = False
) -> T | None:
    """Return the object after the last mark; with `is_inside`, the rest of the object with the mark. Else None."""
    for mark in marks:
        start = tail.rfind(mark, -TAIL_BYTES)
        if start >= 0:
            break
    else:
        return None
    if not is_inside:
        start += len(mark)
    text, end, _ = _DETAILS.sub(b"0", tail[start:]).partition(b"}")  # details of details are not asked for
    try:
        return decoder.decode(b"{%b}" % text) if end else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
