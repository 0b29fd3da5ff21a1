"""The remote control of an engine: by its own port and below /sim, whatever fault is set."""

from __future__ import annotations

import json
import urllib.request

import pytest

from hive.testing import ThreadedEngine, run_in_thread


def controlled(engine: ThreadedEngine, path: str, method: str = "GET", body: bytes | None = None) -> dict[str, object]:
    """Return what the control port answers."""
    order = urllib.request.Request(f"{engine.control_url}{path}", body, method=method)
    with urllib.request.urlopen(order, timeout=20) as answer:
        decoded: dict[str, object] = json.load(answer)
        return decoded


def test_faults_can_be_set_over_http(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        order = {"kind": "busy", "count": 1, "path": "/api/version"}
        assert client.ask("/sim/fault", order).json() == {"faults": ["busy"]}
        assert [client.ask("/api/version").status for _ in range(2)] == [503, 200]
        refused = client.ask("/sim/fault", {"kind": "nonsense"})
        assert refused.status == 400
        assert "allowed are freeze" in refused.json()["error"]
        assert client.ask("/sim/fault", {"kind": "drop", "typo": 1}).status == 400


def test_a_frozen_engine_is_controlled_by_its_other_port() -> None:
    with run_in_thread() as engine:
        engine.set_fault("freeze")
        assert controlled(engine, "/sim/state")["faults"] == ["freeze"]
        assert controlled(engine, "/sim/fault", "DELETE") == {"faults": []}
        assert engine.state().faults == []


def test_the_control_port_knows_no_other_route() -> None:
    with run_in_thread() as engine, pytest.raises(urllib.error.HTTPError, match="404"):
        controlled(engine, "/api/version")


def test_control_is_counted_nowhere() -> None:
    with run_in_thread() as engine:
        controlled(engine, "/sim/state")
        state = engine.state()
    assert (state.received, state.connections_total) == ({}, 0)
