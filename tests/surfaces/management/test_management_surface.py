"""The management surface: the hub's own pages at once, everything else by the application, made when it is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hive.dialects.routes import Methods
from hive.dialects.tasks import Dialect
from hive.errors import METHOD_NOT_ALLOWED, NOT_FOUND, Fault, Kind
from hive.net.asgi import Application
from hive.surfaces.management.management_routes import MANAGEMENT_ROUTES
from hive.surfaces.management.management_surface import management_surface
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.requests import RequestHead

from ...raw import ask, get


@pytest.fixture
def hub(engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    with run_hub({"a": engine.url}) as hub:
        yield hub


def admin(hub: ThreadedHub) -> str:
    return f"Authorization: Bearer {hub.admin_key}\r\n"


def test_the_hubs_own_pages_need_no_application(hub: ThreadedHub) -> None:
    assert ask(hub.port, get("/healthz")).body == b"ok\n"
    assert ask(hub.port, get("/readyz")).body == b"ok\n"
    assert b"hive_exchanges_total" in ask(hub.port, get("/metrics", admin(hub))).body


def test_a_hub_that_has_not_looked_at_its_nodes_is_not_ready(engine: ThreadedEngine) -> None:
    engine.set_fault("freeze")
    with run_hub({"a": engine.url}, link="dialed", wait=False, probe_timeout=30) as hub:
        answer = ask(hub.port, get("/readyz"))
        assert (answer.status, answer.header("Retry-After"), answer.body) == (503, "1", b"starting\n")
        assert ask(hub.port, get("/healthz")).status == 200
        engine.clear_faults()


def test_the_application_answers_the_rest(hub: ThreadedHub) -> None:
    answer = ask(hub.port, get("/hive/v1/nodes", admin(hub)))
    assert [node["name"] for node in answer.json()["nodes"]] == ["a"]  # type: ignore[attr-defined]


def told(path: str, methods: Methods) -> Kind:
    """Return the fault for a path that has no route for this method."""

    def never() -> Application:
        raise AssertionError("nothing asks for the application")

    surface = management_surface(None, None, never, lambda: b"")  # type: ignore[arg-type]
    with pytest.raises(Fault) as raised:
        surface.answer_unknown(RequestHead("PUT", path, "", True, {}), methods, MANAGEMENT_ROUTES.find)
    return raised.value.kind


def test_what_it_does_not_own_leads_nowhere() -> None:
    assert told("/healthz", MANAGEMENT_ROUTES.find("/healthz")) is METHOD_NOT_ALLOWED
    assert told("/hive/nowhere", {}) is NOT_FOUND


def test_everything_below_its_prefix_is_its_own_and_told_in_its_own_words() -> None:
    surface = management_surface(None, None, lambda: None, lambda: b"")  # type: ignore[arg-type,return-value]
    assert surface.prefix == "/hive/"
    assert surface.dialect_of("/hive/anything") is Dialect.HIVE
