"""Events as types: each kind has its details, and programs can read them."""

from __future__ import annotations

import msgspec

from hive.fleet.engines import Health
from hive.hub.events import DETAILS, EngineHealth, Event, EventKind, engine_subject


def test_every_kind_has_its_details() -> None:
    assert list(DETAILS) == list(EventKind)


def test_an_event_is_json_with_names() -> None:
    details = EngineHealth("a", "", Health.READY, Health.DOWN, "connection refused")
    event = Event("2026-01-01T00:00:00.000Z", "0123456789ab", 7, EventKind.ENGINE_HEALTH, "a", details)
    assert msgspec.json.decode(msgspec.json.encode(event)) == {
        "time": "2026-01-01T00:00:00.000Z",
        "epoch": "0123456789ab",
        "number": 7,
        "kind": "engine_health",
        "subject": "a",
        "details": {"node": "a", "engine": "", "before": "ready", "after": "down", "cause": "connection refused"},
    }


def test_an_engine_is_called_after_its_node() -> None:
    assert (engine_subject("a", ""), engine_subject("a", "ollama")) == ("a", "a/ollama")
