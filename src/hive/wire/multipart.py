"""Finds the model's name in a multipart/form-data body (RFC 7578) without touching the file in it."""

from __future__ import annotations

import re

from hive.errors import BAD_REQUEST, REPEATED_KEY, Fault

_BOUNDARY = re.compile(rb"""boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))""", re.IGNORECASE)
_FIELD = re.compile(rb"""content-disposition:[^\r\n]*?;[ \t]*name=(?:"([^"\r\n]*)"|([^\s;"]+))""", re.IGNORECASE)
_MAX_PARTS = 64
_MAX_PART_HEAD_BYTES = 8192
_MAX_VALUE_BYTES = 1024


def read_model(body: bytes, content_type: bytes) -> str:
    """Return the value of the field `model`, "" when there is none. Raises `Fault` for a form that cannot be read."""
    if not content_type.lower().startswith(b"multipart/form-data"):
        raise Fault(BAD_REQUEST, "this route takes multipart/form-data")
    match = _BOUNDARY.search(content_type)
    if not match:
        raise Fault(BAD_REQUEST, "the multipart body has no boundary")
    delimiter = b"\r\n--" + (match[1] or match[2])
    model: str | None = None
    for head, value in _parts(b"\r\n" + body, delimiter):
        field = _FIELD.search(head)
        if field is None or (field[1] or field[2] or b"").lower() != b"model":
            continue
        if model is not None:
            raise Fault(REPEATED_KEY, "the field 'model' stands twice in the form")
        if len(value) > _MAX_VALUE_BYTES:
            raise Fault(BAD_REQUEST, "the field 'model' is too long")
        model = value.decode("utf-8", "replace").strip()
    return model or ""


def _parts(body: bytes, delimiter: bytes) -> list[tuple[bytes, bytes]]:
    parts: list[tuple[bytes, bytes]] = []
    position = body.find(delimiter)
    while position >= 0:
        position += len(delimiter)
        if body.startswith(b"--", position):
            return parts
        end = body.find(delimiter, position)
        head_end = body.find(b"\r\n\r\n", position, position + _MAX_PART_HEAD_BYTES)
        if end < 0 or head_end < 0 or head_end > end or len(parts) >= _MAX_PARTS:
            break
        parts.append((body[position:head_end], body[head_end + 4 : end]))
        position = end
    raise Fault(BAD_REQUEST, "the multipart body is malformed")
