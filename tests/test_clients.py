"""What real clients need of a hub (docs/clients.md): one test for each thing that was seen to break one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hive.auth.keys import Role
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from .raw import GENERATE, STREAM, Wire, ask, eventually, get, metric, request

CHATS = "/api/chat", "/v1/chat/completions", "/v1/messages"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def keyed(shared_engine: ThreadedEngine) -> Iterator[tuple[ThreadedHub, str]]:
    """A hub that wants a key from everyone, and a client's key."""
    with run_hub({"a": shared_engine.url}, local_access="off") as hub:
        yield hub, hub.create_key("alice", Role.CLIENT)


def test_the_front_page_needs_no_key(keyed: tuple[ThreadedHub, str]) -> None:
    """1: the Ollama command line asks it first."""
    hub, key = keyed
    assert ask(hub.port, get("/")).body == b"Ollama is running"
    for path in ("/", f"/k/{key}", f"/k/{key}/"):
        with Wire(hub.port) as wire:
            wire.send(request(path, method="HEAD"))
            assert wire.answer(is_head=True).status == 200


def test_an_empty_model_is_absent_and_name_is_read(shared_hub: ThreadedHub) -> None:
    """2: clients send both, one of them empty."""
    for body in ({"model": "", "name": "tiny"}, {"model": "tiny", "name": ""}, {"name": "tiny"}):
        assert ask(shared_hub.port, request("/api/show", body)).status == 200
    odd = GENERATE | {"options": None, "images": [], "system": "", "template": "", "suffix": "", "f16_kv": True}
    assert ask(shared_hub.port, request(body=odd)).status == 200


@pytest.mark.parametrize("query", ["", "?ts=1", "?beta=true", "?key=x&a=b"])
def test_a_key_comes_in_three_forms_whatever_the_query(keyed: tuple[ThreadedHub, str], query: str) -> None:
    """3: and any anthropic-version goes."""
    hub, key = keyed
    forms = (("", f"Authorization: Bearer {key}\r\n"), ("", f"x-api-key: {key}\r\n"), (f"/k/{key}", ""))
    for prefix, head in forms:
        for path in CHATS:
            head += "anthropic-version: 2099-01-01\r\n"
            assert ask(hub.port, request(prefix + path + query, CHAT | {"stream": False}, head=head)).status == 200


def test_an_unknown_model_is_404_at_once_in_the_form_of_the_dialect(shared_hub: ThreadedHub) -> None:
    """6: never a 200 that fails later."""
    body = {"model": "nope", "messages": [], "input": "x", "stream": True}
    ollama, openai, anthropic, responses = (
        ask(shared_hub.port, request(path, body)) for path in (*CHATS, "/v1/responses")
    )
    assert {answer.status for answer in (ollama, openai, anthropic, responses)} == {404}
    assert isinstance(ollama.json()["error"], str)
    for answer in (openai, responses):
        error = answer.json()["error"]
        assert isinstance(error, dict)
        assert {"message", "type", "param", "code"} <= error.keys()
    assert anthropic.json()["type"] == "error"


def test_the_head_is_held_until_the_first_byte(shared_engine: ThreadedEngine) -> None:
    """12: so that the status can still tell the truth."""

    def script(call: Call) -> None:
        call.begin()
        call.wait_for_departure()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, first_byte_timeout=1) as hub:
        assert ask(hub.port, request(body=STREAM)).status == 504


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        ("/api/chat", b'{"error":'),
        ("/v1/chat/completions", b'data: {"error":'),
        ("/v1/messages", b"event: error\n"),
        ("/v1/responses", b"event: response.failed\n"),
    ],
)
def test_a_stream_that_breaks_off_ends_with_the_error_of_its_dialect(path: str, mark: bytes) -> None:
    """13: so that the client can repeat it."""
    with run_in_thread(SimOptions()) as engine, run_hub({"a": engine.url}) as hub:
        engine.set_fault("drop", 3)
        answer = ask(hub.port, request(path, CHAT | {"input": "x", "stream": True}))
    assert (answer.status, answer.is_whole) == (200, True)
    assert mark in answer.body.splitlines(keepends=True)[-1] or mark in answer.body[-400:]
    assert b"[DONE]" not in answer.body
    assert b'"done":true' not in answer.body


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_goes_away_frees_its_slot_at_once(how: str) -> None:
    """14: Esc, Ctrl-C, abort."""
    with (
        run_in_thread(SimOptions(tokens_per_second=5)) as engine,
        run_hub({"a": engine.url}) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM))
        wire.until(b"\n")
        if how == "reset":
            wire.reset()
        elif how == "half-close":
            wire.half_close()
        else:
            wire.sock.close()
        eventually(lambda: metric(hub.port, "hive_node_running", hub.admin_key) == 0, 2)
        eventually(lambda: engine.state().running == 0, 2)


def test_digests_are_whole_and_each_model_is_listed_once(shared_engine: ThreadedEngine) -> None:
    """16: clients slice and compare them."""
    ask(int(shared_engine.url.rpartition(":")[2]), request(body=GENERATE))
    with run_hub({"a": shared_engine.url, "b": shared_engine.url}) as hub:
        for path in ("/api/tags", "/api/ps"):
            listed = [ask(hub.port, get(path)).json()["models"] for _ in range(2)]
            assert listed[0] == listed[1]
            assert isinstance(listed[0], list)
            names = [entry["name"] for entry in listed[0]]
            assert len(names) == len(set(names)) > 0
            assert all(len(entry["digest"]) == 64 for entry in listed[0])


@pytest.mark.parametrize("path", ["/api/chat/api/show", "/v1/moderations", "/v1/images/generations", "/v1/batches"])
def test_an_unknown_path_is_404_with_a_small_body(keyed: tuple[ThreadedHub, str], path: str) -> None:
    """17: at once, and without a word about keys' rights."""
    hub, key = keyed
    answer = ask(hub.port, request(path, {"model": "tiny"}, head=f"Authorization: Bearer {key}\r\n"))
    assert answer.status == 404
    assert len(answer.body) < 300


def test_what_agents_send_is_ordinary(shared_hub: ThreadedHub) -> None:
    """20: megabytes, deep schemas, long headers, a content type on GET."""
    schema: object = {"$schema": "x", "type": "object"}
    for _ in range(30):
        schema = {"type": "object", "properties": {"model": schema, "name": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": f"t{n}", "parameters": schema}} for n in range(25)]
    body = CHAT | {"tools": tools, "stream": False}
    body["messages"] = [{"role": "user", "content": "word " * 400_000}]
    head = f"X-Codex-Turn-Metadata: {'m' * 1024}\r\nx-mixed-CASE: 1\r\naccept: */*\r\n"
    for path in CHATS:
        assert ask(shared_hub.port, request(path, body, head=head)).status == 200
    assert ask(shared_hub.port, get("/api/tags", "Content-Type: application/json\r\n" + head)).status == 200


def test_what_an_engine_says_about_retries_comes_through() -> None:
    """21: and its request id; the stream is not compressed, though the client offers it."""

    def script(call: Call) -> None:
        assert "accept-encoding" not in call.fields
        more = "Retry-After: 7\r\nx-should-retry: false\r\nrequest-id: req_engine\r\n"
        call.answer(b'{"error":"no such option"}', status="400 Bad Request", more=more)

    with run_scripted(script) as engine, run_hub({"a": engine.url}) as hub:
        answer = ask(hub.port, request("/v1/chat/completions", CHAT, head="Accept-Encoding: gzip, zstd\r\n"))
    assert answer.status == 400
    got = [answer.header(name) for name in ("Retry-After", "x-should-retry", "request-id", "Content-Encoding")]
    assert got == ["7", "false", "req_engine", None]


def test_node_s_fetch_without_an_origin_is_no_web_page(shared_hub: ThreadedHub) -> None:
    """22: it sends sec-fetch-mode all the same."""
    head = "sec-fetch-mode: cors\r\nUser-Agent: node\r\nAccept-Language: *\r\n"
    answer = ask(shared_hub.port, request(body=GENERATE, head=head))
    assert answer.status == 200
    assert answer.header("Access-Control-Allow-Origin") is None
    assert json.loads(answer.body)["done"] is True
