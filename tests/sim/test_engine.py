"""The engine over its socket: loads, queue, streams, departures, and its state."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

import pytest

from hive.testing import OptionError, SimKind, SimOptions, SimulatedEngine, ToolCall, run_in_thread

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


def test_the_lists_show_what_is_loaded(client_of: type) -> None:
    with run_in_thread(SimOptions(models=("tiny", "other"))) as engine:
        client = client_of(engine)
        assert [model["name"] for model in client.ask("/api/tags").json()["models"]] == [
            "tiny:latest",
            "other:latest",
        ]
        assert client.ask("/api/ps").json() == {"models": []}
        assert client.ask("/api/generate", {"model": "other"}).json()["done_reason"] == "load"
        loaded = client.ask("/api/ps").json()["models"]
        tags = {model["name"]: model["digest"] for model in client.ask("/api/tags").json()["models"]}
        assert [(model["name"], model["digest"]) for model in loaded] == [("other:latest", tags["other:latest"])]
        assert client.ask("/api/generate", {"model": "other", "keep_alive": 0}).json()["done_reason"] == "unload"
        assert client.ask("/api/ps").json() == {"models": []}
        assert engine.state().loads == 1


def test_keep_alive_runs_out(client_of: type) -> None:
    with run_in_thread() as engine:
        client_of(engine).ask("/api/generate", ASK | {"keep_alive": "20ms"})
        assert engine.until(lambda state: state.unloads == 1).loaded == []


def test_a_pulled_model_appears_and_a_deleted_one_goes(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask("/api/pull", {"name": "new"}).lines()[-1] == {"status": "success"}
        assert client.ask("/api/chat", CHAT | {"model": "new", "stream": False}).status == 200
        assert client.ask("/api/delete", {"model": "new"}, "DELETE").status == 200
        assert client.ask("/api/chat", CHAT | {"model": "new"}).json() == {"error": "model 'new' not found"}
        assert "error" in client.ask("/api/pull", {"name": "missing-one"}).lines()[-1]


def test_requests_beyond_the_slots_wait_and_beyond_the_queue_get_busy(client_of: type, read_until: Callable) -> None:
    with run_in_thread(SimOptions(slots=1, max_queue=1)) as engine:
        client = client_of(engine)
        engine.set_fault("freeze-stream", 1)
        with client.raw("/api/generate", ASK) as first, client.raw("/api/generate", ASK) as second:
            read_until(first, b'"done":false')
            engine.until(lambda state: (state.running, state.waiting) == (1, 1))
            busy = client.ask("/api/generate", ASK)
            engine.clear_faults()
            read_until(first, b'"done":true')
            read_until(second, b'"done":true')
    assert busy.status == 503
    assert busy.json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}


@pytest.mark.parametrize("leave", [socket.socket.close, lambda link: link.shutdown(socket.SHUT_WR)])
def test_a_client_that_leaves_stops_the_generation(client_of: type, read_until: Callable, leave: Callable) -> None:
    with run_in_thread(SimOptions(tokens_per_second=200)) as engine:
        client = client_of(engine)
        with client.raw("/api/generate", ASK | {"options": {"num_predict": 100_000}}) as link:
            read_until(link, b'"done":false')
            assert engine.state().running == 1
            leave(link)
            state = engine.until(lambda state: state.cancelled == 1)
        assert (state.running, state.finished, state.requests[-1].outcome) == (0, 0, "cancelled")
        assert state.tokens < 10_000


def test_a_client_that_leaves_while_it_waits_leaves_the_queue(client_of: type, read_until: Callable) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        engine.set_fault("freeze-stream", 1, count=1)
        with client.raw("/api/generate", ASK) as first:
            read_until(first, b'"done":false')
            with client.raw("/api/generate", ASK):
                engine.until(lambda state: state.waiting == 1)
            engine.until(lambda state: state.waiting == 0 and state.cancelled == 1)
            engine.clear_faults()
            read_until(first, b'"done":true')


def test_a_client_that_leaves_during_a_load_aborts_it(client_of: type) -> None:
    with run_in_thread(SimOptions(load_time=3600)) as engine:
        with client_of(engine).raw("/api/generate", ASK):
            engine.until(lambda state: state.waiting == 1)
        assert engine.until(lambda state: state.loads_aborted == 1).loads == 0


def test_nothing_is_sent_before_the_first_token(client_of: type, read_until: Callable) -> None:
    with run_in_thread(SimOptions(ttft=3600)) as engine, client_of(engine).raw("/api/generate", ASK) as link:
        engine.until(lambda state: state.running == 1)
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            link.recv(1)


def test_requests_follow_one_another_on_a_connection(client_of: type, read_until: Callable) -> None:
    with run_in_thread() as engine:
        with client_of(engine).raw("/api/generate", ASK | {"options": {"num_predict": 1}}) as link:
            read_until(link, b"\r\n0\r\n\r\n")
            link.sendall(b"GET /api/version HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b'"version":"0.33.0"' in (rest := read_until(link, b"Ollama is running"))
            assert b"Connection: close" in rest
            assert link.recv(1) == b""
        assert engine.state().connections_total == 1


def test_a_chunked_body_may_come_after_100_continue(read_until: Callable) -> None:
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(b"POST /api/show HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_until(link, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(b'10\r\n{"model":"tiny"}\r\n0\r\n\r\n')
        assert b"200 OK" in read_until(link, b"capabilities")


def test_a_client_of_http_1_0_reads_until_the_end(read_all: Callable) -> None:
    body = json.dumps(ASK).encode()
    with run_in_thread() as engine, socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
        link.sendall(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        head, _, rest = read_all(link).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert json.loads(rest.splitlines()[-1])["done"] is True


def test_an_answer_over_two_kilobytes_is_chunked_as_in_go(client_of: type) -> None:
    with run_in_thread(SimOptions(models=tuple(f"m{n}" for n in range(9)))) as engine:
        assert client_of(engine).ask("/api/tags").header("transfer-encoding") == "chunked"
        assert client_of(engine).ask("/api/version").header("content-length") == "20"


def test_a_blob_is_known_after_its_upload_and_then_answered_before_its_body(
    client_of: type, read_all: Callable
) -> None:
    path = "/api/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask(path, method="HEAD").status == 404
        assert client.ask(path, b"hullo").status == 400
        assert client.ask(path, b"hello").status == 201
        assert client.ask(path, method="HEAD").status == 200
        with socket.create_connection(("127.0.0.1", engine.port), timeout=20) as link:
            link.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: 5\r\n\r\n".encode())
            assert read_all(link).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_with_tools_gets_the_scripted_tool_call(client_of: type) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with run_in_thread(SimOptions(tool_call=ToolCall("f", {"x": 1}))) as engine:
        client = client_of(engine)
        message = client.ask("/api/chat", CHAT | {"tools": tools, "stream": False}).json()["message"]
        assert message["tool_calls"][0]["function"] == {"index": 0, "name": "f", "arguments": {"x": 1}}
        assert "tool_calls" not in client.ask("/api/chat", CHAT | {"stream": False}).json()["message"]


def test_the_state_shows_requests_without_their_content(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        client.ask("/api/chat?x=1", CHAT | {"options": {"num_predict": 1}}, X_Test="yes")
        (seen,) = engine.state().requests
        over_http = json.loads(client_of(engine).ask("/sim/state").body)
    assert (seen.method, seen.path, seen.query, seen.status, seen.outcome) == (
        "POST",
        "/api/chat",
        "x=1",
        200,
        "finished",
    )
    assert seen.body == {"model": "tiny", "options": {"num_predict": 1}}
    assert ("X-Test", "yes") in seen.headers
    assert len(seen.body_sha256) == 64
    assert over_http["received"] == {"/api/chat": 1}
    assert over_http["requests"][0]["body_bytes"] == seen.body_bytes


def test_a_strange_host_or_origin_is_refused_and_a_local_page_may_read(client_of: type) -> None:
    with run_in_thread() as engine:
        client = client_of(engine)
        assert client.ask("/api/version", Host="evil.example").status == 403
        assert client.ask("/api/version", Origin="http://evil.example").status == 403
        local = client.ask("/api/version", Origin="http://localhost:3000")
        assert local.header("access-control-allow-origin") == "http://localhost:3000"


PROBES = ("/api/version", "/api/tags", "/version", "/props", "/slots", "/health", "/v1/models")


@pytest.mark.parametrize(
    ("kind", "answered", "owner"),
    [
        ("ollama", {"/api/version", "/api/tags", "/v1/models"}, "library"),
        ("llama.cpp", {"/props", "/slots", "/health", "/v1/models"}, "llamacpp"),
        ("vllm", {"/version", "/health", "/v1/models"}, "vllm"),
        ("openai", {"/v1/models"}, "simulated"),
    ],
)
def test_each_kind_answers_its_own_probes(client_of: type, kind: str, answered: set[str], owner: str) -> None:
    with run_in_thread(SimOptions(kind=SimKind(kind), slots=3)) as engine:
        client = client_of(engine)
        assert {path for path in PROBES if client.ask(path).status == 200} == answered
        assert client.ask("/v1/models").json()["data"][0]["owned_by"] == owner
        assert client.ask("/v1/chat/completions", CHAT | {"stream": True}).body.endswith(b"data: [DONE]\n\n")
        if kind == "llama.cpp":
            assert client.ask("/props").json()["total_slots"] == 3
            assert client.ask("/v1/chat/completions", CHAT | {"model": "x"}).json()["model"] == "tiny"
        else:
            assert client.ask("/v1/chat/completions", CHAT | {"model": "x"}).status == 404


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


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"ttft": -1.0}, {"models": ()}, {"models": ("no name",)}])
def test_the_error_for_a_wrong_option_names_it(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        SimOptions(**wrong)  # type: ignore[arg-type]


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
