"""`hive nodes`, `models`, `ps`, `drain` and `resume`: what the hub knows of its fleet, and which nodes get work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import msgspec
import typer

from hive.cli.hub_client import DEFAULT_HUB, CaFileOption, HubClient, HubOption, JsonOption, KeyFileOption, find_hub
from hive.cli.output import plain, print_json, print_table, size, until
from hive.config import NO_NODES

_DIGEST_CHARACTERS = 12
_MAX_NAMES_CHARACTERS = 24
"""If the names of the loaded models are longer than this, their number is shown instead."""
_COLUMNS = (
    "NAME", "STATUS", "LINK", "ENGINE", "BUSY", "MODELS", "LOADED", "URL",
    "AGENT", "LABELS", "MACHINE", "SEEN", "REASON",
)  # fmt: skip
_NARROW_COLUMNS = frozenset({"NAME", "STATUS", "ENGINE", "BUSY", "MODELS", "LOADED", "REASON"})
"""The columns that most people need. They fit into 80 columns of a terminal."""
_UNFOLDED = frozenset({"NAME", "STATUS", "BUSY"})
"""Columns that are never folded: people copy them, or pieces are hard to read. With --wide no column is folded."""
_UNFOLDED_OF_MODELS = frozenset({"ID"})
_AGENT_COLUMNS = frozenset({"AGENT", "LABELS", "MACHINE", "SEEN"})

WideOption = Annotated[bool, typer.Option("--wide", help="All columns: addresses, agents, machines.")]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.", show_default=False)]


class _Gpu(msgspec.Struct):
    name: str
    memory_total_bytes: int
    memory_used_bytes: int | None = None
    utilization: float | None = None


class _Machine(msgspec.Struct):
    cpu: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    gpus: list[_Gpu] = []


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
    engine: str | None = None
    link: str = "dialed"
    agent: str | None = None
    labels: dict[str, str] = {}
    machine: _Machine | None = None
    heartbeat_age: float | None = None


class _NodesAnswer(msgspec.Struct):
    nodes: list[_Node]


class _ShownVersion(msgspec.Struct):
    digest: str
    nodes: list[str]


class _Model(msgspec.Struct):
    name: str
    nodes: list[str]
    loaded_on: list[str]
    size: int | None
    digest: str | None
    down_on: list[str] = []
    versions: list[_ShownVersion] = []


class _ModelsAnswer(msgspec.Struct):
    models: list[_Model]


class _Loaded(msgspec.Struct):
    name: str
    digest: str = ""
    size: int | None = None
    size_vram: int | None = None
    expires_at: str = ""


class _Ps(msgspec.Struct):
    models: list[_Loaded]


def nodes(
    wide: WideOption = False,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the hub's nodes."""
    at = find_hub(hub, api_key_file, ca_file)
    answer = at.ask("GET", "/hive/v1/nodes")
    listed = at.read(answer, _NodesAnswer).nodes
    if as_json:
        print_json(answer)
        return
    print_table(*_table(listed, wide), _COLUMNS if wide else _UNFOLDED)
    if not listed:
        typer.echo(NO_NODES)


def _table(listed: list[_Node], wide: bool) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the rows. A column about agents is left out if it is empty."""
    ordered = sorted(listed, key=lambda node: (node.name.casefold(), node.name, node.engine or ""))
    rows = [_node_cells(node, wide) for node in ordered]
    kept = [
        index
        for index, name in enumerate(_COLUMNS)
        if name in _NARROW_COLUMNS or (wide and (name not in _AGENT_COLUMNS or any(row[index] for row in rows)))
    ]
    return [_COLUMNS[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _node_cells(node: _Node, wide: bool) -> list[str]:
    engine = f"{node.kind or '-'} {node.version or ''}".strip()
    busy = f"{node.running}/{node.slots}"
    loaded = ", ".join(node.loaded)
    if not wide and len(loaded) > _MAX_NAMES_CHARACTERS:
        loaded = f"{len(node.loaded)} models"
    seen = "" if node.heartbeat_age is None else f"{node.heartbeat_age:.0f} s ago"
    labels = ", ".join(f"{name}={value}" for name, value in node.labels.items())
    return [
        node.name, node.status, node.link, engine, busy, str(node.models), loaded, node.url or "",
        node.agent or "", labels, _machine(node.machine), seen, node.error or "",
    ]  # fmt: skip


def _machine(machine: _Machine | None) -> str:
    """Return a machine's resources and how much of each is in use."""
    if machine is None:
        return ""
    parts = [] if machine.cpu is None else [f"cpu {machine.cpu:.0%}"]
    if machine.memory_total_bytes:
        parts.append(f"memory {_share(machine.memory_used_bytes, machine.memory_total_bytes)}")
    for gpu in machine.gpus:
        used = "" if gpu.utilization is None else f" {gpu.utilization:.0%}"
        parts.append(f"{gpu.name}{used} {_share(gpu.memory_used_bytes, gpu.memory_total_bytes)}")
    return ", ".join(parts)


def _share(used_bytes: int | None, total_bytes: int) -> str:
    return f"{'-' if used_bytes is None else size(used_bytes)} of {size(total_bytes)}"


def drain(
    node: NodeArgument,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a node no new work; its running requests go on."""
    _set_draining(find_hub(hub, api_key_file, ca_file), node, "drain", as_json)


def resume(
    node: NodeArgument,
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a drained node work again."""
    _set_draining(find_hub(hub, api_key_file, ca_file), node, "resume", as_json)


def _set_draining(at: HubClient, node: str, what: str, as_json: bool) -> None:
    answer = at.ask("POST", f"/hive/v1/nodes/{quote(node, safe='')}/{what}")
    entries = at.read(answer, _NodesAnswer).nodes
    if as_json:
        print_json(answer)
        return
    running = sum(entry.running for entry in entries)
    does = "gets no new work" if what == "drain" else "gets work again"
    typer.echo(f"{plain(node)} {does}; {running} under way")


def models(
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models of all nodes."""
    at = find_hub(hub, api_key_file, ca_file)
    answer = at.ask("GET", "/hive/v1/models")
    listed = at.read(answer, _ModelsAnswer).models
    if as_json:
        print_json(answer)
        return
    rows = [
        [
            model.name,
            _id(model.digest),
            size(model.size),
            ", ".join(_node_with_note(node, model) for node in _by_name(model.nodes)),
            ", ".join(_by_name(model.loaded_on)),
        ]
        for model in listed
    ]
    print_table(("NAME", "ID", "SIZE", "NODES", "LOADED ON"), rows, _UNFOLDED_OF_MODELS)


def _node_with_note(node: str, model: _Model) -> str:
    """Return the node's name, with a note if the model is down there or if the node has another version of it."""
    differing = model.versions if len(model.versions) > 1 else []
    others = [_id(each.digest) for each in differing if node in each.nodes and each.digest != model.digest]
    notes = [*(["down"] if node in model.down_on else []), *(f"other version {each}" for each in others)]
    return f"{node} ({', '.join(notes)})" if notes else node


def ps(
    hub: HubOption = DEFAULT_HUB,
    api_key_file: KeyFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that are loaded."""
    at = find_hub(hub, api_key_file, ca_file)
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
    print_table(("NAME", "ID", "SIZE", "IN GPU", "UNTIL"), rows, _UNFOLDED_OF_MODELS)


def _by_name(nodes: list[str]) -> list[str]:
    return sorted(nodes, key=lambda name: (name.casefold(), name))


def _id(digest: str | None) -> str:
    return (digest or "").removeprefix("sha256:")[:_DIGEST_CHARACTERS]
