"""The commands about the fleet, against a hub with one node that is down, and a hub with one joined node."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from hive.cli.fleet import _Model, _Node, _node_with_note, _ShownVersion, _table
from hive.testing import ThreadedEngine
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub

from .conftest import Run


def test_nodes_are_listed_for_people_and_for_programs(run: Run, hub: str) -> None:
    table = run("nodes")
    assert " ".join(table.out.split("\n")[0].split()) == "NAME STATUS ENGINE BUSY MODELS LOADED REASON"
    assert table.out.split("\n")[1].startswith("far ")
    wide = run("nodes", "--wide")
    assert " ".join(wide.out.split("\n")[0].split()) == "NAME STATUS LINK ENGINE BUSY MODELS LOADED URL REASON"
    assert "http://127.0.0.1:1" in wide.out
    assert [node["name"] for node in json.loads(run("nodes", "--json").out)["nodes"]] == ["far"]


@pytest.mark.parametrize(
    ("command", "columns"), [("models", "NAME ID SIZE NODES LOADED ON"), ("ps", "NAME ID SIZE IN GPU UNTIL")]
)
def test_an_empty_fleet_is_shown_as_columns_without_rows(run: Run, hub: str, command: str, columns: str) -> None:
    assert run(command).out.split() == columns.split()
    assert json.loads(run(command, "--json").out) == {"models": []}


def node(name: str, **changes: object) -> _Node:
    return msgspec.structs.replace(
        _Node(name, f"http://{name}:1", "ready", "ollama", "0.12", 1, 0, 2, [], None), **changes
    )


def test_nodes_are_sorted_by_name_and_engine() -> None:
    listed = [node("b"), node("C"), node("a", engine="two"), node("a", engine="one", status="down")]
    _, rows = _table(listed, wide=False)
    assert [row[:2] for row in rows] == [["a", "down"], ["a", "ready"], ["b", "ready"], ["C", "ready"]]


def test_loaded_models_are_named_if_the_names_are_short() -> None:
    long = ["llama3.2:3b-instruct-q4_K_M", "another:latest"]
    listed = [node("a", loaded=["tiny:latest"]), node("b", loaded=long)]
    columns, rows = _table(listed, wide=False)
    cells = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [each["LOADED"] for each in cells] == ["tiny:latest", "2 models"]
    columns, rows = _table(listed, wide=True)
    assert ", ".join(long) in rows[1]


def test_a_hub_without_nodes_says_how_to_add_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_hub({}, link="dialed") as hub:
        monkeypatch.setenv("HIVE_HUB", hub.url)
        monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)
        head, sentence = run("nodes").out.splitlines()
        assert head.split()[0] == "NAME"
        assert sentence == ("none yet: --node NAME=URL for machines that the hub can reach, hive node for others")


def test_the_nodes_of_a_model_are_sorted_by_name(
    run: Run, engine: ThreadedEngine, second_engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_hub({"zoo": engine.url, "Bee": second_engine.url}, link="dialed") as hub:
        hub.until(lambda server: [each.health.value for each in server.hub.fleet.engines] == ["ready", "ready"])
        monkeypatch.setenv("HIVE_HUB", hub.url)
        monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)
        assert "Bee, zoo" in run("models").out


def test_a_node_with_another_version_of_a_model_has_a_note() -> None:
    versions = [_ShownVersion("sha256:" + "a" * 64, ["a", "b"]), _ShownVersion("b" * 64, ["b", "c"])]
    model = _Model("m:latest", ["a", "b", "c", "d"], [], None, "sha256:" + "a" * 64, ["c", "d"], versions)
    assert [_node_with_note(name, model) for name in model.nodes] == [
        "a",
        "b (other version bbbbbbbbbbbb)",
        "c (down, other version bbbbbbbbbbbb)",
        "d (down)",
    ]


def test_one_version_is_not_another_version_than_the_shown_one() -> None:
    model = _Model("m:latest", ["a", "vllm"], [], None, "made up of its name", [], [_ShownVersion("a" * 64, ["a"])])
    assert [_node_with_note(name, model) for name in model.nodes] == ["a", "vllm"]


@pytest.fixture
def joined_hub(engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedHub]:
    """Run a hub with a joined node; HIVE_HUB and HIVE_API_KEY point to it."""
    with run_hub({}, link="dialed") as hub:
        monkeypatch.setenv("HIVE_HUB", hub.url)
        monkeypatch.setenv("HIVE_API_KEY", hub.admin_key)
        key = hub.create_key("desk", "worker")
        with run_agent(hub.url, key, {"ollama": engine.url}, labels={"room": "lab 2"}, slots=3):
            hub.until(lambda server: bool(server.hub.fleet.engines))
            yield hub


def test_a_node_that_joined_shows_its_agent_and_its_machine(run: Run, joined_hub: ThreadedHub) -> None:
    head, row = run("nodes", "--wide").out.rstrip().split("\n")
    columns = "NAME STATUS LINK ENGINE BUSY MODELS LOADED URL AGENT LABELS MACHINE SEEN REASON"
    assert " ".join(head.split()) == columns
    for part in ("desk", "ready", "joined", "0/3", "hive.testing 1", "room=lab 2", "s ago"):
        assert part in row
    assert "cpu 25%, memory 16.0 GB of 64.0 GB, Test GPU 50% 0 B of 24.0 GB" in row


def test_a_node_is_drained_and_resumed(run: Run, joined_hub: ThreadedHub) -> None:
    assert run("drain", "desk").out == "desk gets no new work; 0 under way\n"
    assert " draining " in run("nodes").out
    assert run("resume", "desk").out == "desk gets work again; 0 under way\n"
    assert json.loads(run("resume", "desk", "--json").out)["nodes"][0]["status"] == "ready"
    unknown = run("drain", "nobody")
    assert (unknown.code, unknown.err) == (1, "hive: there is no node 'nobody'\n")
