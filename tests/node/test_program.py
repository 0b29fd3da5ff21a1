"""`hive node` as a program: its exit codes, its signals, what it writes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hive.testing import SimulatedEngine
from hive.wire.link_rules import CloseCode

from ..process import environment
from .engine import Call, RawEngine
from .hub import KEY, ScriptedHub, post, refuse, run, until

Process = asyncio.subprocess.Process


@asynccontextmanager
async def program(hub: ScriptedHub, engine: str) -> AsyncIterator[Process]:
    """Run an agent as a user does; its log is `stderr`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hive.cli", "node", "--hub", hub.url, "--engine", engine,
        env=environment(HIVE_KEY=KEY), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: Process) -> str:
    out, err = await process.communicate()
    assert out == b""
    return err.decode()


def test_it_joins_serves_and_leaves_on_sigterm() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, ScriptedHub() as hub, program(hub, engine.url) as process:
            await hub.joined()
            answer = await hub.ask(post("/api/generate", b'{"model":"tiny"}'), f"port-{engine.port}")
            assert answer.status == 200
            process.terminate()
            log = await said(process)
            assert process.returncode == 0
            assert f"joined {hub.url} as desk (engines: ollama at {engine.url})" in log
            assert KEY not in log
            assert hub.is_draining

    run(main())


def test_a_second_signal_ends_it_at_once() -> None:
    async def endless(call: Call) -> None:
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await call.gone()

    async def main() -> None:
        async with RawEngine(endless) as engine, ScriptedHub() as hub, program(hub, engine.url) as process:
            await hub.joined()
            answer = hub.spares()[0].open(post("/api/chat"), engine.name)
            await until(lambda: answer.raw)
            process.send_signal(signal.SIGINT)
            await until(lambda: hub.is_draining)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(5):
                await said(process)
            assert process.returncode == 1

    run(main())


@pytest.mark.parametrize(("status", "code"), [(401, 3), (403, 3), (426, 4)])
def test_a_refusal_is_a_sentence_and_a_code(status: int, code: int) -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, ScriptedHub() as hub:
            hub.refusal = refuse(status, "the hub's own words")
            async with program(hub, engine.url) as process:
                log = await said(process)
                assert process.returncode == code
                assert log.splitlines()[-1].startswith("hive: ")
                assert log.splitlines()[-1].endswith(": the hub's own words")
                assert "Traceback" not in log

    run(main())


def test_a_key_that_is_revoked_while_it_runs_ends_it() -> None:
    async def main() -> None:
        async with SimulatedEngine() as engine, ScriptedHub() as hub, program(hub, engine.url) as process:
            await hub.joined()
            hub.control.close(CloseCode.KEY_REVOKED, "key desk was revoked")
            hub.control_end.flush()
            log = await said(process)
            assert process.returncode == 3
            assert log.splitlines()[-1] == "hive: the hub has ended this node's session: key desk was revoked"

    run(main())
