"""Reads the few top-level keys of a request that routing needs, and nothing else of it.

Go engines match JSON keys ignoring case and take the last of repeated ones; Python engines are exact. So that
no engine can read another model than the one that was authorised, a repeated key that the hub reads is refused,
after unescaping and ignoring case. Values are skipped, not decoded: 65 us for 110 KB.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from hive import errors
from hive.errors import Fault

READ_KEYS = frozenset({"model", "name", "stream", "tools", "keep_alive", "options"})
LOAD_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"})
"""Options for which an Ollama loads a model anew when they change."""


class RoutingFields(msgspec.Struct):
    """What a request says that decides where it goes; `model` in the client's spelling, "" when absent."""

    model: str = ""
    has_tools: bool = False
    has_keep_alive: bool = False
    """Does it change how long the model stays loaded?"""
    streams: bool = True
    """Is the answer to come piece by piece?"""
    load_options: str = ""
    """The options that decide how an Ollama loads the model, as JSON in one spelling; "" for none."""
    unloads: bool = False
    """Does it ask for nothing but that the model goes from memory?"""
    is_exact: bool = True
    """Did the model stand under the very key `model`?"""


class _Name:
    """A key of an object, equal only to itself. So a decoder keeps repeated keys."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _make_name(_: type, text: Any) -> _Name:
    return _Name(text)


_decode = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=_make_name).decode
_decode_value = msgspec.json.Decoder().decode
_SHORT_BODY_BYTES = 4096
_LENIENT_BYTES = 1 << 20
"""The lenient reader takes 0.16 s for a body of this size, in which no other request is served."""
_EXACT = frozenset(key.encode() for key in READ_KEYS)
_READ_KEY = re.compile(rb'"(%b)"' % b"|".join(sorted(_EXACT)), re.IGNORECASE)
_NO_TIME = frozenset({b"0", b"0.0", b'"0"', b'"0s"', b'"0m"', b'"0h"'})
_EMPTY_TOOLS = frozenset({b"null", b"[]"})


def read_fields(body: bytes, *, reads_name: bool = False, is_ollama: bool = True) -> RoutingFields:
    """Return the routing fields of a JSON body. Raises `Fault` with Ollama's status, and its text for an empty body."""
    if len(body) <= _SHORT_BODY_BYTES and body.isascii() and b"\\" not in body:
        fields = _read_quickly(body, is_ollama=is_ollama)
        if fields is not None:
            return fields
    if not body.strip():
        raise Fault(errors.BAD_JSON, "missing request body" if is_ollama else "EOF")
    try:
        pairs = [(name.text, bytes(value)) for name, value in _decode(body).items()]
    except msgspec.ValidationError:
        raise Fault(errors.BAD_JSON, "the request body must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pairs = _read_slowly(body)
    return _pick(pairs, reads_name=reads_name, is_ollama=is_ollama)


_ABSENT = msgspec.Raw(b"null")


class _Short(msgspec.Struct):
    model: str = ""
    stream: msgspec.Raw = _ABSENT
    options: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    keep_alive: msgspec.Raw = _ABSENT


_decode_short = msgspec.json.Decoder(_Short).decode


def _read_quickly(body: bytes, *, is_ollama: bool) -> RoutingFields | None:
    """Read a short plain body whose keys cannot stand twice in any spelling; None for any other: it may not refuse."""
    named = _READ_KEY.findall(body)
    if len(named) != len(set(named)) or not _EXACT.issuperset(named):
        return None
    try:
        short = _decode_short(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not short.model:
        return None
    keep_alive = b"null" if short.keep_alive is _ABSENT else bytes(short.keep_alive)
    return RoutingFields(
        short.model,
        short.tools is not _ABSENT and _has_tools(bytes(short.tools)),
        keep_alive != b"null",
        _streams(bytes(short.stream), is_ollama=is_ollama),
        _load_options(bytes(short.options)) if is_ollama and short.options is not _ABSENT else "",
        is_ollama and keep_alive in _NO_TIME and _asks_for_nothing(body),
    )


def _asks_for_nothing(body: bytes) -> bool:
    members = _decode_value(body)
    return not any(members.get(key) for key in ("prompt", "messages", "input", "images", "suffix", "tools"))


def _streams(raw: bytes, *, is_ollama: bool) -> bool:
    """Does the answer stream? Only Ollama's own routes stream unless they are told not to."""
    return raw != b"false" if is_ollama else raw == b"true"


def _load_options(raw: bytes) -> str:
    if raw == b"null":
        return ""
    try:
        options = _decode_value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(options, dict):
        return ""
    kept = {key: options[key] for key in sorted(LOAD_OPTIONS & options.keys()) if isinstance(options[key], int | float)}
    return json.dumps(kept) if kept else ""


def _has_tools(raw: bytes) -> bool:
    return raw not in _EMPTY_TOOLS and (len(raw) > _SHORT_BODY_BYTES or bytes(raw).translate(None, b" \t\r\n") != b"[]")


def _read_slowly(body: bytes) -> list[tuple[str, bytes]]:
    """Read what the strict decoder refuses and Go accepts: lone surrogates, bytes that are not UTF-8."""
    if len(body) > _LENIENT_BYTES:
        raise Fault(
            errors.BAD_JSON, f"the request body is not strict JSON in UTF-8, and is over {_LENIENT_BYTES} bytes"
        )
    try:
        pairs = json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except RecursionError:
        raise Fault(errors.BAD_JSON, "the request body is nested too deeply") from None
    except ValueError as error:
        raise Fault(errors.BAD_JSON, _go_text(error)) from None
    if not isinstance(pairs, _Pairs):
        raise Fault(errors.BAD_JSON, "the request body must be a JSON object")
    return [(name, _raw(value)) for name, value in pairs if name.casefold() in READ_KEYS]


class _Pairs(list[tuple[str, Any]]):
    """The pairs of an object as they stand."""


def _raw(value: object) -> bytes:
    """Return JSON for what routing asks of a value: is it text, null, true, an object, an empty list?"""
    if isinstance(value, str):
        return json.dumps(value).encode()
    if value is None:
        return b"null"
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, _Pairs) and value:
        return json.dumps(dict(value)).encode()
    return b"[]" if value == [] and not isinstance(value, _Pairs) else b"0"


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"invalid character in JSON: {constant}")


def _go_text(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
            return "unexpected EOF"
        return f"invalid JSON at byte {error.pos}: {error.msg}"
    return str(error)


def _pick(pairs: list[tuple[str, bytes]], *, reads_name: bool, is_ollama: bool) -> RoutingFields:
    values: dict[str, bytes] = {}
    is_exact = True
    for name, value in pairs:
        key = name.casefold()
        if key not in READ_KEYS:
            continue
        if key in values:
            raise Fault(errors.REPEATED_KEY, f"the key {key!r} stands twice in the request body")
        values[key] = value
        is_exact = is_exact and name == key
    fields = RoutingFields(is_exact=is_exact)
    fields.model = _text(values, "model") or (_text(values, "name") if reads_name else "")
    fields.has_keep_alive = values.get("keep_alive", b"null") != b"null"
    fields.has_tools = _has_tools(values.get("tools", b"[]"))
    fields.streams = _streams(values.get("stream", b"null"), is_ollama=is_ollama)
    fields.load_options = _load_options(values.get("options", b"null")) if is_ollama else ""
    return fields


def _text(values: dict[str, bytes], key: str) -> str:
    raw = values.get(key)
    if raw is None or raw == b"null":
        return ""
    try:
        value = _decode_value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Fault(errors.BAD_JSON, f"the key {key!r} is not valid text") from None
    if not isinstance(value, str):
        raise Fault(errors.BAD_JSON, f"the key {key!r} must be a string")
    return value


def replace_model(body: bytes, model: str) -> bytes:
    """Return the body with another model; every other value keeps its bytes."""
    try:
        members = {name.text: value for name, value in _decode(body).items() if name.text.casefold() != "model"}
        return msgspec.json.encode({"model": model, **members})
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        pass
    try:
        loose = json.loads(body.decode("utf-8", "replace"))
        kept = {key: value for key, value in loose.items() if key.casefold() != "model"}
        return json.dumps({"model": model, **kept}).encode()
    except (ValueError, RecursionError, AttributeError):
        raise Fault(errors.BAD_JSON, "the request body cannot be read") from None
