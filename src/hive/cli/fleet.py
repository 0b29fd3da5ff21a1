"""`hive nodes`, `hive models` and `hive ps`: what the hub knows of its fleet."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from hive.cli.hub import DEFAULT_HUB, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import print_json, print_table, size, until

_DIGEST_CHARACTERS = 12


class _Node(msgspec.Struct):
    name: str
    url: str | None
    status: str
    kind: str | None
    version: str | None
    slots: int
    running: int
    models: int
    loaded: list[str]
    error: str | None


class _Nodes(msgspec.Struct):
    nodes: list[_Node]


class _Model(msgspec.Struct):
    name: str
    nodes: list[str]
    loaded_on: list[str]
    size: int | None
    digest: str | None
    down_on: list[str] = []


class _Models(msgspec.Struct):
    models: list[_Model]


class _Loaded(msgspec.Struct):
    name: str
    digest: str = ""
    size: int | None = None
    size_vram: int | None = None
    expires_at: str = ""


class _Ps(msgspec.Struct):
    models: list[_Loaded]


def nodes(hub: HubOption = DEFAULT_HUB, api_key_file: KeyFileOption = None, as_json: JsonOption = False) -> None:
    """List the hub's nodes."""
    at = find_hub(hub, api_key_file)
    answer = at.ask("GET", "/hive/v1/nodes")
    listed = at.read(answer, _Nodes).nodes
    if as_json:
        print_json(answer)
        return
    columns = ("NAME", "STATUS", "ENGINE", "BUSY", "MODELS", "LOADED", "URL", "REASON")
    print_table(columns, [_node_cells(node) for node in listed])


def _node_cells(node: _Node) -> list[str]:
    engine = f"{node.kind or '-'} {node.version or ''}".strip()
    busy = f"{node.running}/{node.slots}"
    loaded = ", ".join(node.loaded) or "-"
    return [node.name, node.status, engine, busy, str(node.models), loaded, node.url or "-", node.error or ""]


def models(hub: HubOption = DEFAULT_HUB, api_key_file: KeyFileOption = None, as_json: JsonOption = False) -> None:
    """List the models of all nodes."""
    at = find_hub(hub, api_key_file)
    answer = at.ask("GET", "/hive/v1/models")
    listed = at.read(answer, _Models).models
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            model.name,
            _id(model.digest),
            size(model.size),
            ", ".join(f"{node} (down)" if node in model.down_on else node for node in model.nodes),
            ", ".join(model.loaded_on) or "-",
        ]
        for model in listed
    ]
    print_table(("NAME", "ID", "SIZE", "NODES", "LOADED ON"), rows)


def ps(hub: HubOption = DEFAULT_HUB, api_key_file: KeyFileOption = None, as_json: JsonOption = False) -> None:
    """List the models that are loaded."""
    at = find_hub(hub, api_key_file)
    answer = at.ask("GET", "/api/ps")
    listed = at.read(answer, _Ps).models
    if as_json:
        print_json(answer)
        return
    now = datetime.now(UTC)
    rows = [
        [entry.name, _id(entry.digest), size(entry.size), size(entry.size_vram), until(entry.expires_at, now)]
        for entry in listed
    ]
    print_table(("NAME", "ID", "SIZE", "IN GPU", "UNTIL"), rows)


def _id(digest: str | None) -> str:
    return (digest or "-").removeprefix("sha256:")[:_DIGEST_CHARACTERS]
