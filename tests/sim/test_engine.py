"""The engine over its socket: loads, queue, streams, departures, and its state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from hive.testing import SimOptions, SimulatedEngine, run_in_thread

ASK = {"model": "tiny", "prompt": "hello"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


def test_a_stream_has_the_tokens_that_were_asked_for_and_an_end(client_of: type) -> None:
    with run_in_thread() as engine:
        lines = client_of(engine).ask("/api/generate", ASK | {"options": {"num_predict": 5}}).lines()
    assert [line["done"] for line in lines] == [False] * 5 + [True]
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("length", 5)


def test_stream_and_whole_answer_have_the_same_words_on_each_engine_of_the_same_seed(
    client_of: type,
) -> None:
    with run_in_thread(SimOptions(seed=3)) as one, run_in_thread(SimOptions(seed=3)) as other:
        stream = client_of(one).ask("/api/generate", ASK).words()
        assert client_of(other).ask("/api/generate", ASK | {"stream": False}).json()["response"] == stream
        assert len(stream.split()) >= 24


def test_keep_alive_runs_out(client_of: type) -> None:
    with run_in_thread() as engine:
        client_of(engine).ask("/api/generate", ASK | {"keep_alive": "20ms"})
        assert engine.until(lambda state: state.unloads == 1).loaded == []


def test_hundreds_of_streams_at_once() -> None:
    async def one(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(ASK | {"options": {"num_predict": 3}}).encode()
        writer.write(
            b"POST /api/generate HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def all_at_once() -> None:
        async with SimulatedEngine(SimOptions(slots=1000)) as engine:
            engine.set_fault("freeze-stream", 1)
            asked = [asyncio.create_task(one(engine.port)) for _ in range(400)]
            await engine.until(lambda state: state.running == 400)
            engine.clear_faults()
            answers = await asyncio.gather(*asked)
            assert all(answer.endswith(b"\r\n0\r\n\r\n") and b'"done":true' in answer for answer in answers)
            assert engine.state().finished == 400

    asyncio.run(all_at_once())


@pytest.mark.parametrize(
    ("fault", "ends_with"), [("drop", b'"done":false}\n\r\n'), ("reset", None), ("no-end", b"0\r\n\r\n")]
)
def test_it_runs_on_uvloop_too(fault: str, ends_with: bytes | None) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> bytes | None:
        async with SimulatedEngine() as engine:
            engine.set_fault(fault, 3)
            reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
            body = json.dumps(ASK).encode()
            writer.write(
                b"POST /api/generate HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            try:
                return await reader.read()
            except ConnectionResetError:
                return None
            finally:
                writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer = runner.run(scenario())
    if ends_with is None:
        assert answer is None
    else:
        assert answer is not None
        assert answer.endswith(ends_with)


def test_a_stop_ends_running_answers_and_counts_no_departure(client_of: type, read_until: Callable) -> None:
    async def scenario() -> int:
        engine = SimulatedEngine(SimOptions(ttft=3600))
        await engine.start()
        _, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        body = json.dumps(ASK).encode()
        writer.write(b"POST /api/generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await engine.until(lambda state: state.running == 1)
        await engine.stop()
        writer.close()
        return engine.state().cancelled + engine.state().running

    assert asyncio.run(scenario()) == 0
