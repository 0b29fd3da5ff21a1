"""The heads of messages that cross the hub: the head of a request is built anew, the head of an answer is filtered.

Method and path of a request are the hub's own literals. A client's credentials, cookies, origin and forwarding
fields never go to an engine. An engine's CORS fields, cookies and framing never go to a client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from hive.wire.requests import RequestHead

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
    }
)
"""The fields of RFC 9110, 7.6.1, and the length, which the sender counts itself."""

_NEVER_UP = _HOP_BY_HOP | {
    b"host",
    b"authorization",
    b"proxy-authorization",
    b"proxy-authenticate",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"x-auth-token",
    b"cookie",
    b"origin",
    b"referer",
    b"node",
    b"accept-encoding",
    b"content-encoding",
    b"expect",
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"http2-settings",
    b"content-type",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-rewrite-url",
}
"""The last five fields can name a method or path that was not judged."""
_NEVER_UP_PREFIXES = (b"x-forwarded-", b"x-hive-", b"sec-websocket-", b"access-control-", b"proxy-")
_NEVER_DOWN = _HOP_BY_HOP | {b"date", b"set-cookie", b"alt-svc", b"strict-transport-security", b"x-accel-buffering"}
_NEVER_DOWN_PREFIXES = (b"access-control-", b"x-hive-", b"proxy-")
_CREDENTIAL = re.compile(
    rb"(?:\A|[-_])(?:auth|authorization|authentication|token|secret|password|cookie2?|credentials?|jwt|apikey"
    rb"|(?:api|access|auth|subscription|functions|private|master)[-_]key|(?:remote|webauth)[-_]user)(?:\Z|[-_])"
)
"""The names of fields that carry a credential.

With such a field a caller of the hub could act at the node's engine as another caller.
"""


def request_head(path: bytes, host: bytes, credential: bytes, head: RequestHead, length: int) -> bytes:
    """Return the head of a POST to an engine, built from a client's head.

    `credential` is a whole header line, or empty.
    """
    lines = head.lines_up
    if lines is None:
        lines = head.lines_up = _lines_up(head.fields)
    return b"POST %b HTTP/1.1\r\nHost: %b\r\n%b%bContent-Length: %d\r\n\r\n" % (path, host, credential, lines, length)


def _lines_up(fields: dict[bytes, bytes]) -> bytes:
    lines: list[bytes] = []
    _add_fields_up(lines, fields, _crosses_hub)
    lines += (b"Content-Type: ", fields.get(b"content-type", b"application/json"), b"\r\n")
    return b"".join(lines)


def node_request_head(head: RequestHead, path: bytes, host: bytes, credential: bytes) -> bytes:
    """Return the head that a node sends to its engine, built from the hub's head and framed in the same way.

    A field that crosses the hub crosses the node too, except for names that look like a credential: the node does not
    trust the hub with those.
    """
    return _framed_head(head, path, host, credential, _crosses_node)


def streamed_request_head(head: RequestHead, path: bytes, host: bytes, credential: bytes) -> bytes:
    """Return the head of a request to an engine whose body streams. It is framed as the client framed it."""
    return _framed_head(head, path, host, credential, _crosses_hub)


def _framed_head(
    head: RequestHead, path: bytes, host: bytes, credential: bytes, crosses: Callable[[bytes], bool]
) -> bytes:
    lines = [head.method.encode(), b" ", path, b" HTTP/1.1\r\nHost: ", host, b"\r\n", credential]
    fields = head.fields
    _add_fields_up(lines, fields, crosses)
    if b"content-type" in fields:
        lines += (b"Content-Type: ", fields[b"content-type"], b"\r\n")
    if head.is_chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif head.content_length is not None:
        lines.append(b"Content-Length: %d\r\n" % head.content_length)
    lines.append(b"\r\n")
    return b"".join(lines)


def _add_fields_up(lines: list[bytes], fields: dict[bytes, bytes], crosses: Callable[[bytes], bool]) -> None:
    named = _named_by_connection(fields[b"connection"]) if b"connection" in fields else ()
    for name, value in fields.items():
        if crosses(name) and name not in named:
            lines += (name, b": ", value, b"\r\n")


@lru_cache(maxsize=256)
def _crosses_hub(name: bytes) -> bool:
    return name not in _NEVER_UP and not name.startswith(_NEVER_UP_PREFIXES)


@lru_cache(maxsize=256)
def _crosses_node(name: bytes) -> bool:
    return _crosses_hub(name) and _CREDENTIAL.search(name) is None


def response_fields(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the header lines of an engine's answer that go to the client."""
    lines: list[bytes] = []
    named: frozenset[bytes] = frozenset()
    for name, value in fields:
        if name == b"connection":
            named |= _named_by_connection(value)
    for name, value in fields:
        start = _start_of_line_down(name)
        if start is None or name in named or (name == b"vary" and b"origin" in value.lower()):
            continue
        lines += (start, value, b"\r\n")
    return b"".join(lines)


@lru_cache(maxsize=256)
def _start_of_line_down(name: bytes) -> bytes | None:
    """Return the start of a header line for the client; None for a field that does not go to the client."""
    if name in _NEVER_DOWN or name.startswith(_NEVER_DOWN_PREFIXES):
        return None
    return _SPELLINGS.get(name, name) + b": "


def _named_by_connection(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))


_SPELLINGS = {b"content-type": b"Content-Type", b"server": b"Server", b"retry-after": b"Retry-After"}
