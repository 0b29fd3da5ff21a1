"""The double of an agent: it joins, carries requests, comes back, and misbehaves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hive.testing import ThreadedEngine
from hive.testing.agent_double import AgentDouble, ThreadedAgent, run_agent
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.link_rules import SPARE_LINKS, CloseCode

from ..raw import GENERATE, Wire, ask, eventually, request


@pytest.fixture
def hub() -> Iterator[ThreadedHub]:
    with run_hub() as hub:
        yield hub


@contextmanager
def joined(hub: ThreadedHub, engine: ThreadedEngine, **more: object) -> Iterator[ThreadedAgent]:
    """A double over one engine, once the hub has heard of it."""
    with run_agent(hub.url, hub.create_key("desk", "worker"), {"e": engine.url}, **more) as agent:
        eventually(lambda: states(hub) == ["ready"], 10)
        yield agent


def states(hub: ThreadedHub) -> list[str]:
    return hub.call(lambda server: [engine.health.value for engine in server.hub.fleet.engines])


def test_it_carries_requests_to_its_engine(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine, credential="secret"):
        answer = ask(hub.port, request(body=GENERATE))
    assert (answer.status, answer.header("X-Hive-Node")) == (200, "desk")
    seen = next(each for each in engine.state().requests if each.path == "/api/generate")
    assert ("Authorization", "Bearer secret") in seen.headers


def test_it_keeps_as_many_data_sockets_as_the_hub_wants(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent:
        eventually(lambda: agent.call(lambda one: (one.want, len(one.data))) == (SPARE_LINKS, SPARE_LINKS))


def test_it_comes_back_after_all_its_connections_were_lost(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent:
        before = agent.call(lambda one: one.control)
        agent.call(AgentDouble.kill)
        eventually(lambda: agent.call(lambda one: one.control not in (None, before)), 10)
        eventually(lambda: states(hub)[0] in ("ready", "probation"), 10)
        assert agent.closes[0][0] == CloseCode.BROKE_OFF


def test_it_stays_away_when_it_is_told_to(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent:
        agent.call(lambda one: setattr(one, "redials", False))
        agent.call(AgentDouble.kill)
        eventually(lambda: states(hub) == ["down"], 10)
        assert agent.call(lambda one: one.control) is None


def test_a_deaf_one_takes_exchanges_and_does_nothing_with_them(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent, Wire(hub.port) as wire:
        agent.call(AgentDouble.make_deaf)
        before = engine.state().received
        wire.send(request(body=GENERATE))
        hub.until(lambda server: any(each.running for each in server.hub.fleet.engines))
        assert "/api/generate" not in engine.state().received
        assert "/api/generate" not in before


def test_a_report_tells_the_hub_of_what_has_changed(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent:
        assert ask(engine.port, request("/api/copy", {"source": "tiny", "destination": "new"})).status == 200
        agent.report()
        hub.until(lambda server: bool(server.hub.fleet.having("new:latest")))


def test_a_drain_asks_for_no_new_work(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine) as agent:
        agent.call(AgentDouble.drain)
        hub.until(lambda server: not any(each.takes_work for each in server.hub.fleet.engines))


def test_it_hears_the_hub_say_goodbye(engine: ThreadedEngine) -> None:
    with run_hub() as hub, joined(hub, engine) as agent:
        agent.call(lambda one: setattr(one, "redials", False))
        hub.stop()
        eventually(lambda: agent.call(lambda one: one.byes) == ["the hub stops"])
        assert (CloseCode.GOING_AWAY, "the hub stops") in agent.closes


def test_a_key_that_is_none_is_remembered_as_a_refusal(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with run_agent(hub.url, "no-key", {"e": engine.url}) as agent:
        eventually(lambda: any(code == 401 for code, _ in agent.closes), 10)


def test_it_leaves_in_good_order(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    with joined(hub, engine):
        pass
    hub.until(lambda server: all(node.control is None for node in server.hub.joining.nodes.values()))
    assert "the agent stops" in hub.call(lambda server: [each.error for each in server.hub.fleet.engines])[0]
