"""`hive nodes`, `hive models` and `hive ps` against a hub whose one node is down."""

from __future__ import annotations

import json

import pytest

from .conftest import Run


def test_nodes_are_listed_for_people_and_for_programs(run: Run, hub: str) -> None:
    table = run("nodes")
    assert " ".join(table.out.split("\n")[0].split()) == "NAME STATUS ENGINE BUSY MODELS LOADED URL REASON"
    assert table.out.split("\n")[1].startswith("far ")
    assert "http://127.0.0.1:1" in table.out
    assert [node["name"] for node in json.loads(run("nodes", "--json").out)["nodes"]] == ["far"]


@pytest.mark.parametrize(
    ("command", "columns"), [("models", "NAME ID SIZE NODES LOADED ON"), ("ps", "NAME ID SIZE IN GPU UNTIL")]
)
def test_an_empty_fleet_has_columns_and_no_rows(run: Run, hub: str, command: str, columns: str) -> None:
    assert run(command).out.split() == columns.split()
    assert json.loads(run(command, "--json").out) == {"models": []}
