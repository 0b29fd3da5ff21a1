"""Finds the model's name in a multipart/form-data body (RFC 7578), without a copy of the file in the body."""

from __future__ import annotations

import re

from hive.errors import BAD_REQUEST, REPEATED_KEY, Fault

_BOUNDARY = re.compile(rb"""boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))""", re.IGNORECASE)
_LINE_END = re.compile(rb"[ \t]*\r\n")
_DISPOSITION = b"content-disposition"
_PARAMETER = re.compile(
    rb"""[ \t]*;[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^\s;"]*))[ \t]*"""
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MAX_PARTS = 64
_MAX_PART_HEAD_BYTES = 8192
_MAX_VALUE_BYTES = 1024


def read_model(body: bytes, content_type: bytes) -> str:
    """Return the value of the field `model`; "" if there is none. Raises `Fault` for a form that cannot be read."""
    if not content_type.lower().startswith(b"multipart/form-data"):
        raise Fault(BAD_REQUEST, "this route takes multipart/form-data")
    match = _BOUNDARY.search(content_type)
    if not match:
        raise Fault(BAD_REQUEST, "the multipart body has no boundary")
    delimiter = b"\r\n--" + (match[1] or match[2])
    model: str | None = None
    for head, value in _parts(b"\r\n" + body, delimiter):
        if _field_name(head).lower() != b"model":
            continue
        if model is not None:
            raise Fault(REPEATED_KEY, "the field 'model' stands twice in the form")
        if len(value) > _MAX_VALUE_BYTES:
            raise Fault(BAD_REQUEST, "the field 'model' is too long")
        model = value.decode("utf-8", "replace").strip()
    return model or ""


def _field_name(head: bytes) -> bytes:
    """Return the name of a part's field. Raises `Fault` if two readers could understand the head differently."""
    name: bytes | None = None
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            raise Fault(BAD_REQUEST, "a folded header in the multipart body")
        header, _, value = line.partition(b":")
        if header.strip().lower() != _DISPOSITION:
            continue
        if name is not None:
            raise Fault(BAD_REQUEST, "two headers Content-Disposition in one part of the form")
        name = _name_parameter(value)
    return name or b""


def _name_parameter(disposition: bytes) -> bytes:
    name: bytes | None = None
    start = disposition.find(b";")
    while 0 <= start < len(disposition):
        parameter = _PARAMETER.match(disposition, start)
        if parameter is None:
            raise Fault(BAD_REQUEST, "a malformed Content-Disposition in the multipart body")
        start = parameter.end()
        key = parameter[1].lower()
        if key.startswith(b"name*") or (key == b"name" and name is not None):
            raise Fault(BAD_REQUEST, "an ambiguous name of a field in the multipart body")
        if key == b"name":
            name = _ESCAPED.sub(rb"\1", parameter[2]) if parameter[2] is not None else parameter[3]
    return name or b""


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, bytes]]:
    """Return head and value of each part. A line that only begins like the delimiter belongs to its part."""
    parts: list[tuple[bytes, bytes]] = []
    start, is_last = _next_delimiter(body, delimiter, 0)
    while start >= 0:
        if is_last:
            return parts
        start = body.index(b"\r\n", start + len(delimiter))
        end, is_last = _next_delimiter(body, delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_PART_HEAD_BYTES)
        if end < 0 or head_end < 0 or head_end > end or len(parts) >= _MAX_PARTS:
            break
        parts.append((body[start + 2 : head_end], body[head_end + 4 : end]))
        start = end
    raise Fault(BAD_REQUEST, "the multipart body is malformed")


def _next_delimiter(body: bytes, delimiter: bytes, start: int) -> tuple[int, bool]:
    """Return where the next delimiter line begins (-1: there is none), and whether that line ends the form."""
    while (start := body.find(delimiter, start)) >= 0:
        after = start + len(delimiter)
        if body.startswith(b"--", after):
            return start, True
        if _LINE_END.match(body, after):
            return start, False
        start = after
    return -1, False
