"""The management application behind the server protocol: the same rules of the connection, whole answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from hive.testing.hub import ThreadedHub, run_hub

from ..raw import Wire, ask, get, request

JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadedHub]:
    """A hub without nodes."""
    with run_hub({}) as hub:
        yield hub


@pytest.fixture(scope="module")
def admin(hub: ThreadedHub) -> str:
    """The header line of the admin key."""
    return f"Authorization: Bearer {hub.admin_key}\r\n"


def test_a_key_is_made_listed_and_revoked(hub: ThreadedHub) -> None:
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.admin_key}"}) as client:
        made = client.post("/hive/v1/keys", json={"name": "carol", "role": "client"})
        assert made.status_code == 201
        assert made.headers["X-Hive-Request-Id"]
        secret = made.json()["key"]
        listed = client.get("/hive/v1/keys").text
        assert "carol" in listed
        assert secret not in listed
        assert client.delete("/hive/v1/keys/carol").status_code in (200, 204)
        assert client.delete("/hive/v1/keys/carol").status_code == 404


def test_the_connection_goes_on_after_it(hub: ThreadedHub, admin: str) -> None:
    with Wire(hub.port) as wire:
        for data, status in (
            (get("/hive/v1/keys", admin), 200),
            (get("/hive/v1/nowhere", admin), 404),
            (request("/hive/v1/keys", b"{", head=admin + JSON), 422),
            (get("/hive/v1/nodes", admin), 200),
        ):
            wire.send(data)
            answer = wire.answer()
            assert answer.status in (status, 400 if status == 422 else status)
            assert isinstance(answer.json(), dict)
            if status >= 400:
                error = answer.json()["error"]
                assert isinstance(error, dict)
                assert {"code", "message"} <= set(error)
        assert wire.is_open()


def test_a_chunked_body_in_pieces_arrives_whole(hub: ThreadedHub, admin: str) -> None:
    body = json.dumps({"name": "dave", "role": "client"}).encode()
    head = f"POST /hive/v1/keys HTTP/1.1\r\nHost: localhost\r\n{admin}{JSON}Transfer-Encoding: chunked\r\n\r\n"
    with Wire(hub.port) as wire:
        wire.send(head.encode())
        for byte in body:
            wire.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        wire.send(b"0\r\n\r\n")
        assert wire.answer().status == 201


def test_a_query_and_an_escaped_path_arrive(hub: ThreadedHub, admin: str) -> None:
    hub.create_key("erin")
    hub.revoke_key("erin")
    assert b'"erin"' not in ask(hub.port, get("/hive/v1/keys", admin)).body
    assert ask(hub.port, request("/hive/v1/keys/er%69n", method="DELETE", head=admin)).status == 404
    assert ask(hub.port, request("/hive/v1/keys/..%2f..%2f", method="DELETE", head=admin)).status == 404


def test_without_the_right_nothing_of_it_is_reached(hub: ThreadedHub) -> None:
    client = hub.create_key("frank")
    for head, status in (("", 401), (f"Authorization: Bearer {client}\r\n", 403)):
        for path in ("/hive/v1/keys", "/hive/v1/nowhere", "/hive/v1/docs", "/hive/v1/openapi.json"):
            answer = ask(hub.port, request(path, method="GET", head=head, host="hub.example"))
            assert answer.status == status
            assert isinstance(answer.json()["error"], dict)


def test_a_head_request_has_no_body(hub: ThreadedHub, admin: str) -> None:
    with Wire(hub.port) as wire:
        wire.send(request("/hive/v1/keys", method="HEAD", head=admin))
        assert wire.answer(is_head=True).status in (200, 405)
        assert wire.is_open()


def test_a_client_that_goes_away_leaves_nothing(hub: ThreadedHub, admin: str) -> None:
    for number in range(20):
        wire = Wire(hub.port)
        wire.send(request("/hive/v1/keys", {"name": f"gone-{number}", "role": "client"}, head=admin + JSON))
        wire.reset()
    hub.until(lambda server: not server.server.connections)
    assert ask(hub.port, get("/hive/v1/keys", admin)).status == 200


def test_many_at_once_are_all_answered(hub: ThreadedHub, admin: str) -> None:
    wires = [Wire(hub.port) for _ in range(30)]
    for wire in wires:
        wire.send(get("/hive/v1/nodes", admin))
    assert [wire.answer().status for wire in wires] == [200] * 30
    for wire in wires:
        wire.sock.close()


def test_a_body_that_is_too_large_is_413(admin: str) -> None:
    with run_hub({}, max_body_bytes=2_000) as hub:
        head = f"Authorization: Bearer {hub.admin_key}\r\n{JSON}"
        assert ask(hub.port, request("/hive/v1/keys", b" " * 3_000, head=head)).status == 413
