"""Which requests may turn a connection into a link, and the hub's answers to them."""

from __future__ import annotations

import pytest

from hive.errors import Fault
from hive.wire.link_accept import accept_upgrade
from hive.wire.requests import RequestHead

FIELDS = {
    b"host": b"hub.example",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
    b"sec-websocket-version": b"13",
    b"sec-websocket-protocol": b"hive-link-1",
}


def request(**changes: bytes | None) -> RequestHead:
    fields = dict(FIELDS)
    for name, value in changes.items():
        key = name.replace("_", "-").encode()
        if value is None:
            del fields[key]
        else:
            fields[key] = value
    return RequestHead("GET", "/hive/link", "", True, fields)


def test_the_upgrade_is_answered_as_in_the_specification() -> None:
    """RFC 6455, 1.3: this key has this answer."""
    upgrade = accept_upgrade(request())
    assert upgrade.subprotocol == "hive-link-1"
    assert upgrade.head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: hive-link-1\r\n\r\n"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": b"WebSocket"},
        {"connection": b"keep-alive, Upgrade"},
        {"sec_websocket_protocol": b"hive-link-2, hive-link-1"},
        {"sec_websocket_extensions": b"permessage-deflate; client_max_window_bits"},
    ],
)
def test_variants_of_the_upgrade_are_accepted(changes: dict[str, bytes]) -> None:
    upgrade = accept_upgrade(request(**changes))
    assert upgrade.subprotocol == "hive-link-1"
    assert b"xtensions" not in upgrade.head


REFUSED: dict[str, tuple[dict[str, bytes | None], int]] = {
    "a web page": ({"origin": b"https://hub.example"}, 403),
    "no upgrade": ({"upgrade": None}, 426),
    "another upgrade": ({"upgrade": b"h2c"}, 426),
    "upgrade that is no option of the connection": ({"connection": b"keep-alive"}, 426),
    "no connection": ({"connection": None}, 426),
    "old WebSocket": ({"sec_websocket_version": b"8"}, 426),
    "no version": ({"sec_websocket_version": None}, 426),
    "another version of the link": ({"sec_websocket_protocol": b"hive-link-2"}, 426),
    "another protocol": ({"sec_websocket_protocol": b"chat"}, 426),
    "no protocol": ({"sec_websocket_protocol": None}, 426),
    "no key": ({"sec_websocket_key": None}, 400),
    "short key": ({"sec_websocket_key": b"AAAA"}, 400),
    "two keys": ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25jZQ==,dGhlIHNhbXBsZSBub25jZQ=="}, 400),
    "key that is not base64": ({"sec_websocket_key": b"dGhlIHNhbXBsZSBub25j!!=="}, 400),
    "key that is not ASCII": ({"sec_websocket_key": b"\xff" * 24}, 400),
}


@pytest.mark.parametrize(("changes", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_upgrades_are_refused(changes: dict[str, bytes | None], status: int) -> None:
    with pytest.raises(Fault) as caught:
        accept_upgrade(request(**changes))
    assert caught.value.kind.status == status
    assert status != 426 or ("Upgrade", "websocket") in caught.value.headers


def test_the_refusal_of_a_version_names_the_spoken_ones() -> None:
    with pytest.raises(Fault, match="this hub speaks hive-link-1") as caught:
        accept_upgrade(request(sec_websocket_protocol=b"hive-link-9"))
    assert ("Sec-WebSocket-Protocol", "hive-link-1") in caught.value.headers


def test_only_a_get_without_a_body_becomes_a_link() -> None:
    for head in (
        RequestHead("POST", "/hive/link", "", True, FIELDS),
        RequestHead("GET", "/hive/link", "", False, FIELDS),
        RequestHead("GET", "/hive/link", "", True, FIELDS, content_length=1),
        RequestHead("GET", "/hive/link", "", True, FIELDS, is_chunked=True),
    ):
        with pytest.raises(Fault) as caught:
            accept_upgrade(head)
        assert caught.value.kind.status == 400
