"""An exchange through a node: its request at the engine, its answer at the hub, and the reports of failures."""

from __future__ import annotations

import asyncio

import pytest

from hive.net import engine_connection
from hive.testing import SimOptions, SimulatedEngine
from hive.wire.link_data import HubState

from .engine import ANSWER, Call, RawEngine, plain
from .hub import Answer, End, break_dial, get, joined, post, run, until

GENERATE = b'{"model":"tiny","prompt":"hi","stream":false}'


def test_a_request_reaches_the_engine_and_its_answer_comes_back() -> None:
    async def main() -> None:
        async with SimulatedEngine(SimOptions(slots=8)) as engine, joined(engine.url) as hub:
            answer = await hub.ask(post("/api/generate", GENERATE), f"port-{engine.port}")
            assert answer.accepted
            assert answer.error is None
            assert answer.status == 200
            assert b'"done":true' in answer.body

    run(main())


def test_a_stream_comes_back_as_its_bytes_came() -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            received.clear()
            await call.send(b"2\r\n%d\n\r\n" % number)
            await received.wait()
        await call.send(b"0\r\n\r\n")

    received = asyncio.Event()

    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = end.open(post("/api/chat", GENERATE), engine.name)
            for number in range(5):
                await until(lambda wanted=b"%d\n" % number: wanted in answer.raw)
                received.set()
            await until(lambda: answer.ended)
            assert answer.body == b"".join(b"2\r\n%d\n\r\n" % number for number in range(5)) + b"0\r\n\r\n"

    run(main())


def test_the_head_is_written_anew_with_the_engines_host_and_credentials() -> None:
    async def main() -> None:
        engine = RawEngine()
        async with engine:
            url = engine.url.replace("://", "://sk-engine@")
            async with joined(url) as hub:
                described = hub.hellos[0].engines[0]
                assert described.address == engine.url
                request = post("/api/chat", GENERATE, "Authorization: Bearer of-a-client", "Cookie: a", "X-Own: kept")
                assert (await hub.ask(request, described.id)).status == 200
                call = engine.calls[0]
                assert call.lines[0] == "POST /api/chat HTTP/1.1"
                assert call.body == GENERATE
                assert call.fields == {
                    "host": f"127.0.0.1:{engine.port}",
                    "authorization": "Bearer sk-engine",
                    "x-own": "kept",
                    "content-type": "application/json",
                    "content-length": str(len(GENERATE)),
                }
                assert all(b"Authorization: Bearer sk-engine" in probe for probe in engine.probes)

    run(main())


@pytest.mark.parametrize("cut", [1, 7, 40, 81, 85, 120, -1])
def test_a_request_may_be_cut_anywhere(cut: int) -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            request = post("/api/chat", GENERATE)
            end = await hub.spare()
            answer = end.open(request[:cut], engine.name)
            await until(lambda: answer.accepted)
            end.send(request[cut:])
            await until(lambda: answer.ended)
            assert answer.status == 200
            assert engine.calls[0].body == GENERATE

    run(main())


def test_one_socket_carries_many_exchanges_over_one_connection_to_the_engine() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            for _ in range(20):
                assert (await end.ask(post("/api/chat", GENERATE), engine.name)).status == 200
            assert {call.connection for call in engine.calls} <= {0, 1}

    run(main())


def test_accepted_rides_with_a_quick_answer_and_leaves_alone_before_a_slow_one() -> None:
    async def slow(call: Call) -> None:
        await call.read_body()
        await may_answer.wait()
        await call.send(ANSWER)

    may_answer = asyncio.Event()

    async def main() -> None:
        async with RawEngine(slow) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            await end.ask(get("/api/tags"), engine.name)
            end.writes.clear()
            await end.ask(get("/api/tags"), engine.name)
            assert len(end.writes) == 1
            answer = end.open(post("/api/chat", GENERATE), engine.name)
            await until(lambda: answer.accepted)
            may_answer.set()
            await until(lambda: answer.ended)
            assert answer.status == 200

    run(main())


# --- bodies ---


def test_a_chunked_request_is_framed_anew() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            head = b"POST /api/create HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"
            end = await hub.spare()
            answer = end.open(head + b"3;x=y\r\nabc\r\n", engine.name)
            await until(lambda: answer.accepted)
            end.send(b"2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
            await until(lambda: answer.ended)
            assert answer.status == 200
            assert engine.calls[0].body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            assert "trailer" not in engine.calls[0].fields

    run(main())


DIGEST = "sha256:" + "a" * 64
HEAD_ANSWERS = {
    "no length": b"HTTP/1.1 200 OK\r\nDate: now\r\n\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "nothing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("sent", HEAD_ANSWERS.values(), ids=list(HEAD_ANSWERS))
def test_an_answer_to_head_ends_with_its_head(sent: bytes) -> None:
    async def script(call: Call) -> None:
        await call.send(sent)

    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url) as hub:
            answer = await hub.ask(get(f"/api/blobs/{DIGEST}", "HEAD"), engine.name)
            assert bytes(answer.raw) == sent
            assert answer.error is None
            assert (await hub.ask(get(f"/api/blobs/{DIGEST}", "HEAD"), engine.name)).error is None

    run(main())


def test_a_large_body_passes_in_constant_memory() -> None:
    async def script(call: Call) -> None:
        await may_read.wait()
        await call.read_body()
        await call.send(ANSWER)

    may_read = asyncio.Event()
    blob = bytes(64 << 20)  # the system holds up to 10 MB for each of the two connections

    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = end.open(post(f"/api/blobs/{DIGEST}", blob), engine.name)
            await until(lambda: engine.calls)
            sizes = [0, -1]
            while sizes[-1] != sizes[-2]:  # until nothing moves any more
                sizes.append(end.transport.get_write_buffer_size())
                await asyncio.sleep(0.2)
            assert sizes[-1] > 24 << 20, "the node has taken what the engine did not read"
            may_read.set()
            await until(lambda: answer.ended)
            assert answer.status == 200
            assert len(engine.calls[0].body) == len(blob)

    run(main())


def test_a_slow_hub_pauses_its_own_engine_connection() -> None:
    sent = 0

    async def script(call: Call) -> None:
        nonlocal sent
        await call.read_body()
        if call.lines[0].startswith("POST /api/generate"):
            await call.send(ANSWER)
            return
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(1024):
            await call.send(bytes(64 << 10))
            sent += 64 << 10

    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url) as hub:
            end, other = hub.spares()[:2]
            answer = end.open(post("/api/chat", GENERATE), engine.name)
            await until(lambda: answer.raw)
            end.transport.pause_reading()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 40 << 20
            assert (await other.ask(post("/api/generate", GENERATE), engine.name)).status == 200
            end.transport.resume_reading()
            await until(lambda: answer.ended)
            assert len(answer.body) == 64 << 20
            assert (await end.ask(post("/api/generate", GENERATE), engine.name)).status == 200

    run(main())


def test_an_engine_may_answer_before_it_has_read_the_body() -> None:
    async def script(call: Call) -> None:
        await call.send(ANSWER)
        await call.gone()

    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            blob = post(f"/api/blobs/{DIGEST}", bytes(300_000))
            answer = end.open(blob[:1000], engine.name)
            await until(lambda: answer.ended)
            assert answer.status == 200
            assert answer.error is None
            # What was under way is discarded, and the socket carries the next exchange.
            end.data.socket.send_binary(blob[1000:200_000])
            end.flush()
            engine.script = plain
            assert (await end.ask(post("/api/chat", GENERATE), engine.name)).status == 200

    run(main())


# --- cancelling ---


async def streaming(hub_end: End, engine: RawEngine) -> Answer:
    answer = hub_end.open(post("/api/chat", GENERATE), engine.name)
    await until(lambda: b"first" in answer.raw)
    return answer


async def endless(call: Call) -> None:
    await call.read_body()
    await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    await call.gone()
    call.body = b"gone"


def test_cancel_closes_the_engines_connection_and_keeps_the_socket() -> None:
    async def main() -> None:
        async with RawEngine(endless) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = await streaming(end, engine)
            end.cancel()
            await until(lambda: answer.ended)
            assert answer.error == "cancelled"
            await until(lambda: engine.calls[0].body == b"gone", 1)
            engine.script = plain
            assert (await end.ask(post("/api/chat", GENERATE), engine.name)).status == 200

    run(main())


def test_cancel_right_behind_open_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = end.open(post("/api/chat", GENERATE), engine.name)
            end.cancel()
            await until(lambda: answer.ended)
            assert answer.error == "cancelled"
            assert (await end.ask(post("/api/chat", GENERATE), engine.name)).status == 200

    run(main())


def test_a_lost_data_socket_costs_its_own_exchange_alone() -> None:
    async def main() -> None:
        async with RawEngine(endless) as engine, joined(engine.url) as hub:
            one, other = hub.spares()[:2]
            await streaming(one, engine)
            answer = await streaming(other, engine)
            one.transport.abort()
            await until(lambda: engine.calls[0].body == b"gone", 1)
            assert answer.ended is None
            await until(lambda: len(hub.data_ends()) == 3)
            assert len(hub.hellos) == 1

    run(main())


# --- engines that fail ---


def answering(*pieces: bytes, then: str = "close") -> object:
    async def script(call: Call) -> None:
        await call.read_body()
        for piece in pieces:
            await call.send(piece)
        if then == "close":
            call.writer.close()
        else:
            call.writer.transport.abort()

    return script


FAILURES = {
    "closed without a word": (answering(), "engine_broke_off"),
    "reset without a word": (answering(then="reset"), "engine_broke_off"),
    "closed inside a counted answer": (answering(ANSWER[:-1]), "engine_broke_off"),
    "closed inside a chunked answer": (
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
        "engine_broke_off",
    ),
    "no HTTP": (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), "engine_garbled"),
    "another protocol": (answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "engine_garbled"),
    "a bad chunk": (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "engine_garbled"),
    "a head without end": (answering(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 10_000), "engine_garbled"),
    "an answer that only the close ends": (answering(b"HTTP/1.1 200 OK\r\n\r\nwhole"), None),
}


@pytest.mark.parametrize(("script", "code"), FAILURES.values(), ids=list(FAILURES))
def test_an_engine_that_fails_is_named_by_a_code(script: object, code: str | None) -> None:
    async def main() -> None:
        async with RawEngine(script) as engine, joined(engine.url) as hub:  # type: ignore[arg-type]
            end = await hub.spare()
            answer = await end.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.error == code
            assert end.data.state is HubState.SPARE

    run(main())


def test_an_engine_that_is_away_is_unreachable() -> None:
    async def main() -> None:
        engine = RawEngine()
        async with engine:
            pass
        async with joined(engine.url) as hub:
            answer = await hub.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.error == "engine_unreachable"
            assert answer.ended is not None
            assert answer.ended.error is not None
            assert "connection refused" in answer.ended.error.message
            described = hub.hellos[0].engines[0]
            assert not described.is_alive
            assert "connection refused" in described.error

    run(main())


def test_a_dial_with_an_unexpected_error_ends_the_exchange(caplog: pytest.LogCaptureFixture) -> None:
    long = post(f"/api/blobs/{DIGEST}", bytes(300_000))  # gets a connection of its own

    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            end = await hub.spare()
            await until(lambda: engine.probes)
            break_dial(engine.port)
            answer = await end.ask(long, engine.name)
            assert answer.error == "engine_unreachable"
            assert answer.ended is not None
            assert answer.ended.error is not None
            assert answer.ended.error.message == "nobody has foreseen this"
            assert (await end.ask(long, engine.name)).status == 200

    run(main())
    (told,) = [record for record in caplog.records if "dialing" in record.message]
    assert told.exc_info is not None


def test_an_engine_of_somebody_else_is_unknown() -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            answer = await hub.ask(post("/api/chat", GENERATE), "port-22")
            assert (answer.error, answer.accepted) == ("engine_unknown", False)

    run(main())


def test_a_pooled_connection_that_died_is_replaced_once() -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        if call.connection == kept and len(engine.calls) > 1:
            call.writer.transport.abort()
            return
        await call.send(ANSWER)

    engine = RawEngine(script)
    kept = -1

    async def main() -> None:
        nonlocal kept
        async with engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            await end.ask(post("/api/chat", GENERATE), engine.name)
            kept = engine.calls[0].connection
            answer = await end.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.status == 200
            assert engine.calls[-1].connection != kept
            assert engine.calls[-1].body == GENERATE

    run(main())


def test_an_engine_that_breaks_off_each_time_is_asked_no_third_time() -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        if len(engine.calls) == 1:
            await call.send(ANSWER)
        else:
            call.writer.transport.abort()

    engine = RawEngine(script)

    async def main() -> None:
        async with engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            await end.ask(post("/api/chat", GENERATE), engine.name)
            answer = await end.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.error == "engine_broke_off"
            assert len(engine.calls) <= 3

    run(main())


@pytest.mark.parametrize(("age", "is_sent_again"), [(0.0, True), (1.0, True), (1.1, False)])
def test_a_pooled_connection_that_dies_late_has_died_of_the_request(
    age: float, is_sent_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        if len(engine.calls) == 2:
            now[0] += age
            call.writer.transport.abort()
        else:
            await call.send(ANSWER)

    now = [1000.0]
    monkeypatch.setattr(engine_connection, "monotonic", lambda: now[0])
    engine = RawEngine(script)

    async def main() -> None:
        async with engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            await end.ask(post("/api/chat", GENERATE), engine.name)
            answer = await end.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.error == (None if is_sent_again else "engine_broke_off")
            assert len(engine.calls) == (3 if is_sent_again else 2)

    run(main())


def test_a_pooled_connection_that_dies_after_a_first_byte_is_not_replaced() -> None:
    async def script(call: Call) -> None:
        await call.read_body()
        if len(engine.calls) == 2:
            await call.send(b"H")
            call.writer.close()
        else:
            await call.send(ANSWER)

    engine = RawEngine(script)

    async def main() -> None:
        async with engine, joined(engine.url, links=1) as hub:
            end = await hub.spare()
            await end.ask(post("/api/chat", GENERATE), engine.name)
            answer = await end.ask(post("/api/chat", GENERATE), engine.name)
            assert answer.error == "engine_broke_off"
            assert len(engine.calls) == 2

    run(main())


# --- what is not passed on ---

REFUSED = {
    "a foreign path": get("/admin"),
    "a foreign method": get("/api/chat", "DELETE"),
    "a path that climbs": get("/v1/models/../../admin"),
    "a query": get("/api/tags?x=y"),
    "a key in the path": get("/k/hk_x/api/tags"),
    "a blob that is none": get("/api/blobs/../tags", "HEAD"),
    "no HTTP": b"EHLO node\r\n\r\n",
    "no host": b"GET /api/tags HTTP/1.1\r\n\r\n",
    "two lengths": post("/api/chat", b"{}", "Content-Length: 5"),
    "a second request": post("/api/chat") + post("/api/chat"),
    "a head without end": b"GET /api/tags HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000,
    "bytes behind the body": post("/api/chat", b"{}") + b"{}",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused_ends_and_reaches_no_engine(request_bytes: bytes) -> None:
    async def main() -> None:
        async with RawEngine() as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = await end.ask(request_bytes, engine.name)
            assert answer.error == "request_refused"
            assert not [call for call in engine.calls if call.body]
            assert (await end.ask(post("/api/chat", GENERATE), engine.name)).status == 200

    run(main())


def test_bytes_behind_a_request_end_its_exchange() -> None:
    async def main() -> None:
        async with RawEngine(endless) as engine, joined(engine.url) as hub:
            end = await hub.spare()
            answer = await streaming(end, engine)
            end.send(b"GET / HTTP/1.1\r\n")
            await until(lambda: answer.ended)
            assert answer.error == "request_refused"
            await until(lambda: engine.calls[0].body == b"gone", 1)

    run(main())
