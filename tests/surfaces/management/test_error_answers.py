"""How the management API says no: one shape, the hub's own words, and no parameter that is passed over."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import httpx
import pytest

from hive.auth.keys import Role
from hive.hub.key_cases import Keys

from .managing import BrokenFleet, Fleet, serve


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/hive/v1/nothing", 404, "not_found", "there is nothing at this path"),
        ("GET", "/hive/v1/keys/", 404, "not_found", "there is nothing at this path"),
        ("GET", "/docs", 404, "not_found", "there is nothing at this path"),
        ("DELETE", "/hive/v1/keys/bob", 404, "not_found", "there is no live key 'bob'"),
        ("DELETE", "/hive/v1/keys/boss", 409, "conflict", "key 'boss' is the last admin key"),
        ("PUT", "/hive/v1/keys", 405, "method_not_allowed", "PUT is not allowed here"),
        ("GET", "/hive/v1/keys?revoked=7", 422, "invalid_value", "revoked: expected true or false"),
    ],
)
def test_every_error_has_one_shape(
    tmp_path: Path, method: str, path: str, status: int, code: str, message: str
) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        await keys.create("boss", Role.ADMIN)
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.json().keys() == {"error"}
        assert answer.json()["error"].keys() == {"code", "message"}
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"].startswith(message)

    serve(tmp_path, work)


ROUTES = [
    ("GET", "/hive/v1/keys"),
    ("POST", "/hive/v1/keys"),
    ("DELETE", "/hive/v1/keys/alice"),
    ("GET", "/hive/v1/nodes"),
    ("POST", "/hive/v1/nodes/a/drain"),
    ("POST", "/hive/v1/nodes/a/resume"),
    ("GET", "/hive/v1/models"),
    ("GET", "/hive/v1/queue"),
    ("GET", "/hive/v1/requests"),
    ("GET", "/hive/v1/requests/req_1"),
    ("DELETE", "/hive/v1/requests/req_1"),
    ("GET", "/hive/v1/events"),
]


def test_a_parameter_that_a_route_does_not_take_is_refused_and_nothing_is_done(tmp_path: Path) -> None:
    fleet = Fleet()

    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        described = (await client.get("/hive/v1/openapi.json")).json()["paths"]
        routes = [(method.upper(), path) for path, methods in described.items() for method in methods]
        assert len(ROUTES) == len(routes)
        await keys.create("alice", Role.CLIENT)
        for method, path in ROUTES:
            body = {"name": "bob", "role": "client"} if path == "/hive/v1/keys" and method == "POST" else None
            answer = await client.request(method, f"{path}?nod=x&limit=", json=body)
            assert answer.status_code == 400, (method, path)
            message = "there is no parameter 'nod' here"
            assert answer.json() == {"error": {"code": "bad_request", "message": message}}
        assert [key.name for key in keys.listed()] == ["alice"]

    serve(tmp_path, work, fleet)
    assert fleet.drained == []


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"{", 400, "bad_json", "the body is not JSON"),
        (b"\xff\xff", 400, "bad_json", "the body cannot be read as JSON"),
        (b"[" * 100_000, 400, "bad_json", "the body cannot be read as JSON"),
        (b"", 422, "invalid_value", "body: is missing"),
        (b"[]", 422, "invalid_value", "body: expected a JSON object"),
        (b'{"name":"a"}', 422, "invalid_value", "role: is missing"),
        (b'{"name":1,"role":"client"}', 422, "invalid_value", "name: expected a text"),
        (b'{"name":"a","role":"king"}', 422, "invalid_value", "role: expected 'admin', 'worker' or 'client'"),
        (b'{"name":"a","role":"client","manage":"no"}', 422, "invalid_value", "manage: expected true or false"),
        (b'{"name":"a","role":"client","mange":true}', 422, "invalid_value", "mange: is not known"),
        (b'{"name":"a b","role":"client"}', 422, "invalid_value", "name: expected 1 to 63 letters"),
        (b'{"name":"\\ud800","role":"client"}', 422, "invalid_value", "name: "),
        (b'{"name":"boss","role":"client"}', 409, "conflict", "key 'boss' exists already"),
    ],
)
def test_a_key_that_is_asked_for_wrongly_is_not_made(
    tmp_path: Path, body: bytes, status: int, code: str, message: str
) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        await keys.create("boss", Role.ADMIN)
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/hive/v1/keys", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["message"].startswith(message)
        assert [key.name for key in keys.listed()] == ["boss"]

    serve(tmp_path, work)


def test_a_body_that_is_not_said_to_be_json_is_told_so(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        answer = await client.post("/hive/v1/keys", data={"name": "a"})
        assert answer.json()["error"]["message"] == "content-type: expected application/json"

    serve(tmp_path, work)


def test_a_method_that_is_not_allowed_names_those_that_are(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        assert (await client.put("/hive/v1/keys")).headers["allow"] == "GET, POST"
        assert (await client.get("/hive/v1/keys/a")).headers["allow"] == "DELETE"

    serve(tmp_path, work)


def test_a_defect_is_an_error_that_tells_nothing_of_the_code(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        answer = await client.get("/hive/v1/nodes")
        assert answer.status_code == 500
        assert answer.json() == {"error": {"code": "internal", "message": "the hub failed; its log says how"}}

    serve(tmp_path, work, BrokenFleet())


def test_a_database_that_fails_is_told_without_its_words(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        database = sqlite3.connect(tmp_path / "data" / "hive.db")
        database.execute("DROP TABLE keys")
        database.close()
        answer = await client.post("/hive/v1/keys", json={"name": "a", "role": "client"})
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "the hub's database failed; its log says how"

    serve(tmp_path, work)
