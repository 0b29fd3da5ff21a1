"""What exchanges report of engines: no way to one, a model that went from its memory, one that may have come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hive.app import HubServer
from hive.errors import NODE_BUSY, NODE_UNREACHABLE, Fault
from hive.fleet.engines import Engine, Health
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub

MODEL = "tiny:latest"


@pytest.fixture
def hub(engine: ThreadedEngine) -> Iterator[ThreadedHub]:
    with run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        hub.until(lambda server: only(server).health is Health.READY)
        yield hub


def only(server: HubServer) -> Engine:
    (engine,) = server.hub.fleet.engines
    return engine


def test_an_engine_that_cannot_be_reached_is_down_until_the_next_look(hub: ThreadedHub) -> None:
    def report(server: HubServer) -> tuple[Health, str]:
        server.hub.services.note_unreachable(only(server), Fault(NODE_UNREACHABLE, "no connection"))
        return only(server).health, only(server).error

    assert hub.call(report) == (Health.DOWN, "no connection")
    hub.until(lambda server: only(server).health in (Health.READY, Health.PROBATION))  # it was looked at again


def test_a_node_that_is_short_of_connections_rests_and_is_not_down(hub: ThreadedHub) -> None:
    def report(server: HubServer) -> bool:
        server.hub.services.note_unreachable(only(server), Fault(NODE_BUSY, "all connections are taken"))
        return only(server).running.rests_until > server.hub.now()

    assert hub.call(report)
    assert hub.call(lambda server: only(server).health) is Health.READY


def test_a_model_that_a_client_unloads_is_forgotten_at_once(hub: ThreadedHub) -> None:
    def report(server: HubServer) -> bool:
        engine = only(server)
        engine.running.loaded_as[MODEL] = ""
        server.hub.services.note_exchange(engine, MODEL, unloads=True, changes=False)
        return MODEL in engine.running.loaded_as or MODEL in engine.known.loaded

    assert not hub.call(report)


def test_an_answer_of_a_model_in_memory_makes_the_listing_stale(hub: ThreadedHub) -> None:
    def report(server: HubServer) -> bool:
        engine = only(server)
        engine.known.warm.add(MODEL)
        engine.known.is_stale = False
        server.hub.services.note_exchange(engine, MODEL, unloads=False, changes=False)
        return engine.known.is_stale

    assert hub.call(report)
