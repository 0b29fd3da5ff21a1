"""A node beside real engines: its report of them, an exchange of each kind, and a runner that is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest

from ..real import installed
from .hub import ScriptedHub, get, joined, post, run, until

pytestmark = [pytest.mark.engines, pytest.mark.long]


@pytest.fixture(scope="module", params=installed.EACH_OLLAMA)
def ollama(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An Ollama with three models."""
    installed.need(request.param)
    engine = installed.start_ollama(request.param, ("tiny-utf8", "tiny-embed", "slow-endless"))
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def llama() -> Iterator[Any]:
    """A llama.cpp server."""
    installed.need("llama-server")
    engine = installed.start_llama("llama-server", "tiny-utf8", parallel=3)
    yield engine
    engine.stop()


def body(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


def name_of(hub: ScriptedHub) -> str:
    return hub.hellos[0].engines[0].id


def test_an_ollama_is_told_of_and_serves(ollama: Any) -> None:
    async def main() -> None:
        async with joined(ollama.url) as hub:
            described = hub.hellos[0].engines[0]
            assert described.kind == "ollama"
            assert described.version == ollama.json("GET", "/api/version")["version"]
            assert b"tiny-utf8" in bytes(described.tags)
            chat = body(model="tiny-utf8", messages=[{"role": "user", "content": "hi"}], stream=False)
            answer = await hub.ask(post("/api/chat", chat), described.id)
            assert (answer.status, answer.error) == (200, None)
            assert "Köln" in answer.body.decode()
            await until(lambda: hub.reports and b"tiny-utf8" in bytes(hub.reports[-1].engines[0].ps), 5)
            embedded = await hub.ask(post("/api/embed", body(model="tiny-embed", input="a")), described.id)
            assert embedded.status == 200
            assert (await hub.ask(get("/v1/models/tiny-utf8"), described.id)).status == 200
            blob = f"/api/blobs/sha256:{'0' * 64}"
            assert (await hub.ask(get(blob, "HEAD"), described.id)).status == 404

    run(main())


def test_a_cancelled_stream_stops_the_engine(ollama: Any) -> None:
    async def main() -> None:
        async with joined(ollama.url) as hub:
            end = await hub.spare()
            request = body(model="slow-endless", prompt="a", options={"num_predict": 5000})
            answer = end.open(post("/api/generate", request), name_of(hub))
            await until(lambda: answer.raw.count(b'"response"') > 3, 30)
            end.cancel()
            await until(lambda: answer.ended)
            assert answer.error == "cancelled"
            again = body(model="slow-endless", prompt="a", stream=False, options={"num_predict": 1})
            async with asyncio.timeout(2):  # it has one slot
                assert (await end.ask(post("/api/generate", again), name_of(hub))).status == 200

    run(main())


def test_a_deleted_model_is_gone_from_the_report_within_two_seconds(ollama: Any) -> None:
    async def main() -> None:
        async with joined(ollama.url) as hub:
            copy = body(source="tiny-utf8", destination="a-copy")
            assert (await hub.ask(post("/api/copy", copy), name_of(hub))).status == 200
            await until(lambda: hub.reports and b"a-copy" in bytes(hub.reports[-1].engines[0].tags), 4)
            delete = b"DELETE" + post("/api/delete", body(model="a-copy"))[len(b"POST") :]
            assert (await hub.ask(delete, name_of(hub))).status == 200
            hub.control.refresh(name_of(hub))
            hub.control_end.flush()
            await until(lambda: b"a-copy" not in bytes(hub.reports[-1].engines[0].tags), 1)

    run(main())


def test_a_runner_that_is_stopped_is_told(ollama: Any) -> None:
    async def main() -> None:
        async with joined(ollama.url) as hub:
            request = body(model="slow-endless", prompt="a", options={"num_predict": 5000})
            answer = (await hub.spare()).open(post("/api/generate", request), name_of(hub))
            await until(lambda: answer.raw.count(b'"response"') > 3, 30)
            runner = max(map(psutil.Process, ollama.runners()), key=lambda each: each.cpu_times().user)

            def last() -> Any:
                return hub.heartbeats[-1].engines[name_of(hub)]

            await until(lambda: hub.heartbeats and last().idle_s == 0)
            runner.send_signal(signal.SIGSTOP)
            try:
                await until(lambda: last().stopped, 6)
                await until(lambda: (last().idle_s or 0) > 1, 8)
                assert last().alive
            finally:
                runner.send_signal(signal.SIGCONT)
            await until(lambda: not last().stopped, 6)

    run(main())


def test_a_llama_cpp_is_told_of_and_serves(llama: Any) -> None:
    async def main() -> None:
        async with joined(llama.url) as hub:
            described = hub.hellos[0].engines[0]
            assert (described.kind, described.slots) == ("llama.cpp", 3)
            assert b"tiny-utf8" in bytes(described.v1_models)
            chat = body(model="tiny-utf8", messages=[{"role": "user", "content": "hi"}], stream=True)
            answer = await hub.ask(post("/v1/chat/completions", chat), described.id)
            assert (answer.status, answer.error) == (200, None)
            assert b"data: [DONE]" in answer.body

    run(main())
