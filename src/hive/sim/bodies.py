"""What the engine reads from request bodies: one structure for the bodies of all routes, and Ollama's keep_alive."""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


_ABSENT = msgspec.Raw()


class BodyError(Exception):
    """A body that the engine cannot use. The message is that of Go's decoder, as far as it matters."""


class SamplingOptions(msgspec.Struct):
    """Ollama's `options`: those that the engine obeys."""

    num_predict: int | None = None
    num_ctx: int | None = None


class StreamOptions(msgspec.Struct):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class Body(msgspec.Struct):
    """Every field, of any route, that the engine obeys. Other fields are ignored."""

    model: str = ""
    name: str = ""
    stream: bool | None = None
    prompt: msgspec.Raw = _ABSENT
    messages: list[msgspec.Raw] | None = None
    input: msgspec.Raw = _ABSENT
    options: SamplingOptions | None = None
    keep_alive: float | str | None = None
    tools: list[msgspec.Raw] | None = None
    think: bool | str | None = None
    thinking: msgspec.Raw = _ABSENT
    raw: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream_options: StreamOptions | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    source: str = ""
    destination: str = ""

    @property
    def wanted_model(self) -> str:
        """Return the model's name; the field has two names."""
        return self.model or self.name

    @property
    def num_ctx(self) -> int | None:
        """Return the context that the request asks for."""
        return self.options.num_ctx if self.options else None

    @property
    def prompt_text(self) -> str:
        """Return the prompt; a list of strings is joined."""
        return "".join(as_texts(self.prompt))

    @property
    def asked(self) -> bytes:
        """Return what the answer depends on: prompt, messages or input, as JSON."""
        parts = [self.prompt, self.input, *(self.messages or ())]
        return b"".join(bytes(part) for part in parts)

    @property
    def keep_alive_seconds(self) -> float | None:
        """Return the value in seconds: infinite for a negative one, None when the field is missing."""
        return parse_keep_alive(self.keep_alive)


def parse_body(data: bytes | bytearray) -> Body:
    """Return the body's fields. Raises BodyError when the body has none."""
    if not data:
        raise BodyError("missing request body")
    try:
        return msgspec.json.decode(data, type=Body)
    except msgspec.ValidationError as error:
        raise BodyError(f"json: {error}") from error
    except msgspec.DecodeError as error:
        raise BodyError("unexpected EOF" if "truncated" in str(error) else f"invalid JSON: {error}") from error


def parse_keep_alive(value: float | str | None) -> float | None:
    """Return seconds, from a number or a Go duration ("1h30m"). Raises BodyError for anything else."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse_duration(value)
    return math.inf if value < 0 else value


def _parse_duration(text: str) -> float:
    unsigned = text.lstrip("+-") if len(text) - len(text.lstrip("+-")) <= 1 else ""
    if unsigned == "0":
        return 0.0
    parts = _DURATION.findall(unsigned)
    if not parts or "".join(number + unit for number, unit in parts) != unsigned:
        missing = "missing unit in" if unsigned.replace(".", "", 1).isdecimal() else "invalid"
        raise BodyError(f'time: {missing} duration "{text}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def as_texts(value: msgspec.Raw) -> list[str]:
    """Return a string, or a list of strings, as a list; an empty one for nothing.

    Raises BodyError for anything else.
    """
    if bytes(value) in (b"", b"null"):
        return []
    try:
        decoded = msgspec.json.decode(value, type=str | list[str])
    except msgspec.ValidationError:
        raise BodyError("invalid input type") from None
    return [decoded] if isinstance(decoded, str) else decoded
