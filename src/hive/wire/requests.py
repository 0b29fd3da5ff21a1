"""Reads one client's HTTP/1.1 requests from bytes, and refuses what could be read in two ways.

The reader is given bytes as they come (`feed`) and says what it knows so far: `head` once the headers are
whole, `body` pieces, `is_complete`. It never starts a second message: bytes of one set `has_excess`, and the
connection must close after the answer. llhttp (httptools) does the parsing; the rules that it leaves open stand
here:

* exactly one Host, and it must look like one; origin-form targets only (RFC 9112, 3.2);
* Transfer-Encoding is `chunked` and nothing else, never with Content-Length, never under HTTP/1.0 (RFC 9112, 6.1);
* fields that carry a credential or a length stand once;
* the head is at most `max_head_bytes`, counted as it arrives; so are chunk extensions and trailers, which are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import httptools

from hive.errors import BAD_REQUEST, BODY_TOO_LARGE, HEAD_TOO_LARGE, HTTP_VERSION, METHOD_NOT_ALLOWED, Fault

_REQUEST_LINE = re.compile(rb"\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (\S+) HTTP/(\d)\.\d\r?\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::[0-9]{1,5})?")
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
_REQUEST_LINE_BYTES = 256
_FIRST_BYTES = frozenset(b"\r\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~0123456789")


@dataclass(slots=True)
class RequestHead:
    """The head of a request; names in lower case, repeated fields joined by a comma (RFC 9110, 5.3)."""

    method: str
    path: str
    query: str
    is_http11: bool
    fields: dict[bytes, bytes]
    keep_alive: bool = True
    content_length: int | None = None
    is_chunked: bool = False
    path_key: bytes | None = field(default=None, repr=False)
    """A key that stood as `/k/KEY` before the path; `path` is without it."""

    @property
    def has_body(self) -> bool:
        """Does a body follow?"""
        return self.is_chunked or bool(self.content_length)

    @property
    def expects_continue(self) -> bool:
        """Does the client wait for `100 Continue`?"""
        return self.is_http11 and self.fields.get(b"expect", b"").lower() == b"100-continue"


def split_key(path: str) -> tuple[str, bytes | None]:
    """Cut `/k/KEY` off a path; the key is None when there was none."""
    if not path.startswith("/k/"):
        return path, None
    key, slash, rest = path[3:].partition("/")
    return (slash + rest) or "/", key.encode("ascii", "replace")


class RequestReader:
    """One connection's requests, one after the other; call `restart` after each answer."""

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._hosts: tuple[bytes, ...] = ()
        """The last Host that was found well-formed: a client repeats itself."""
        self.restart()

    def restart(self) -> None:
        """Make ready for the next request on the same connection."""
        self.head: RequestHead | None = None
        self.is_complete = False
        self.has_excess = False
        self.body_bytes = 0
        self._body: list[bytes] = []
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._first_bytes = b""
        self._overhead_bytes = 0
        self._has_begun = False
        self._fault: Fault | None = None

    @property
    def is_idle(self) -> bool:
        """Has nothing of a request arrived yet?"""
        return self._head_bytes == 0

    def take_body(self) -> bytes:
        """Return the body read so far and forget it."""
        pieces, self._body = self._body, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        """Take bytes from the client. Raises `Fault` for what must be refused; the connection is unusable then."""
        if self.is_complete:
            self.has_excess = self.has_excess or bool(data.strip(b"\r\n"))
            return
        if self.head is None:
            if self._head_bytes == 0:
                self._check_start(data)
            self._head_bytes += len(data)
        before = self.body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We answer in HTTP/1.1; the parser has paused for good.
            self._parser = httptools.HttpRequestParser(self)
            self.has_excess = len(data) > int(upgrade.args[0])
        except httptools.HttpParserError as error:
            self._explain(error)
        self._check_bounds(data, before)

    def _check_start(self, data: bytes) -> None:
        if data[0] not in _FIRST_BYTES:
            raise Fault(BAD_REQUEST, "not an HTTP/1.1 request")
        self._first_bytes = data[:_REQUEST_LINE_BYTES]

    def _explain_line(self) -> None:
        """Raise the `Fault` that a request line deserves which the parser did not understand."""
        line = _REQUEST_LINE.match(self._first_bytes)
        if line is None:
            return
        method, target, major = line.groups()
        if major != b"1":
            raise Fault(HTTP_VERSION, f"HTTP/{major.decode()} is not spoken here, only HTTP/1.1")
        if method not in _METHODS:
            raise Fault(METHOD_NOT_ALLOWED, "405 method not allowed")
        if not target.startswith(b"/"):
            raise Fault(BAD_REQUEST, "the request target must be a path that begins with /")

    def _explain(self, error: httptools.HttpParserError) -> None:
        if self._fault:
            raise self._fault
        if self.is_complete:
            self.has_excess = True
            self._parser = httptools.HttpRequestParser(self)
            return
        self._explain_line()
        reason = str(error).split("\n")[0][:100] or "malformed request"
        raise Fault(BAD_REQUEST, f"malformed HTTP request: {reason}") from None

    def _check_bounds(self, data: bytes, body_before: int) -> None:
        if self.head is None:
            if self._head_bytes > self._max_head_bytes:
                raise Fault(HEAD_TOO_LARGE, f"the request's head is larger than {self._max_head_bytes} bytes")
            return
        if self.head.is_chunked and not self.is_complete:
            self._overhead_bytes = 0 if self.body_bytes > body_before else self._overhead_bytes + len(data)
            if self._overhead_bytes > self._max_head_bytes:
                raise Fault(BODY_TOO_LARGE, "chunk extensions or trailers are too large")

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("a second request in flight")

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is not None:
            return  # a trailer: never a key, never forwarded
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

    def on_message_complete(self) -> None:
        self.is_complete = True

    def _make_head(self, fields: dict[bytes, bytes]) -> RequestHead:
        url, parser = self._url, self._parser
        if self._head_bytes > self._max_head_bytes:  # some of it may be body
            size = len(url) + sum(len(name) + len(value) + 4 for name, value in fields.items())
            if size > self._max_head_bytes:
                raise Fault(HEAD_TOO_LARGE, f"the request's head is larger than {self._max_head_bytes} bytes")
        method = _METHODS.get(parser.get_method())
        if method is None:
            raise Fault(METHOD_NOT_ALLOWED, "405 method not allowed")
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Fault(HTTP_VERSION, f"HTTP/{version} is not spoken here, only HTTP/1.1")
        if url[:1] != b"/" or b"#" in url:
            raise Fault(BAD_REQUEST, "the request target must be a path that begins with /")
        is_http11 = version == "1.1"
        host = fields.get(b"host")
        if host is None and is_http11:
            raise Fault(BAD_REQUEST, "the header Host is missing")
        if host is not None and host not in self._hosts:
            if not _HOST.fullmatch(host):
                raise Fault(BAD_REQUEST, "the header Host is malformed")
            self._hosts = (host,)
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


_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
}
