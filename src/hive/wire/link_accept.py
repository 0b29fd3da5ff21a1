"""The hub's answer to a node that asks to turn its connection into a WebSocket (RFC 6455, 4.2)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from websockets.utils import accept_key

from hive.errors import BAD_REQUEST, ORIGIN_REFUSED, UPGRADE_REQUIRED, Fault
from hive.wire.link_rules import SUBPROTOCOLS
from hive.wire.requests import RequestHead


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request that may become a WebSocket. `head` is the whole answer to it."""

    subprotocol: str
    head: bytes


def accept_upgrade(head: RequestHead) -> Upgrade:
    """Return the answer to a node whose key is valid. Raises `Fault`: 400, 403 or 426."""
    fields = head.fields
    if b"origin" in fields:
        raise Fault(ORIGIN_REFUSED, "a web page cannot join as a node")
    if b"websocket" not in _tokens(fields.get(b"upgrade", b"")) or b"upgrade" not in _tokens(
        fields.get(b"connection", b"")
    ):
        raise Fault(UPGRADE_REQUIRED, "nodes join here by WebSocket", (("Upgrade", "websocket"),))
    if head.method != "GET" or not head.is_http11 or head.has_body:
        raise Fault(BAD_REQUEST, "a WebSocket begins with a GET in HTTP/1.1 that has no body")
    if fields.get(b"sec-websocket-version") != b"13":
        headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
        raise Fault(UPGRADE_REQUIRED, "Sec-WebSocket-Version: only 13 is spoken", headers)
    key = fields.get(b"sec-websocket-key", b"")
    if not _is_key(key):
        raise Fault(BAD_REQUEST, "Sec-WebSocket-Key: expected 16 bytes in base64")
    subprotocol = _choose(_tokens(fields.get(b"sec-websocket-protocol", b"")))
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key.decode())}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
    return Upgrade(subprotocol, answer.encode())


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _choose(offered: list[bytes]) -> str:
    for subprotocol in SUBPROTOCOLS:
        if subprotocol.encode() in offered:
            return subprotocol
    spoken = " and ".join(SUBPROTOCOLS)
    raise Fault(
        UPGRADE_REQUIRED,
        f"this hub speaks {spoken} with its nodes; update the older of the two",
        (("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", ", ".join(SUBPROTOCOLS))),
    )
