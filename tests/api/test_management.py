"""The management API: what it lists, what a POST shows once, and the one shape of its errors."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest

from hive.api.management import ModelView, NodeView, Services, create_app
from hive.auth.keys import KeyRing, Role
from hive.errors import NOT_FOUND, Fault
from hive.hub.keys import Keys
from hive.store.store import Store

NODE = NodeView("a", "http://a:11434", "dialed", "ready", "ollama", "0.24.0", 4, 1, 2, ("m:latest",), None)
MODEL = ModelView("m:latest", ("a", "b"), ("a",), ("b",), 1000, "abc", {"format": "gguf", "families": ["llama"]})


class Fleet:
    """A fleet of one node and one model."""

    def __init__(self) -> None:
        self.drained: list[tuple[str, bool]] = []

    def nodes(self) -> Sequence[NodeView]:
        return [NODE]

    def drain(self, node: str, is_draining: bool) -> Sequence[NodeView]:
        if node != NODE.name:
            raise Fault(NOT_FOUND, f"there is no node '{node}'")
        self.drained.append((node, is_draining))
        return [NODE]

    def models(self) -> Sequence[ModelView]:
        return [MODEL]


class NoRequests:
    """A hub that nobody has asked for anything."""


class BrokenFleet(Fleet):
    """A fleet with a defect."""

    def nodes(self) -> Sequence[NodeView]:
        raise ZeroDivisionError("a secret of the code")


Work = Callable[[httpx.AsyncClient, Keys], Awaitable[None]]


def serve(tmp_path: Path, work: Work, fleet: Fleet | None = None) -> None:
    async def run() -> None:
        async with Store(tmp_path / "data") as store:
            keys = Keys(store, KeyRing(), clock=lambda: 0.5)
            await keys.load()
            app = create_app(Services(keys, fleet or Fleet(), NoRequests()))
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
                await work(client, keys)

    asyncio.run(run())


def test_a_created_key_is_shown_once_and_then_only_its_first_characters(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        answer = await client.post("/hive/v1/keys", json={"name": "alice", "role": "client", "manage": True})
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        created = answer.json()
        secret = created.pop("key")
        listed = await client.get("/hive/v1/keys")
        assert listed.json() == {"keys": [created]}
        assert created == {
            "name": "alice",
            "role": "client",
            "manage": True,
            "shown": secret[:8],
            "created_at": "1970-01-01T00:00:00.500000Z",
            "revoked_at": None,
        }

    serve(tmp_path, work)


def test_a_revoked_key_leaves_the_listing_unless_revoked_ones_are_asked_for(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        await keys.create("alice", Role.CLIENT)
        answer = await client.delete("/hive/v1/keys/alice")
        assert answer.status_code == 200
        assert answer.json()["revoked_at"] == "1970-01-01T00:00:00.500000Z"
        assert (await client.get("/hive/v1/keys")).json() == {"keys": []}
        assert (await client.get("/hive/v1/keys?revoked=true")).json() == {"keys": [answer.json()]}

    serve(tmp_path, work)


def test_nodes_and_models_are_what_the_fleet_says(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        nodes = (await client.get("/hive/v1/nodes")).json()["nodes"]
        assert nodes == [
            {
                "name": "a",
                "url": "http://a:11434",
                "link": "dialed",
                "status": "ready",
                "kind": "ollama",
                "version": "0.24.0",
                "slots": 4,
                "running": 1,
                "models": 2,
                "loaded": ["m:latest"],
                "error": None,
                "engine": None,
                "agent": None,
                "platform": None,
                "labels": {},
                "machine": None,
                "heartbeat_age": None,
            }
        ]
        models = (await client.get("/hive/v1/models")).json()["models"]
        assert models == [
            {
                "name": "m:latest",
                "nodes": ["a", "b"],
                "loaded_on": ["a"],
                "down_on": ["b"],
                "size": 1000,
                "digest": "abc",
                "details": {"format": "gguf", "families": ["llama"]},
            }
        ]

    serve(tmp_path, work)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/hive/v1/nothing", 404, "not_found", "there is nothing at this path"),
        ("GET", "/hive/v1/keys/", 404, "not_found", "there is nothing at this path"),
        ("GET", "/docs", 404, "not_found", "there is nothing at this path"),
        ("DELETE", "/hive/v1/keys/bob", 404, "not_found", "there is no live key 'bob'"),
        ("DELETE", "/hive/v1/keys/boss", 409, "conflict", "key 'boss' is the last admin key"),
        ("PUT", "/hive/v1/keys", 405, "method_not_allowed", "PUT is not allowed here"),
        ("GET", "/hive/v1/keys?revoked=7", 422, "invalid_value", "revoked: input should be a valid boolean"),
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


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"{", 400, "bad_json", "the body is not JSON"),
        (b"\xff\xff", 400, "bad_json", "the body cannot be read as JSON"),
        (b"[" * 100_000, 400, "bad_json", "the body cannot be read as JSON"),
        (b"", 422, "invalid_value", "body: field required"),
        (b"[]", 422, "invalid_value", "body: input should be a valid dictionary"),
        (b'{"name":"a"}', 422, "invalid_value", "role: field required"),
        (b'{"name":1,"role":"client"}', 422, "invalid_value", "name: input should be a valid string"),
        (b'{"name":"a","role":"king"}', 422, "invalid_value", "role: input should be 'admin', 'worker' or"),
        (
            b'{"name":"a","role":"client","manage":"no"}',
            422,
            "invalid_value",
            "manage: input should be a valid",
        ),
        (b'{"name":"a","role":"client","mange":true}', 422, "invalid_value", "mange: extra inputs are not"),
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


def test_the_api_describes_itself_with_one_error_shape(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        described = (await client.get("/hive/v1/openapi.json")).json()
        assert set(described["paths"]) == {
            "/hive/v1/keys",
            "/hive/v1/keys/{name}",
            "/hive/v1/nodes",
            "/hive/v1/nodes/{name}/drain",
            "/hive/v1/nodes/{name}/resume",
            "/hive/v1/models",
            "/hive/v1/queue",
            "/hive/v1/requests",
            "/hive/v1/requests/{request_id}",
        }
        assert "HTTPValidationError" not in described["components"]["schemas"]

    serve(tmp_path, work)


def test_a_node_is_drained_and_resumed_by_its_name(tmp_path: Path) -> None:
    fleet = Fleet()

    async def work(client: httpx.AsyncClient, keys: Keys) -> None:
        for what in ("drain", "resume"):
            answer = await client.post(f"/hive/v1/nodes/a/{what}")
            assert (answer.status_code, answer.json()["nodes"][0]["name"]) == (200, "a")
        unknown = await client.post("/hive/v1/nodes/b/drain")
        assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "there is no node 'b'")

    serve(tmp_path, work, fleet)
    assert fleet.drained == [("a", True), ("a", False)]
