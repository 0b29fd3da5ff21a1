"""The agents of the demo: one agent beside each engine, each with its own worker key, as on a user's machines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from hive.app import HubServer
from hive.auth.keys import Role
from hive.config import Secret
from hive.node.agent import Agent, AgentError
from hive.node.agent_options import NodeOptions, read_engine

_JOIN_TIMEOUT = 5.0
"""Seconds. An engine that answers its agent slowly needs three seconds before it joins."""
_JOIN_STEP = 0.02
_LEAVE_TIMEOUT = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DemoMachine:
    """An engine that will join the hub."""

    engine_url: str
    slots: int | None = None
    """None: the agent takes the number from the engine, or else from the engine's kind."""


@asynccontextmanager
async def run_agents(server: HubServer, machines: Mapping[str, DemoMachine]) -> AsyncIterator[None]:
    """Run an agent for each machine; the keys are node names. At the end of the block the agents leave in order."""
    hub_url = f"http://127.0.0.1:{server.port}"
    running: dict[asyncio.Task[None], Agent] = {}
    try:
        for name, machine in machines.items():
            key = Secret((await server.keys.create(name, Role.WORKER)).secret)
            agent = Agent(NodeOptions(hub_url, key, (read_engine(machine.engine_url),), machine.slots))
            running[asyncio.create_task(_run(name, agent))] = agent
        yield
        with _without_hub_warnings():
            await _leave(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def until_joined(server: HubServer, names: Mapping[str, object]) -> None:
    """Wait until all these nodes can be given work, but at most `_JOIN_TIMEOUT` seconds."""
    try:
        async with asyncio.timeout(_JOIN_TIMEOUT):
            while not all(_has_joined(server, name) for name in names):  # noqa: ASYNC110 - so no node pays for an event
                await asyncio.sleep(_JOIN_STEP)
    except TimeoutError:
        pass


def _has_joined(server: HubServer, name: str) -> bool:
    node = server.hub.joining.nodes.get(name)
    return node is not None and node.pool.spares > 0


async def _run(name: str, agent: Agent) -> None:
    try:
        await agent.run()
    except AgentError as error:  # for example after `hive keys revoke` in another terminal
        _log.warning("%s has ended: %s", name, error)


async def _leave(running: Mapping[asyncio.Task[None], Agent]) -> None:
    for agent in running.values():
        agent.stop()
    _, late = await asyncio.wait(running, timeout=_LEAVE_TIMEOUT)
    for task in late:
        running[task].stop()
    await asyncio.gather(*running)


@contextmanager
def _without_hub_warnings() -> Iterator[None]:
    """Silence the hub's warnings that it loses its nodes: at the end of the demo it loses them on purpose."""
    log = logging.getLogger("hive.hub")
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(logging.NOTSET)
