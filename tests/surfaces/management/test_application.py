"""The management API: what it lists, and what a POST shows once."""

from __future__ import annotations

from pathlib import Path

import httpx

from hive.auth.keys import Role
from hive.hub.key_cases import Keys

from .managing import CALLER, Fleet, serve


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
                "versions": [{"digest": "abc", "nodes": ["a"]}, {"digest": "def", "nodes": ["b"]}],
            }
        ]

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
            "/hive/v1/events",
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
    assert fleet.drained == [("a", True, CALLER), ("a", False, CALLER)]
