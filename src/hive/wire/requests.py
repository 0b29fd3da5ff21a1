"""Reads one client's HTTP/1.1 requests from bytes, and refuses what could be read in two ways.

The reader takes bytes as they come (`feed`) and shows what it knows: `head` once the headers are whole, pieces of the
body, `is_complete`. It never starts a second message: bytes of a second one set `has_excess`, and the connection must
close after the answer. The head is collected and given to llhttp (httptools) whole, so that the cuts between reads do
not change the result. llhttp parses; the rules that it leaves open are here:

* the request line has two single spaces and ends in HTTP/1.0 or 1.1; its target is a path (RFC 9112, 3);
* exactly one Host, and it must look like one (RFC 9112, 3.2);
* Transfer-Encoding is `chunked` and nothing else, never with Content-Length, never under HTTP/1.0 (RFC 9112, 6.1);
* fields that carry a credential or a length stand once;
* the head has at most `max_head_bytes`; chunk extensions and trailers have the same limit and are dropped;
* a request with an offer to upgrade is read as an ordinary one: llhttp would treat the rest as another protocol.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

import httptools

from hive.errors import BAD_REQUEST, BODY_TOO_LARGE, HEAD_TOO_LARGE, HTTP_VERSION, METHOD_NOT_ALLOWED, Fault

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
}
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (\S+)(?: HTTP/(\d)\.(\d))?\r\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::[0-9]{1,5})?")
_OFFER = re.compile(rb"(\r\n)(upgrade[ \t]*:)", re.IGNORECASE)
_HIDDEN = b"x-hive-offered-"
"""The prefix that hides the name of an Upgrade field from llhttp."""
_HIDDEN_OFFER = _HIDDEN + b"upgrade"
_REWRITTEN = (b"\nupgrade", b" \r\n", b"\t\r\n")
"""A head is parsed unchanged if its lower-case form has none of these."""
_TRAILING_SPACE = re.compile(rb"(?<=[^ \t\r\n])[ \t]+\r\n")
_SINGLE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"x-api-key",
        b"content-type",
        b"content-encoding",
        b"origin",
    }
)
_COUNTED = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})\r\n", re.IGNORECASE)
_MAX_DIGITS = 15
_MAX_KNOWN_BYTES = 4096
"""The longest head that is remembered. Each connection keeps one."""
_MAX_PIECES = 1000
"""The most pieces of a body that are kept apart: each takes 34 bytes in addition to its content."""
_FIRST_BYTES = frozenset(b"\r\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~0123456789")


@dataclass(slots=True)
class RequestHead:
    """The head of a request. Names are in lower case; repeated fields are joined by a comma (RFC 9110, 5.3)."""

    method: str
    path: str
    query: str
    is_http11: bool
    fields: dict[bytes, bytes] = field(repr=False)
    keep_alive: bool = True
    content_length: int | None = None
    is_chunked: bool = False
    path_key: bytes | None = field(default=None, repr=False)
    """The key from a path `/k/KEY/...`; `path` is the rest."""
    lines_up: bytes | None = field(default=None, repr=False, compare=False)
    """The lines for an engine, once they are made (`forwarding.request_head`)."""

    @property
    def has_body(self) -> bool:
        """Does a body follow?"""
        return self.is_chunked or bool(self.content_length)

    @property
    def expects_continue(self) -> bool:
        """Does the client wait for `100 Continue`?"""
        return self.is_http11 and self.fields.get(b"expect", b"").lower() == b"100-continue"

    def with_length(self, digits: bytes) -> RequestHead:
        """Return the head of a request that differs only in its length."""
        return RequestHead(
            self.method,
            self.path,
            self.query,
            self.is_http11,
            {**self.fields, b"content-length": digits},
            self.keep_alive,
            int(digits),
            self.is_chunked,
            self.path_key,
            self.lines_up,
        )


@dataclass(frozen=True, slots=True)
class _KnownHead:
    """A head that was read before: its bytes around the digits of its length, and its meaning."""

    before: bytes = field(repr=False)
    after: bytes = field(repr=False)
    head: RequestHead


def split_key(path: str) -> tuple[str, bytes | None]:
    """Cut `/k/KEY` off a path. The key is None when the path has none."""
    if not path.startswith("/k/"):
        return path, None
    key, slash, rest = path[3:].partition("/")
    return (slash + rest) or "/", key.encode("ascii", "replace")


# large because: it reads one head and its body in one pass, and each further call costs time on every request
class RequestReader:
    """Reads the requests of one connection, one after the other. Call `restart` after each answer."""

    __slots__ = (
        "_body",
        "_fault",
        "_fields",
        "_gathered",
        "_known",
        "_known_host",
        "_max_head_bytes",
        "_merged",
        "_overhead_bytes",
        "_parser",
        "_remaining",
        "_url",
        "body_bytes",
        "has_excess",
        "head",
        "is_complete",
    )

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._known_host: bytes | None = None
        """The last Host that was well-formed: a client usually repeats it."""
        self._known: _KnownHead | None = None
        self.restart()

    def restart(self) -> None:
        """Prepare for the next request on the same connection."""
        self.head: RequestHead | None = None
        self.is_complete = False
        self.has_excess = False
        self.body_bytes = 0
        self._gathered: bytearray | None = None
        self._body: list[bytes] = []
        self._merged: bytearray | None = None
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._overhead_bytes = 0
        self._remaining: int | None = None
        """How many bytes of the body are still to come after a known head. None: the parser counts them."""
        self._fault: Fault | None = None

    @property
    def is_idle(self) -> bool:
        """Has no byte of a request arrived yet?"""
        return self._gathered is None and self.head is None

    def close(self) -> None:
        """Let go of the body and of the parser, which knows the reader: the connection has ended."""
        self._body, self._merged, self._gathered = [], None, None
        with suppress(AttributeError):  # it was closed before
            del self._parser

    def take_body(self) -> bytes:
        """Return the part of the body that was read so far, and forget it."""
        pieces, self._body = self._body, []
        merged, self._merged = self._merged, None
        if merged is not None:
            merged += b"".join(pieces)
            return bytes(merged)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        """Take bytes from the client.

        Raises `Fault` for a request that must be refused; then the connection is unusable.
        """
        if self.is_complete:
            self.has_excess = self.has_excess or bool(data.strip(b"\r\n"))
            return
        if self._remaining is not None:
            self._take(data, self._remaining)
            return
        if self.head is None:
            if not data or (self._known is not None and self._gathered is None and self._recognise(data, self._known)):
                return
            end = data.find(b"\r\n\r\n") + 4
            if self._gathered is not None or end == 3 or data[0] in b"\r\n":
                data, end = self._gather(data)
                if not end:
                    return
            checked = self._check_head(data, end)
            self._parse(checked)
            if checked is data and end <= _MAX_KNOWN_BYTES:
                self._remember(data, end)
        else:
            self._parse(data)

    def _remember(self, data: bytes, end: int) -> None:
        """Keep a head with a counted body: on a kept connection the next head is probably the same."""
        counted = _COUNTED.search(data, 0, end)
        if counted is not None and self.head is not None and self.head.keep_alive:
            self._known = _KnownHead(data[: counted.start(1)], data[counted.end(1) : end], self.head)

    def _recognise(self, data: bytes, known: _KnownHead) -> bool:
        """Read a known head and the bytes behind it. Return False for another head: the parser must read it."""
        start = len(known.before)
        if not data.startswith(known.before):
            return False
        stop = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        digits = data[start : max(stop, start)]
        if not digits.isdigit() or not data.startswith(known.after, stop):
            return False
        head = known.head
        self.head = head if digits == head.fields[b"content-length"] else head.with_length(digits)
        self._take(data[stop + len(known.after) :], int(digits))
        return True

    def _take(self, data: bytes, remaining: int) -> None:
        """Take bytes of a body. `remaining` is how many bytes of it are still to come."""
        if len(data) > remaining:
            self.has_excess = bool(data[remaining:].strip(b"\r\n"))
            data = data[:remaining]
        if data:
            self.on_body(data)
        self._remaining = remaining - len(data)
        self.is_complete = not self._remaining

    def _gather(self, data: bytes) -> tuple[bytes, int]:
        """Add bytes to a head that came in pieces. Return the whole head and where it ends (0: not whole yet)."""
        gathered = self._gathered
        if gathered is None:
            gathered = self._gathered = bytearray()
        gathered += data
        if gathered[0] in b"\r\n":  # an empty line before a request line is ignored (RFC 9112, 2.2)
            count = len(gathered) - len(gathered.lstrip(b"\r\n"))
            del gathered[:count]
            self._overhead_bytes += count
            if self._overhead_bytes > self._max_head_bytes:
                self._refuse_size()
        if gathered and gathered[0] not in _FIRST_BYTES:
            raise Fault(BAD_REQUEST, "not an HTTP/1.1 request")
        end = gathered.find(b"\r\n\r\n", max(0, len(gathered) - len(data) - 3)) + 4
        if end == 3:
            if len(gathered) > self._max_head_bytes:
                self._refuse_size()
            if gathered.count(b"\n") != gathered.count(b"\r\n"):
                raise Fault(BAD_REQUEST, "malformed HTTP request: a line that does not end in CR LF")
            return b"", 0
        return bytes(gathered), end

    def _refuse_size(self) -> None:
        raise Fault(HEAD_TOO_LARGE, f"the request's head is larger than {self._max_head_bytes} bytes")

    def _check_head(self, data: bytes, end: int) -> bytes:
        """Refuse a head that is too large or begins wrongly. Return the bytes for the parser."""
        if end > self._max_head_bytes:
            self._refuse_size()
        line_end = data.find(b"\r\n")
        if data[line_end - 9 : line_end - 1] != b" HTTP/1." or data.count(b" ", 0, line_end) != 2:
            self._refuse_line(data)
        lowered = data[:end].lower()
        if all(text not in lowered for text in _REWRITTEN):
            return data
        head = _OFFER.sub(rb"\1" + _HIDDEN + rb"\2", data[:end])
        return _TRAILING_SPACE.sub(b"\r\n", head) + data[end:]

    def _refuse_line(self, raw: bytes) -> None:
        """Raise the `Fault` for a malformed request line."""
        line = _REQUEST_LINE.match(raw)
        if line is None:
            raise Fault(BAD_REQUEST, "malformed HTTP request: not a method, a target and HTTP/1.1")
        if line[3] != b"1":
            version = f"HTTP/{line[3].decode()}" if line[3] else "HTTP/0.9"
            raise Fault(HTTP_VERSION, f"{version} is not spoken here, only HTTP/1.1")

    def _parse(self, data: bytes) -> None:
        before = self.body_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserInvalidMethodError, httptools.HttpParserUpgrade):  # the latter for CONNECT
            if not _REQUEST_LINE.match(data):
                raise Fault(BAD_REQUEST, "not an HTTP/1.1 request") from None
            raise Fault(METHOD_NOT_ALLOWED, "405 method not allowed") from None
        except httptools.HttpParserError as error:
            self._explain(error)
            return
        head = self.head
        if head is None:
            raise Fault(BAD_REQUEST, "malformed HTTP request")
        if head.is_chunked and not self.is_complete:
            self._overhead_bytes = 0 if self.body_bytes > before else self._overhead_bytes + len(data)
            if self._overhead_bytes > self._max_head_bytes:
                raise Fault(BODY_TOO_LARGE, "chunk extensions or trailers are too large")

    def _explain(self, error: httptools.HttpParserError) -> None:
        """Raise the `Fault` for an error of the parser.

        An error behind a whole request is the start of a second one.
        """
        if self._fault:
            raise self._fault from None
        if not self.is_complete:
            reason = str(error).split("\n")[0][:100] or "malformed request"
            raise Fault(BAD_REQUEST, f"malformed HTTP request: {reason}") from None
        self.has_excess = True
        self._parser = httptools.HttpRequestParser(self)

    # The parser calls the methods from here on.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("a second request in flight")

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is not None:
            return  # a trailer is never read as a key and never forwarded
        name = name.lower()
        fields = self._fields
        if name in fields:
            if name in _SINGLE:
                self._fault = Fault(BAD_REQUEST, f"the header {name.decode()} stands twice")
                raise self._fault
            value = fields[name] + b", " + value
        fields[name] = value

    def on_headers_complete(self) -> None:
        try:
            self.head = self._make_head(self._fields)
        except Fault as fault:
            self._fault = fault
            raise

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self.body_bytes += len(data)
        if len(self._body) > _MAX_PIECES:
            if self._merged is None:
                self._merged = bytearray()
            self._merged += b"".join(self._body)
            self._body.clear()

    def on_message_complete(self) -> None:
        self.is_complete = True

    def _make_head(self, fields: dict[bytes, bytes]) -> RequestHead:
        url, parser = self._url, self._parser
        if _HIDDEN_OFFER in fields:
            fields[b"upgrade"] = fields.pop(_HIDDEN_OFFER)
        method = _METHODS.get(parser.get_method())
        if method is None:
            raise Fault(METHOD_NOT_ALLOWED, "405 method not allowed")
        if url[:1] != b"/" or b"#" in url:
            raise Fault(BAD_REQUEST, "the request target must be a path that begins with /")
        is_http11 = parser.get_http_version() == "1.1"
        host = fields.get(b"host")
        if host is None:
            if is_http11:
                raise Fault(BAD_REQUEST, "the header Host is missing")
        elif host != self._known_host:
            if not _HOST.fullmatch(host):
                raise Fault(BAD_REQUEST, "the header Host is malformed")
            self._known_host = host
        is_chunked = b"transfer-encoding" in fields
        if is_chunked and (fields[b"transfer-encoding"].lower() != b"chunked" or not is_http11):
            raise Fault(BAD_REQUEST, "Transfer-Encoding must be chunked, in HTTP/1.1")
        length = fields.get(b"content-length")
        path, query, key = url.decode("latin-1"), "", None
        if "?" in path:
            path, _, query = path.partition("?")
        if path.startswith("/k/"):
            path, key = split_key(path)
        return RequestHead(
            method,
            path,
            query,
            is_http11,
            fields,
            bool(parser.should_keep_alive()),
            None if length is None else int(length),
            is_chunked,
            key,
        )
