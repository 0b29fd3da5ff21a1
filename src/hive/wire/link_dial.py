"""How a node dials: the request for a WebSocket, the hub's answer to it, and when to dial again."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from hive.wire.link_messages import one_line
from hive.wire.link_rules import MARK_OF_HUB, PATH, SUBPROTOCOLS, CloseCode
from hive.wire.link_socket import LinkSocket, Side

_MAX_HEAD_BYTES = 32 << 10
_TLS_ALERT = b"\x15\x03"
_ENDED_EARLY = "the connection ended before an answer came"


class Refused(Exception):  # noqa: N818 - it names what the hub did
    """The hub, or a proxy before it, refused the node. `status` is 0 when the answer was not HTTP."""

    def __init__(self, status: int, message: str, retry_after: float | None = None, *, is_of_hub: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.is_of_hub = is_of_hub
        """Does the answer carry the mark of a hub? An answer of a proxy or a captive portal does not."""


class NoAnswer(Refused):
    """The connection ended before any byte of HTTP. A hub with a certificate does so when a node speaks plain HTTP."""


class Dial:
    """One dialed connection until it is a WebSocket. The caller bounds it to 10 seconds."""

    def __init__(self, hub: str, key: str, agent: str) -> None:
        """Prepare the request.

        `hub` is the URL that clients use, with its path prefix if it has one. Raises `ValueError`.
        """
        self._protocol = ClientProtocol(_link_uri(hub), subprotocols=[Subprotocol(each) for each in SUBPROTOCOLS])
        request = self._protocol.connect()
        request.headers["Authorization"] = f"Bearer {key}"
        request.headers["User-Agent"] = agent
        self.request = request.serialize()
        """The bytes to send first. (`send_request` would log the key.)"""
        self._answer = bytearray()
        self._is_refused = False
        self._has_ended = False

    def receive(self, data: bytes, now: float) -> LinkSocket | None:
        """Take bytes of the answer. Return the socket once it is open. Raises `Refused`."""
        if self._is_refused:
            return self._feed(data, now)
        answer = self._answer
        answer += data
        end = answer.find(b"\r\n\r\n", max(0, len(answer) - len(data) - 3)) + 4
        if end == 3:
            if len(answer) > _MAX_HEAD_BYTES:
                raise Refused(0, "the answer's head is too large")
            return None
        # Only the head is read here. What follows are frames, which LinkSocket reads.
        socket = self._feed(bytes(answer[:end]), now)
        if socket is None:
            self._is_refused = True
            return self._feed(bytes(answer[end:]), now)
        socket.receive(bytes(answer[end:]), now)
        return socket

    def receive_eof(self) -> None:
        """Note that the connection ended before it was open. May be called again. Raises `Refused`."""
        if self._has_ended:
            raise Refused(0, _ENDED_EARLY)
        self._has_ended = True
        if not self._is_refused and (not self._answer or self._answer.startswith(_TLS_ALERT)):
            raise NoAnswer(0, "it closed the connection without an answer")
        self._protocol.receive_data(bytes(self._answer) if not self._is_refused else b"")
        self._protocol.receive_eof()
        self._feed(b"", 0.0)
        raise Refused(0, _ENDED_EARLY)

    def _feed(self, data: bytes, now: float) -> LinkSocket | None:
        protocol = self._protocol
        if data:
            protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Response) and protocol.handshake_exc is not None:
                raise _refusal(event, protocol.handshake_exc)
            if protocol.subprotocol is None:
                raise Refused(101, "the answer names no subprotocol: there is no hub behind this URL")
            return LinkSocket(Side.NODE, now)
        if protocol.handshake_exc is not None:
            raise Refused(0, one_line(f"{protocol.handshake_exc} ({protocol.handshake_exc.__cause__})", 200))
        return None


def _link_uri(hub: str) -> WebSocketURI:
    parts = urlsplit(hub if "://" in hub else f"http://{hub}")
    secure = {"http": False, "https": True}.get(parts.scheme)
    if secure is None or not parts.hostname:
        raise ValueError(f"hub: expected http://HOST[:PORT] or https://HOST[:PORT], got {_without_user(hub)!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"hub: a URL without user, query or fragment is needed, got {_without_user(hub)!r}")
    path = parts.path.rstrip("/") + PATH
    if not path.isascii() or any(char <= " " for char in path + parts.hostname):
        raise ValueError(f"hub: a character that no URL has, in {hub!r}")
    host = parts.hostname.encode("idna").decode()
    return WebSocketURI(secure, host, parts.port or (443 if secure else 80), path, "", None, None)


def _without_user(url: str) -> str:
    return url.rpartition("@")[2]


class _Why(msgspec.Struct):
    message: str


class _RefusedError(msgspec.Struct):
    error: _Why


_read_error = msgspec.json.Decoder(_RefusedError).decode


def _refusal(response: Response, reason: Exception) -> Refused:
    """Return what an answer other than a valid 101 says, in the hub's words if it came from a hub."""
    if response.status_code == 101:
        return Refused(101, one_line(f"the upgrade is not a WebSocket's: {reason}", 200))
    try:
        # Many gateways write their errors in this form, too.
        message, is_of_hub = _read_error(response.body).error.message, MARK_OF_HUB in response.headers
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        message, is_of_hub = response.reason_phrase, False
    seconds = response.headers.get_all("Retry-After")[:1]
    retry_after = float(seconds[0]) if seconds and seconds[0].isdecimal() and len(seconds[0]) < 6 else None
    return Refused(response.status_code, one_line(message, 200), retry_after, is_of_hub=is_of_hub)


_ENDS = frozenset({401, 403, 426, CloseCode.KEY_REVOKED})
_NEEDS_PEOPLE = _ENDS | {404, CloseCode.MALFORMED}
"""The status and close codes after which a person must act: dialing again soon would change nothing."""
_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0


def ends_agent(why: int, *, is_of_hub: bool) -> bool:
    """Must the agent end after this status or close code? Only if the hub said it: a proxy's refusal may pass."""
    return is_of_hub and why in _ENDS


def redial_seconds(attempt: int, why: int, chance: float) -> float:
    """Return how long to wait before dialing for the `attempt`-th time in a row; the first is 1.

    `why` is the status or close code that ended the last connection. `chance` is a random number from 0 to 1: it
    spreads the nodes of a restarted hub over time.
    """
    soon = _FIRST_SECONDS * 2 ** min(attempt - 1, 10)
    longest = _LONGEST_SECONDS if why in _NEEDS_PEOPLE else min(_LONGEST_SECONDS, soon)
    return longest * (0.5 + 0.5 * chance)
