"""The machines of the demo: three different simulated engines, and the real engines of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from hive.cli.demo.agents import DemoMachine
from hive.errors import Fault
from hive.fleet.kinds import EngineKind
from hive.fleet.listings import UnreadableListing, read_v1_models
from hive.hub.loader import LOAD_PATH
from hive.net.ask import ask
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox
from hive.testing import SimKind, SimOptions, SimulatedEngine

CHAT_MODEL = "sim-chat"
CODE_MODEL = "sim-code"

SIMULATED: Mapping[str, SimOptions] = {
    "lab-gpu": SimOptions(models=(CHAT_MODEL,), kind=SimKind.VLLM, slots=2, ttft=0.05, tokens_per_second=100, seed=1),
    "office-mac": SimOptions(
        models=(CHAT_MODEL, CODE_MODEL), slots=2, load_time=0.3, ttft=0.1, tokens_per_second=60, seed=2
    ),
    "old-laptop": SimOptions(
        models=(CHAT_MODEL, CODE_MODEL), slots=1, load_time=0.5, ttft=0.2, tokens_per_second=40, seed=3
    ),
}
"""Slots, speed and load time differ, so that the choice among the machines is interesting. The show takes 5 seconds."""

REAL_ENGINES: Mapping[str, int] = {"ollama": 11434, "vllm": 8000, "llama-cpp": 8080, "lm-studio": 1234}
"""The usual port of each kind of engine. An engine that is found becomes a node with the name of its kind."""

_LOOK_TIMEOUT = 0.5
_LOAD_TIMEOUT = 10.0
_MAX_HEAD_BYTES = 32 * 1024

Engines = Mapping[str, SimulatedEngine]


@asynccontextmanager
async def simulated_engines(options: Mapping[str, SimOptions] = SIMULATED) -> AsyncIterator[Engines]:
    """Run the simulated engines while the block runs. Each has a free port, and its first model is in memory."""
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(SimulatedEngine(chosen)) for name, chosen in options.items()}
        await asyncio.gather(*(_load(engine) for engine in engines.values()))
        yield engines


async def _load(engine: SimulatedEngine) -> None:
    """Load the engine's first model, as an earlier request would have done."""
    if engine.options.kind is SimKind.OLLAMA:
        link = DialedLink(engine.url, Outbox(), connect_timeout=_LOOK_TIMEOUT, max_head_bytes=_MAX_HEAD_BYTES)
        try:
            await ask(link, LOAD_PATH, _LOAD_TIMEOUT, b'{"model": "%b"}' % engine.options.models[0].encode())
        finally:
            link.close()


def machines_of(engines: Engines, found: Mapping[str, str]) -> Mapping[str, DemoMachine]:
    """Return the machines that will join the hub: the simulated engines, then the real ones (`found`: URL by name)."""
    simulated = {name: DemoMachine(engine.url, engine.options.slots) for name, engine in engines.items()}
    return simulated | {name: DemoMachine(url) for name, url in found.items()}


async def find_engines(ports: Mapping[str, int] = REAL_ENGINES) -> Mapping[str, str]:
    """Return the URLs of the engines that answer on these ports of loopback. A silent port costs half a second."""
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    answers = await asyncio.gather(*(_is_engine(url) for url in urls.values()))
    return {name: url for (name, url), is_one in zip(urls.items(), answers, strict=True) if is_one}


async def _is_engine(url: str) -> bool:
    """Does the server at this URL list models? All four kinds of engine list them in OpenAI's form."""
    link = DialedLink(url, Outbox(), connect_timeout=_LOOK_TIMEOUT, max_head_bytes=_MAX_HEAD_BYTES)
    try:
        head, body = await ask(link, "/v1/models", _LOOK_TIMEOUT)
        if head.status == 200:
            read_v1_models(body, EngineKind.OPENAI)
        return head.status == 200
    except (Fault, UnreadableListing):
        return False
    finally:
        link.close()


async def break_next(engines: Sequence[SimulatedEngine]) -> SimulatedEngine:
    """Make the engine that is asked first break off in the middle of its answer. Return that engine.

    All engines get the fault, so the result does not depend on the policy. The others lose it before that one breaks.
    """
    for engine in engines:
        engine.set_fault("drop", count=1)
    waiting = {asyncio.create_task(_until_dropped(engine)): engine for engine in engines}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    broken = waiting[done.pop()]
    for engine in engines:
        if engine is not broken:
            engine.clear_faults()
    return broken


async def _until_dropped(engine: SimulatedEngine) -> None:
    await engine.until(lambda state: any("drop" in request.faults for request in state.requests))
