"""The life of a request from outside: what engines see of it, which engine serves it, when each side goes away."""

from __future__ import annotations

import gc
import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from hive.app import HubServer
from hive.config import NodeSettings, Secret
from hive.fleet.engines import Health
from hive.fleet.model_names import canonical
from hive.scheduling.failover import MAX_UNREACHED
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted
from hive.wire.link_messages import EndCode, EndError, Report

from ..joining import an_engine, joined
from ..raw import GENERATE, STREAM, Answer, Wire, ask, eventually, get, metric, request

OK = b'{"response":"whole","done":true}'
SAID = [{"role": "user", "content": "a"}]
SPIED = "/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"


def until_idle(hub: ThreadedHub, timeout: float = 1.0) -> float:
    """Wait until no exchange runs and no slot is taken; return how long it took."""

    def is_idle() -> bool:
        names = ("hive_exchanges_running", "hive_node_running", "hive_queue_waiting")
        return all(metric(hub.port, name, hub.admin_key) == 0 for name in names)

    return eventually(is_idle, timeout)


# --- bad JSON ---

BAD_JSON = {
    "nothing": (b"", 400),
    "spaces": (b"   ", 400),
    "half of it": (b'{"model":"tiny"', 400),
    "a list": (b'["model"]', 400),
    "a string": (b'"model"', 400),
    "null": (b"null", 400),
    "a number": (b"1", 400),
    "two objects": (b'{"model":"tiny"}{"model":"tiny"}', 400),
    "a trailing comma": (b'{"model":"tiny",}', 400),
    "single quotes": (b"{'model':'tiny'}", 400),
    "NaN": (b'{"model":"tiny","x":NaN}', 400),
    "NUL": (b'{"model":"tiny\0"}', 400),
    "a BOM": (b'\xef\xbb\xbf{"model":"tiny"}', 400),
    "UTF-16": ('{"model":"tiny"}'.encode("utf-16"), 400),
    "a model that is a number": (b'{"model":1}', 400),
    "a model that is an object": (b'{"model":{"a":1}}', 400),
    "a model that is a list": (b'{"model":["tiny"]}', 400),
    "a model that is true": (b'{"model":true}', 400),
    "a doubled model": (b'{"model":"tiny","model":"other"}', 400),
    "a doubled model in capitals": (b'{"model":"tiny","MODEL":"other"}', 400),
    "a doubled model, escaped": (b'{"model":"tiny","\\u006dodel":"other"}', 400),
    "a doubled stream": (b'{"model":"tiny","stream":true,"stream":false}', 400),
    "a doubled model in mixed case": (b'{"model":"tiny","moDel":"other"}', 400),
    "a doubled keep_alive by the Kelvin sign": (
        '{"model":"tiny","keep_alive":1,"\u212aeep_alive":2}'.encode(),
        400,
    ),
    "a doubled stream by the long s": ('{"model":"tiny","stream":true,"\u017ftream":false}'.encode(), 400),
    "no model": (b'{"prompt":"a"}', 400),
    "an empty model": (b'{"model":""}', 400),
    "a null model": (b'{"model":null}', 400),
    "an unknown model": (b'{"model":"nobody-has-it"}', 404),
    "a path": (b'{"model":"../../etc/passwd"}', (400, 404)),
    "an absolute path": (b'{"model":"/etc/passwd"}', (400, 404)),
    "a URL": (b'{"model":"http://evil/x"}', (400, 404)),
    "NUL in a model": (b'{"model":"tiny\\u0000"}', (400, 404)),
    "invalid UTF-8 in a model": (b'{"model":"ti\xffny"}', (400, 404)),
    "a lone surrogate in a model": (b'{"model":"ti\\ud800ny"}', (400, 404)),
    "a very long model": (json.dumps({"model": "a" * 100_000}).encode(), (400, 404)),
    "CR LF in a model": (b'{"model":"tiny\\r\\nX-A: b"}', (400, 404)),
    "nested 100,000 deep": (b'{"model":"tiny","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
}


@pytest.mark.parametrize(("body", "status"), BAD_JSON.values(), ids=BAD_JSON.keys())
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_bad_json_is_a_clear_error_and_the_connection_is_safe(
    shared_hub: ThreadedHub, path: str, body: bytes, status: int | tuple[int, int]
) -> None:
    with Wire(shared_hub.port) as wire:
        wire.send(request(path, body))
        answer = wire.answer()
        assert answer.status in (status if isinstance(status, tuple) else (status,))
        error = answer.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
        assert isinstance(message, str)
        assert message
        assert wire.is_open()


@pytest.mark.parametrize(
    "body",
    [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "a", "model": "x"}],
            "options": {"model": 1},
        },
        {"model": "TINY", "messages": []},
        {"model": "tiny:latest", "messages": []},
        {
            "model": "tiny",
            "messages": [],
            "tools": [{"function": {"parameters": {"properties": {"model": {}}}}}],
        },
    ],
)
def test_what_is_legal_passes(shared_hub: ThreadedHub, body: dict[str, object]) -> None:
    assert ask(shared_hub.port, request("/api/chat", body)).status == 200


def test_a_nested_doubled_key_is_legal(shared_hub: ThreadedHub) -> None:
    body = b'{"model":"tiny","messages":[{"role":"user","role":"user","content":"a"}],"options":{"seed":1,"seed":2}}'
    assert ask(shared_hub.port, request("/api/chat", body)).status == 200


def test_ollamas_own_words(shared_hub: ThreadedHub) -> None:
    def error(path: str, body: bytes) -> tuple[int, object]:
        answer = ask(shared_hub.port, request(path, body))
        return answer.status, answer.json()["error"]

    assert error("/api/chat", b"") == (400, "missing request body")
    assert error("/api/chat", b"{}") == (400, "model is required")
    assert error("/api/chat", b'{"model":"nope"}') == (404, "model 'nope' not found")


@pytest.mark.parametrize("path", ["/api/chat", "/api/show", "/v1/chat/completions", "/v1/messages"])
def test_a_name_that_is_too_long_is_400_and_is_kept_nowhere(shared_hub: ThreadedHub, path: str) -> None:
    ask(shared_hub.port, request(body=GENERATE))
    looked_up = canonical.cache_info().misses
    for number in range(3):
        name = f"{path.replace('/', '-')}-{number}".ljust(601, "x")
        assert ask(shared_hub.port, request(path, {"model": name, "messages": SAID})).status == 400
        assert ask(shared_hub.port, get(f"/v1/models/{name}")).status == 404
    assert canonical.cache_info().misses == looked_up


# --- encodings ---

PLAIN = json.dumps(GENERATE).encode()


def zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd)],
    ids=["gzip", "deflate", "zstd"],
)
def test_a_compressed_body_is_decoded(engine: ThreadedEngine, name: str, pack: Callable[[bytes], bytes]) -> None:
    with run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=pack(PLAIN), head=f"Content-Encoding: {name}\r\n")).status == 200
        seen = engine.state().requests[-1]
        assert seen.body_bytes == len(PLAIN)
        assert "content-encoding" not in {key.lower() for key, _ in seen.headers}


@pytest.mark.parametrize("name", ["br", "compress", "gzip, gzip", "x-nonsense", "zstd, br"])
def test_an_unknown_encoding_is_415(shared_hub: ThreadedHub, name: str) -> None:
    assert ask(shared_hub.port, request(body=PLAIN, head=f"Content-Encoding: {name}\r\n")).status == 415


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_413_and_rubbish_400(engine: ThreadedEngine, name: str) -> None:
    bomb = b" " * 100_000_000
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}[name]
    with run_hub({"a": engine.url}, max_body_bytes=1_000_000) as hub:
        head = f"Content-Encoding: {name}\r\n"
        assert ask(hub.port, request(body=pack(bomb), head=head)).status == 413
        assert ask(hub.port, request(body=b"no such thing", head=head)).status == 400
        assert ask(hub.port, request(body=pack(PLAIN)[:-6], head=head)).status == 400
        assert ask(hub.port, request(body=GENERATE)).status == 200


def held_body_bytes(hub: ThreadedHub) -> int:
    return hub.call(lambda server: server.server.held_body_bytes)


def test_a_compressed_body_counts_as_it_is_unpacked() -> None:
    may_end = threading.Event()

    def script(call: Call) -> None:
        may_end.wait(5)
        call.answer(OK)

    body = json.dumps({**GENERATE, "prompt": "x" * 60_000}).encode()
    packed = request(body=gzip.compress(body), head="Content-Encoding: gzip\r\n")
    with run_scripted(script) as engine, run_hub({"a": engine.url}, max_bodies_bytes=100_000) as hub:
        with Wire(hub.port) as first:
            first.send(packed)
            engine.call_number(0)
            assert held_body_bytes(hub) == len(body)
            answer = ask(hub.port, packed)
            assert (answer.status, answer.header("Retry-After") is not None) == (503, True)
            assert held_body_bytes(hub) == len(body)
            may_end.set()
            assert first.answer().body == OK
            assert held_body_bytes(hub) == 0
            first.send(packed)
            assert first.answer().body == OK
        assert len(engine.calls) == 2


def test_a_client_that_goes_away_while_its_body_is_unpacked_leaves_nothing_counted(engine: ThreadedEngine) -> None:
    packed = gzip.compress(json.dumps({**GENERATE, "prompt": "x" * 3_000_000}).encode())
    with run_hub({"a": engine.url}) as hub:
        for turn in range(12):
            wire = Wire(hub.port)
            wire.send(request(body=packed, head="Content-Encoding: gzip\r\n"))
            if turn % 2:
                hub.until(lambda server: bool(server.hub.register.running))
            wire.reset()
        until_idle(hub, 2)
        eventually(lambda: held_body_bytes(hub) == 0, 2)


# --- what goes up and what comes down ---

SECRETS = (
    "Authorization: Bearer {key}\r\nx-api-key: {key}\r\nCookie: session=canary-cookie\r\nOrigin: http://localhost:3000\r\n"
    "Referer: http://localhost/canary\r\nAccept-Encoding: gzip, br\r\nForwarded: for=10.0.0.1\r\nVia: 1.1 canary\r\n"
    "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: canary\r\nX-Real-IP: 10.0.0.1\r\n"
    "Node: canary\r\nX-Hive-Node: canary\r\nTE: trailers\r\nTrailer: X-A\r\nKeep-Alive: 5\r\nConnection: X-Canary\r\n"
    "X-Canary: canary\r\nProxy-Authorization: canary\r\nProxy-Connection: keep-alive\r\nUser-Agent: test/1\r\n"
    "anthropic-version: 2023-06-01\r\n"
)
ALLOWED_UP = {"host", "content-type", "content-length", "user-agent", "anthropic-version", "accept"}


@pytest.mark.parametrize("path", SPIED)
def test_of_the_head_nothing_goes_up_that_is_not_for_the_engine(engine: ThreadedEngine, path: str) -> None:
    with run_hub({"a": engine.url}) as hub:
        key = hub.create_key("alice")
        body = {"model": "tiny", "stream": False, "prompt": "a", "input": "a", "max_tokens": 5}
        body["messages"] = [{"role": "user", "content": "a"}]
        url = f"/k/{key}{path}?secret={key}"
        answer = ask(hub.port, request(url, body, head=SECRETS.format(key=key), host="hub.example"))
        assert answer.status == 200
        seen = next(seen for seen in engine.state().requests if seen.path == path)
        headers = {name.lower(): value for name, value in seen.headers}
        assert set(headers) <= ALLOWED_UP
        assert headers["host"] == f"127.0.0.1:{engine.port}"
        assert (headers["user-agent"], headers["anthropic-version"]) == ("test/1", "2023-06-01")
        assert seen.query == ""
        assert "canary" not in repr(seen)
        assert key not in repr(seen)


def test_the_engine_gets_its_own_credential() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine:
        node = NodeSettings(name="a", url=engine.url, api_key=Secret("engine-credential"))
        with run_hub({"a": node}) as hub:
            key = hub.create_key("alice")
            assert ask(hub.port, request(body=GENERATE, head=f"Authorization: Bearer {key}\r\n")).status == 200
        assert engine.calls[0].fields["authorization"] == "Bearer engine-credential"
        assert all(b"authorization: Bearer engine-credential".lower() in head.lower() for head in engine.probe_heads)


def test_a_key_in_a_trailer_is_no_key_and_goes_nowhere() -> None:
    with run_scripted(lambda call: call.answer(OK)) as engine, run_hub({"a": engine.url}) as hub:
        key = hub.create_key("alice")
        data = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\nX-T: canary\r\n\r\n" % (
            len(PLAIN),
            PLAIN,
            key.encode(),
        )
        head = "POST /api/generate HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert ask(hub.port, head.format("hub.example").encode() + data).status == 401
        assert ask(hub.port, head.format("localhost").encode() + data).status == 200
        assert b"canary" not in engine.calls[0].head + engine.calls[0].body
        assert b"Content-Length: 53" in engine.calls[0].head


def test_of_the_engines_head_nothing_comes_down_that_is_its_own() -> None:
    fields = (
        "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: A\r\nSet-Cookie: canary\r\nVary: Origin\r\n"
        "X-Hive-Node: canary\r\nX-Hive-Request-Id: canary\r\nX-Hive-What: canary\r\nKeep-Alive: 5\r\n"
        "Server: an-engine\r\nX-Fine: fine\r\n"
        "Proxy-Authenticate: canary\r\nUpgrade: canary\r\n"
    )
    with run_scripted(lambda call: call.answer(OK, more=fields)) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE, head="Origin: http://localhost:3000\r\n"))
        names = [name.lower() for name, _ in answer.lines]
        assert answer.body == OK
        assert len(names) == len(set(names))
        assert "set-cookie" not in names
        assert "access-control-expose-headers" not in names
        assert (answer.header("Access-Control-Allow-Origin"), answer.header("X-Fine")) == (
            "http://localhost:3000",
            "fine",
        )
        assert answer.header("X-Hive-Node") == "a"
        assert "canary" not in repr(answer.lines)


def test_what_the_engines_connection_field_names_stays_there() -> None:
    fields = "Connection: keep-alive, X-Named\r\nX-Named: canary\r\n"
    with run_scripted(lambda call: call.answer(OK, more=fields)) as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=GENERATE)).header("X-Named") is None


def test_the_body_goes_up_and_comes_down_byte_for_byte() -> None:
    body = b'{ "model" : "tiny",\t"prompt":"\\u00e9 \xc3\xa9 \\ud83d\\ude00","stream":false , "x":1.0e+2,\n"y":[ ] }\n'
    answer = b'{"response":"\\u00e9 \xc3\xa9" , "done":true,"total_duration":1e3}  \n'
    with run_scripted(lambda call: call.answer(answer)) as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=body)).body == answer
        assert engine.calls[0].body == body


# --- departures ---


@pytest.fixture
def slow() -> Iterator[ThreadedEngine]:
    """An engine that needs long for each token."""
    with run_in_thread(SimOptions(slots=1, tokens_per_second=20, default_tokens=400)) as engine:
        yield engine


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot_and_the_engine_stops(
    slow: ThreadedEngine, how: str, stream: bool
) -> None:
    with run_hub({"a": slow.url}, slots=1) as hub:
        wire = Wire(hub.port)
        wire.send(request(body=STREAM if stream else GENERATE))
        slow.until(lambda state: state.running == 1)
        if stream:
            wire.until(b'"done":false')
        {"close": wire.sock.close, "reset": wire.reset, "half-close": wire.half_close}[how]()
        slow.until(lambda state: state.running == 0 and state.cancelled == 1)
        until_idle(hub)
        wire.sock.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(slow: ThreadedEngine, how: str) -> None:
    def waiting() -> float:
        return metric(hub.port, "hive_queue_waiting", hub.admin_key)

    with run_hub({"a": slow.url}, slots=1) as hub, Wire(hub.port) as first:
        first.send(request(body=STREAM))
        slow.until(lambda state: state.running == 1)
        second = Wire(hub.port)
        second.send(request(body=STREAM))
        eventually(lambda: waiting() == 1)
        {"close": second.sock.close, "reset": second.reset, "half-close": second.half_close}[how]()
        eventually(lambda: waiting() == 0, 1)
        second.sock.close()
        assert slow.state().received["/api/generate"] == 1


def test_clients_that_go_away_in_the_moment_of_their_lease_lose_no_slot() -> None:
    """Many rounds: the first answer ends and frees the slot just when the waiting client departs."""
    may_end = threading.Semaphore(0)

    def script(call: Call) -> None:
        may_end.acquire(timeout=5)
        call.answer(OK)

    with run_scripted(script) as engine, run_hub({"a": engine.url}, slots=1, probe_interval=60) as hub:
        for turn in range(40):
            before = len(engine.calls)
            with Wire(hub.port) as first:
                first.send(request(body=GENERATE))
                engine.call_number(before)
                second = Wire(hub.port)
                second.send(request(body=GENERATE))
                hub.until(lambda server: server.hub.queue.waiting_count == 1)
                if turn % 3 == 0:
                    may_end.release()
                    second.reset()
                elif turn % 3 == 1:
                    second.reset()
                    may_end.release()
                else:
                    may_end.release()
                    first.answer()
                    second.sock.close()
                may_end.release(2)
                eventually(lambda: hub.call(lambda server: len(server.hub.register.running)) == 0, 2)
                while may_end.acquire(blocking=False):
                    pass
        until_idle(hub)
        may_end.release()
        assert ask(hub.port, request(body=GENERATE)).body == OK


def test_a_departure_at_any_moment_loses_no_slot() -> None:
    with (
        run_in_thread(SimOptions(slots=2, ttft=0.002, tokens_per_second=2_000)) as engine,
        run_hub({"a": engine.url}, slots=2) as hub,
    ):
        for turn in range(60):
            wire = Wire(hub.port)
            wire.send(request(body=STREAM if turn % 2 else GENERATE))
            time.sleep(turn * 0.0004)
            (wire.reset if turn % 3 else wire.sock.close)()
        until_idle(hub, 2)
        assert [ask(hub.port, request(body=GENERATE)).status for _ in range(4)] == [200] * 4
        eventually(lambda: engine.state().running == 0, 1)


# --- attempts ---


def test_a_refused_connection_is_no_attempt_and_another_node_serves(engine: ThreadedEngine) -> None:
    with (
        run_in_thread(SimOptions(slots=8)) as gone,
        run_hub({"gone": gone.url, "a": engine.url}, probe_interval=60, policy="round_robin") as hub,
    ):
        gone.set_fault("refuse")
        for _ in range(6):
            answer = ask(hub.port, request(body=GENERATE))
            assert answer.status == 200
        received = [each.state().received.get("/api/generate", 0) for each in (engine, gone)]
        assert sum(received) == 6
        assert received[0] >= 1


def seems_up(hub: ThreadedHub, node: str) -> None:
    """Find an engine well, as a prober does that still has a connection to it."""

    def find(server: HubServer) -> None:
        [engine] = [engine for engine in server.hub.fleet.engines if engine.node == node]
        server.hub.health.note_answer(engine)

    hub.call(find)


def test_an_engine_that_seems_up_and_refuses_connections_is_given_up_after_a_few() -> None:
    with (
        run_scripted(lambda call: call.answer(OK)) as engine,
        run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub,
        Wire(hub.port) as wire,
    ):
        engine.close()
        wire.send(request(body=GENERATE))
        for _ in range(MAX_UNREACHED - 1):
            hub.until(lambda server: server.hub.queue.waiting_count == 1)
            seems_up(hub, "a")
        answer = wire.answer()
        assert (answer.status, answer.header("X-Hive-Node")) == (502, "a")
        assert answer.json()["error"] == "node 'a' seems to be up and cannot be reached"
        assert metric(hub.port, "hive_attempts_total", hub.admin_key) == 0


UNREACHABLE = EndError(EndCode.ENGINE_UNREACHABLE, "connection refused")


def is_down(hub: ThreadedHub, node: str) -> bool:
    return hub.call(lambda server: {one.node: one.health for one in server.hub.fleet.engines})[node] is Health.DOWN


def test_an_engine_that_its_node_reports_up_and_cannot_reach_is_given_up_after_a_few() -> None:
    counted = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(OK), OK)
    with run_hub({}, link="dialed") as hub, joined(hub) as node:
        data = node.data()
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            for _ in range(MAX_UNREACHED):
                data.answer(data.request()[0], b"", UNREACHABLE)
                eventually(lambda: is_down(hub, "desk"))
                node.control.say(Report((an_engine(),)))
            answer = wire.answer()
            assert (answer.status, answer.header("X-Hive-Node")) == (502, "desk")
            assert answer.json()["error"] == "node 'desk' seems to be up and cannot be reached"
            wire.send(request(body=GENERATE))  # another request tries it again
            data.answer(data.request()[0], counted)
            assert wire.answer().body == OK


def test_an_engine_that_was_given_up_is_tried_again_while_there_is_no_other_one(
    engine: ThreadedEngine,
) -> None:
    with (
        run_hub({}, link="dialed") as hub,
        joined(hub) as node,
        run_agent(hub.url, hub.create_key("other", "worker"), {"engine": engine.url}),
    ):
        hub.until(lambda server: len(server.hub.fleet.engines) == 2)
        hub.call(lambda server: server.hub.node_cases.drain("other", True))
        data = node.data()
        with Wire(hub.port) as wire:
            wire.send(request(body=GENERATE))
            for _ in range(MAX_UNREACHED):
                data.answer(data.request()[0], b"", UNREACHABLE)
                eventually(lambda: is_down(hub, "desk"))
                node.control.say(Report((an_engine(),)))
            data.answer(data.request()[0], b"", UNREACHABLE)
            eventually(lambda: is_down(hub, "desk"))
            assert hub.call(lambda server: server.hub.queue.waiting_count) == 1
            hub.call(lambda server: server.hub.node_cases.drain("other", False))
            assert wire.answer().header("X-Hive-Node") == "other"


def test_busy_goes_back_to_the_queue_and_is_no_attempt(engine: ThreadedEngine) -> None:
    engine.set_fault("busy", count=1, path="/api/generate")
    with run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert answer.status == 200
        assert metric(hub.port, "hive_attempts_total", hub.admin_key) == 1
        assert engine.state().received["/api/generate"] == 2


def test_busy_on_one_node_is_served_by_the_other_at_once(engine: ThreadedEngine, second_engine: ThreadedEngine) -> None:
    for each in (engine, second_engine):
        assert ask(each.port, request(body=GENERATE)).status == 200  # so that both have it in memory
    with run_hub({"a": engine.url, "b": second_engine.url}) as hub:
        engine.set_fault("busy")
        began = time.monotonic()
        for _ in range(6):
            answer = ask(hub.port, request(body=GENERATE))
            assert (answer.status, answer.header("X-Hive-Node")) == (200, "b")
        assert time.monotonic() - began < 5


def test_an_engines_own_client_error_passes_as_it_is() -> None:
    body = b'{"error":"invalid option: temprature"}'
    with (
        run_scripted(lambda call: call.answer(body, status="400 Bad Request")) as engine,
        run_hub({"a": engine.url, "b": engine.url}) as hub,
    ):
        answer = ask(hub.port, request(body=GENERATE))
        assert (answer.status, answer.body) == (400, body)
        assert len(engine.calls) == 1


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "407 Proxy Authentication Required"])
def test_an_engines_words_about_our_credentials_never_reach_a_client(status: str) -> None:
    def script(call: Call) -> None:
        call.answer(b'{"error":"canary: bad engine-credential"}', status=status, more="WWW-Authenticate: Bearer\r\n")

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert answer.status == 502
        assert b"canary" not in answer.body
        assert answer.header("WWW-Authenticate") is None


LARGE_REFUSALS = {
    "401": ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n"),
    "302": ("302 Found", "Location: http://canary.example/\r\n"),
    "503": ("503 Service Unavailable", "X-A: canary\r\n"),
}


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize(("status", "fields"), LARGE_REFUSALS.values(), ids=LARGE_REFUSALS.keys())
def test_a_refusal_too_large_to_be_held_never_reaches_a_client(status: str, fields: str, is_chunked: bool) -> None:
    """A long refusal is held, as any other. Beyond the bound it is not sent to the client."""
    body = b"canary" + b" " * 2_000_000
    may_refuse = threading.Event()
    may_refuse.set()

    def refuses(call: Call) -> None:
        may_refuse.wait(5)
        if is_chunked:
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
            call.send(head.encode())
            call.chunk(body)
            call.chunk(b"")
        else:
            call.answer(body, status=status, more=fields)

    with run_scripted(refuses) as bad, run_scripted(lambda call: call.answer(OK)) as good:
        with run_hub({"bad": bad.url}) as hub:
            answer = ask(hub.port, request(body=GENERATE))
            assert (answer.status, len(bad.calls)) == (502, 1)
            assert b"canary" not in answer.body + repr(answer.lines).encode()
        with run_hub({"bad": bad.url, "good": good.url}) as hub, Wire(hub.port) as wire:
            may_refuse.clear()
            hub.call(lambda server: server.hub.node_cases.drain("good", True))
            wire.send(request(body=GENERATE))
            bad.call_number(1)
            hub.call(lambda server: server.hub.node_cases.drain("good", False))
            may_refuse.set()
            answer = wire.answer()
            assert (answer.status, answer.header("X-Hive-Node")) == (200, "good")


def test_the_time_on_a_node_that_fails_is_no_time_in_the_queue() -> None:
    """Both nodes play one script: the first request keeps its slot, the second fails slowly and then waits for that."""
    calls: list[Call] = []
    may_end = threading.Event()

    def script(call: Call) -> None:
        calls.append(call)
        if len(calls) == 2:
            call.send(b"HTTP/1.1 200 OK\r\n")
            time.sleep(0.5)  # longer than anybody may wait
            call.reset()
            return
        may_end.wait(5)
        call.answer(OK)

    with (
        run_scripted(script) as a,
        run_scripted(script) as b,
        run_hub({"a": a.url, "b": b.url}, slots=1, queue_timeout=0.3) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
    ):
        first.send(request(body=GENERATE))
        eventually(lambda: len(calls) == 1)
        second.send(request(body=GENERATE))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        hub.call(lambda server: server.hub.queue.tick())
        may_end.set()
        assert [wire.answer().status for wire in (first, second)] == [200, 200]


def test_at_most_two_other_nodes_are_tried() -> None:
    def fails(call: Call) -> None:
        call.answer(b'{"error":"llama runner process has terminated"}', status="500 Internal Server Error")

    with run_scripted(fails) as engine:
        with run_hub(dict.fromkeys("abcdef", engine.url)) as hub:
            answer = ask(hub.port, request(body=GENERATE))
            assert answer.status >= 500
        assert len(engine.calls) == 3


def attempts(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.header("X-Hive-Attempts")


@pytest.fixture
def no_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every connection that dies as one that was alive: its engine may have died of the request."""
    monkeypatch.setattr("hive.net.engine_connection.STALE_AFTER", -1.0)


def breaks_off(call: Call) -> None:
    call.reset()


@pytest.mark.usefixtures("no_stale")
def test_a_connection_that_breaks_before_the_first_byte_is_tried_again_when_no_other_engine_is_up() -> None:
    with (
        run_scripted(breaks_off, breaks_off, lambda call: call.answer(OK)) as engine,
        run_hub({"a": engine.url}, link="dialed") as hub,
    ):
        answer = ask(hub.port, request(body=GENERATE))
        assert (attempts(answer), answer.body) == ((200, "3"), OK)
        assert len(engine.calls) == 3


@pytest.mark.usefixtures("no_stale")
def test_after_three_attempts_the_client_hears_why() -> None:
    with run_scripted(breaks_off) as engine, run_hub({"a": engine.url}, link="dialed") as hub:
        answer = ask(hub.port, request(body=GENERATE))
        assert attempts(answer) == (502, "3")
        assert str(answer.json()["error"]).startswith("node 'a': the engine broke the connection off")
        assert len(engine.calls) == 3
        assert hub.call(lambda server: server.hub.fleet.engines[0].health) is Health.READY


@pytest.mark.usefixtures("no_stale")
def test_when_another_engine_is_up_the_request_moves_there(engine: ThreadedEngine) -> None:
    assert ask(engine.port, request(body=GENERATE)).status == 200  # so that it has the model in memory
    with run_scripted(breaks_off) as bad, run_hub({"bad": bad.url, "a": engine.url}, link="dialed") as hub:
        hub.until(lambda server: all(each.known.loaded for each in server.hub.fleet.engines))
        seen = []
        while not bad.calls:
            answer = ask(hub.port, request(body=GENERATE))
            seen.append((attempts(answer), answer.header("X-Hive-Node")))
        assert seen[-1] == ((200, "2"), "a")
        assert set(seen[:-1]) <= {((200, "1"), "a")}
        assert len(bad.calls) == 1


@pytest.mark.usefixtures("no_stale")
def test_other_failures_are_not_tried_again_on_the_same_engine() -> None:
    """Nonsense stays nonsense."""
    with (
        run_scripted(lambda call: call.send(b"nonsense\r\n\r\n")) as engine,
        run_hub({"a": engine.url}, link="dialed") as hub,
    ):
        assert attempts(ask(hub.port, request(body=GENERATE))) == (502, "1")
        assert len(engine.calls) == 1


@pytest.mark.usefixtures("no_stale")
def test_nothing_is_tried_again_of_which_the_client_has_had_a_byte(engine: ThreadedEngine) -> None:
    line = b'{"response":"a","done":false}\n'

    def script(call: Call) -> None:
        call.begin()
        call.chunk(line)
        call.reset()

    with run_scripted(script) as bad, run_hub({"a": bad.url}, link="dialed") as hub:
        answer = ask(hub.port, request(body=STREAM))
        assert (attempts(answer), answer.is_whole) == ((200, "1"), True)
        assert answer.body.startswith(line + b'{"error":"node \'a\': ')
        assert len(bad.calls) == 1


@pytest.mark.usefixtures("no_stale")
@pytest.mark.parametrize("link", ["dialed", "joined"])
@pytest.mark.parametrize("body", [GENERATE, STREAM], ids=["whole", "stream"])
def test_the_only_engine_dies_before_the_first_byte_and_comes_back(link: str, body: dict[str, object]) -> None:
    """Its client waits, and has one whole answer."""
    with ExitStack() as first, ExitStack() as stack:
        dying = first.enter_context(run_in_thread(SimOptions(ttft=60)))
        hub = stack.enter_context(run_hub({"a": dying.url}, link=link, probe_interval=0.2))
        wire = stack.enter_context(Wire(hub.port))
        wire.send(request(body=body))
        dying.until(lambda state: state.running == 1)
        first.close()
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        stack.enter_context(run_in_thread(port=dying.port))
        answer = wire.answer()
        assert (attempts(answer), answer.is_whole) == ((200, "2"), True)
        assert answer.ndjson()[-1]["done"] is True


# --- whose fault it was ---


def blame(hub: ThreadedHub, node: str) -> tuple[int, bool]:
    """Return how often in a row an engine failed by its own fault, and whether it rests."""

    def look(server: HubServer) -> tuple[int, bool]:
        (engine,) = [each for each in server.hub.fleet.engines if each.node == node]
        return engine.signs.blames, engine.running.rests_until > server.hub.now()

    return hub.call(look)


DIED = b'{"error":"llama runner process has terminated: exit status 2"}'


def dies(call: Call) -> None:
    call.answer(DIED, status="500 Internal Server Error")


def test_an_engine_alone_is_not_blamed_but_asked_again() -> None:
    with run_scripted(dies) as engine, run_hub({"a": engine.url}) as hub:
        for _ in range(3):
            answer = ask(hub.port, request(body=GENERATE))
            assert (attempts(answer), answer.body) == ((500, "1"), DIED)
        assert blame(hub, "a") == (0, False)


def test_an_engine_that_fails_where_there_is_another_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.scheduling.failover.BLAMED_REST", 60.0)
    monkeypatch.setattr("hive.scheduling.failover.LONGEST_REST", 600.0)
    with (
        run_scripted(dies) as bad,
        run_scripted(lambda call: call.answer(OK)) as good,
        run_hub({"bad": bad.url, "good": good.url}) as hub,
    ):
        while not bad.calls:
            assert ask(hub.port, request(body=GENERATE)).body == OK
        assert blame(hub, "bad") == (1, True)
        for _ in range(8):
            answer = ask(hub.port, request(body=GENERATE))
            assert (attempts(answer), answer.header("X-Hive-Node")) == ((200, "1"), "good")
        assert len(bad.calls) == 1


def test_of_engines_that_all_fail_one_is_left_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hive.scheduling.failover.BLAMED_REST", 60.0)
    monkeypatch.setattr("hive.scheduling.failover.LONGEST_REST", 600.0)
    with run_scripted(dies) as a, run_scripted(dies) as b, run_hub({"a": a.url, "b": b.url}, queue_timeout=0.5) as hub:
        first = ask(hub.port, request(body=GENERATE))
        assert (attempts(first), first.body) == ((500, "2"), DIED)
        assert sorted([blame(hub, "a"), blame(hub, "b")]) == [(0, False), (1, True)]


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
def test_a_bad_option_blames_no_engine(status: str) -> None:
    """It would be refused everywhere: trying on would sicken the whole fleet."""
    words = rb'{"error":"option \"temperature\" must be of type float32"}'
    with (
        run_scripted(lambda call: call.answer(words, status=status)) as a,
        run_scripted(lambda call: call.answer(words, status=status)) as b,
        run_hub({"a": a.url, "b": b.url}) as hub,
    ):
        for _ in range(20):
            answer = ask(hub.port, request(body=GENERATE | {"options": {"temperature": "x"}}))
            assert (answer.status, answer.body) == (int(status[:3]), words)
            assert answer.header("X-Hive-Attempts") == "1"
        assert len(a.calls) + len(b.calls) == 20
        assert (blame(hub, "a"), blame(hub, "b")) == ((0, False), (0, False))
        assert hub.call(lambda server: {each.health for each in server.hub.fleet.engines}) == {Health.READY}


# --- how many engines were tried ---


def test_every_answer_of_an_engine_tells_how_many_were_tried(
    engine: ThreadedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hive.scheduling.slots.BUSY_REST", 0.05)
    monkeypatch.setattr("hive.hub.ticker.TICK", 0.05)
    with run_hub({"a": engine.url}) as hub:
        for body in (GENERATE, STREAM, GENERATE | {"options": {"temperature": "x"}}):
            assert ask(hub.port, request(body=body)).header("X-Hive-Attempts") == "1"
        engine.set_fault("busy", count=2, path="/api/generate")
        assert attempts(ask(hub.port, request(body=GENERATE))) == (200, "1"), "busy is no attempt"


def test_429_is_not_passed_on_raw() -> None:
    calls: list[Call] = []

    def script(call: Call) -> None:
        calls.append(call)
        if call.number == 0:
            call.answer(b'{"error":"canary"}', status="429 Too Many Requests")
        else:
            call.answer(OK)

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        assert ask(hub.port, request(body=GENERATE)).body == OK


def test_multipart_finds_its_model() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(range(256))
        + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
    )  # fmt: skip
    head = "Content-Type: multipart/form-data; boundary=b\r\n"
    with (
        run_scripted(lambda call: call.answer(b'{"text":"hi"}')) as engine,
        run_hub({"a": engine.url}) as hub,
    ):
        answer = ask(hub.port, request("/v1/audio/transcriptions", form, head=head))
        assert (answer.status, answer.body) == (200, b'{"text":"hi"}')
        assert engine.calls[0].body == form
        assert "boundary=b" in engine.calls[0].fields["content-type"]
        assert ask(hub.port, request("/v1/audio/transcriptions", b"nonsense", head=head)).status == 400


def test_show_passes_a_busy_node(slow: ThreadedEngine) -> None:
    with run_hub({"a": slow.url}, slots=1) as hub, Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        slow.until(lambda state: state.running == 1)
        answer = ask(hub.port, request("/api/show", {"model": "tiny"}))
        assert answer.status == 200
        assert ask(hub.port, request("/api/show", {"name": "tiny"})).status == 200


def test_every_answer_names_its_node_and_request(shared_hub: ThreadedHub) -> None:
    answers: list[Answer] = [
        ask(shared_hub.port, data)
        for data in (
            request(body=GENERATE),
            request(body=STREAM),
            get("/api/tags"),
            get("/nope"),
            request(body=b"{"),
        )
    ]
    ids = [answer.header("X-Hive-Request-Id") for answer in answers]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert [answer.header("X-Hive-Node") for answer in answers[:2]] == ["a", "a"]


def test_an_exchange_leaves_no_cycles_for_the_collector(engine: ThreadedEngine) -> None:
    """The collector is told to look away (`hive.app`): a cycle for each exchange cost a fifth of the CPU time."""
    ours = {"Exchange", "Relay", "Runner", "Promise", "ClientStream", "RequestHead", "ResponseHead", "Ticket", "Lease"}
    unknown = {"model": "nope"}
    requests = [request(body=body) for body in (GENERATE, STREAM, unknown)]
    with run_hub({"a": engine.url}) as hub, Wire(hub.port) as wire:
        for data in requests:
            wire.send(data)
            wire.answer()
        gc.collect()
        gc.disable()
        try:
            for data in requests * 5:
                wire.send(data)
                wire.answer()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(thing).__name__ for thing in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert [name for name in left if name in ours] == []
