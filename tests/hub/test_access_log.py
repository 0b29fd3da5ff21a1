"""One line an exchange, with what an operator needs and nothing that was said."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from hive.config import LogFormat
from hive.testing import ThreadedEngine
from hive.testing.hub import run_hub
from hive.testing.scripted import Call, run_scripted

from ..process import serving
from ..raw import GENERATE, STREAM, Wire, ask, eventually, get, request

PROMPT = "canary-prompt-text"
ANSWER = "canary-answer-text"


def exchanges(text: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == "exchange"]


def test_each_exchange_has_one_line(engine: ThreadedEngine, capfd: pytest.CaptureFixture[str]) -> None:
    with run_hub({"a": engine.url}, log_format=LogFormat.JSON) as hub:
        key = hub.create_key("alice")
        answers = [
            ask(hub.port, request(body=GENERATE, head=f"Authorization: Bearer {key}\r\n")),
            ask(hub.port, request(body=STREAM)),
            ask(hub.port, request(body={"model": "nope"})),
            ask(hub.port, request("/v1/chat/completions", b"{")),
        ]
    lines = exchanges(capfd.readouterr().err)
    assert [line["request_id"] for line in lines] == [answer.header("X-Hive-Request-Id") for answer in answers]
    first, second, third, fourth = lines
    assert (first["key"], first["model"], first["node"], first["attempts"]) == ("alice", "tiny:latest", "a", 1)
    assert (first["operation"], first["outcome"], first["status"]) == ("generate", "ok", 200)
    assert first["bytes_out"] == len(answers[0].body)
    assert second["bytes_out"] == len(answers[1].body)
    for name in ("queued_ms", "first_byte_ms", "total_ms"):
        assert isinstance(first[name], int | float)
    assert (third["status"], third["outcome"], third["error"]) == (404, "client_error", "model_not_found")
    assert (fourth["operation"], fourth["status"]) == ("v1_chat", 400)


def test_a_refusal_has_the_name_of_a_key_that_the_hub_knows(
    engine: ThreadedEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [("client", "POST", "/api/pull", 403), ("admin", "POST", "/api/pull", 501)]
    asked += [("client", "GET", "/v1/responses", 426), ("client", "GET", "/hive/v1/nodes", 403)]
    with run_hub({"a": engine.url}, log_format=LogFormat.JSON) as hub:
        keys = {"client": hub.create_key("alice"), "admin": hub.create_key("root", "admin")}
        for sort, method, path, status in asked:
            head = f"Authorization: Bearer {keys[sort]}\r\nUpgrade: websocket\r\n"
            body = {"model": "x"} if method == "POST" else None
            assert ask(hub.port, request(path, body, method=method, head=head)).status == status
    lines = exchanges(capfd.readouterr().err)
    assert [(line["status"], line["key"]) for line in lines] == [
        (status, "alice" if sort == "client" else "root") for sort, _, _, status in asked
    ]


def test_a_departure_and_a_broken_stream_have_their_line(capfd: pytest.CaptureFixture[str]) -> None:
    def script(call: Call) -> None:
        call.begin()
        call.chunk(b'{"response":"a","done":false}\n')
        if call.number == 0:
            call.wait_for_departure()
        else:
            time.sleep(0.02)
            call.close()

    with run_scripted(script) as engine, run_hub({"a": engine.url}, log_format=LogFormat.JSON) as hub:
        with Wire(hub.port) as wire:
            wire.send(request(body=STREAM))
            wire.until(b'"done":false}\n\r\n')
        eventually(lambda: hub.call(lambda server: len(server.hub.register.running)) == 0)
        ask(hub.port, request(body=STREAM))
    gone, broken = exchanges(capfd.readouterr().err)
    assert gone["outcome"] == "client_gone"
    assert (broken["outcome"], broken["error"]) == ("node_error", "node_broke_off")


@pytest.mark.parametrize("where", ["in the queue", "before its first byte", "in its stream"])
def test_what_the_end_of_the_hub_ends_is_the_hubs_own_doing(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    def script(call: Call) -> None:
        if where == "in its stream":
            call.begin()
            call.chunk(b'{"response":"a","done":false}\n')
        call.wait_for_departure()

    with (
        run_scripted(script) as engine,
        run_hub({"a": engine.url}, slots=1, log_format=LogFormat.JSON) as hub,
        Wire(hub.port) as first,
        Wire(hub.port) as second,
    ):
        first.send(request(body=STREAM))
        engine.call_number(0)
        if where == "in its stream":
            first.until(b'"done":false}\n\r\n')
        second.send(request(body=STREAM))
        hub.until(lambda server: server.hub.queue.waiting_count == 1)
        hub.stop()
    lines = {line["attempts"]: line for line in exchanges(capfd.readouterr().err)}
    line = lines[0 if where == "in the queue" else 1]
    assert (line["outcome"], line["error"]) == ("hub_error", "draining")


def test_a_line_in_text_is_one_line(engine: ThreadedEngine, capfd: pytest.CaptureFixture[str]) -> None:
    with run_hub({"a": engine.url}, log_format=LogFormat.TEXT) as hub:
        answer = ask(hub.port, request(body={**GENERATE, "model": "tiny\n\x1b[31mred"}))
        ask(hub.port, request(body=GENERATE))
    lines = capfd.readouterr().err.splitlines()
    assert answer.status in (400, 404)
    assert len(lines) == 2
    assert "\x1b" not in "".join(lines)
    assert re.search(r"  generate +tiny:latest on a \(only [a-z ]+\)  \d+ ms ", lines[1]), lines[1]
    assert "()" not in lines[0]


def test_no_text_and_no_secret_in_any_output_whatever_goes_wrong(tmp_path: Path) -> None:
    scripts: list[str] = []

    def script(call: Call) -> None:
        kind = scripts[-1]
        said = json.dumps({"response": ANSWER, "message": {"content": ANSWER}, "done": kind == "fine"}).encode()
        if kind == "fine":
            call.answer(said)
        elif kind == "error":
            call.answer(json.dumps({"error": f"cannot parse {ANSWER}"}).encode(), status="500 Internal Server Error")
        elif kind == "credentials":
            call.answer(ANSWER.encode(), status="401 Unauthorized")
        elif kind == "garbage":
            call.send(ANSWER.encode() + b"\r\n\r\n")
            call.close()
        elif kind == "bad line":
            call.begin()
            call.chunk(said + b"\n")
            call.chunk(f"{ANSWER}\n".encode())
            call.chunk(b"")
        else:
            call.begin()
            call.chunk(said + b"\n")
            call.reset()

    with (
        run_scripted(script) as engine,
        serving(tmp_path, "--node", f"a={engine.url}", "--log-level", "debug") as hub,
    ):
        port = hub.port
        admin = "Authorization: Bearer canary-admin-key\r\nContent-Type: application/json\r\n"
        keys = {"in-path": "", "in-field": ""}
        for name in keys:
            created = ask(port, request("/hive/v1/keys", {"name": name, "role": "client"}, head=admin))
            assert created.status == 201
            keys[name] = str(created.json()["key"])
        eventually(lambda: ask(port, get("/readyz")).status == 200)
        body = {"model": "tiny", "prompt": PROMPT, "messages": [{"role": "user", "content": PROMPT}]}
        for kind in ("fine", "error", "credentials", "garbage", "bad line", "reset"):
            scripts.append(kind)
            for path in ("/api/generate", "/v1/chat/completions", "/v1/messages"):
                ask(port, request(f"/k/{keys['in-path']}{path}", body))
                ask(port, request(path, body, head=f"x-api-key: {keys['in-field']}\r\nCookie: canary-cookie\r\n"))
        for data in (
            get(f"/k/{keys['in-path']}/nowhere?{PROMPT}={PROMPT}"),
            get(f"/k/{keys['in-path']}/api//tags"),
            get(f"/k/{keys['in-path']}"),
            get("/k/canary-wrong-key/api/tags"),
            get(f"//k/{keys['in-path']}/api/tags"),
            get(f"/nowhere/{PROMPT}"),
            request(body=json.dumps(body).encode()[:-1]),
            request(body=b'{"model":"' + PROMPT.encode() + b'"}'),
            request(body=b'{"model":"tiny","prompt":"' + PROMPT.encode() + b"\xff\0"),
            request(f"/k/{keys['in-path']}/hive/v1/keys", {"name": PROMPT}, head=admin),
            request("/hive/v1/keys", b'{"name":"canary-name', head=admin),
            b"GET /k/%b/ HTTP/1.1\r\nbroken\r\n\r\n" % keys["in-path"].encode(),
            get("/", f"Authorization: Bearer {keys['in-field']}\r\nAuthorization: canary\r\n"),
            get("/hive/v1/keys", admin),
            get("/metrics", admin),
        ):
            answer = ask(port, data)
            shown = repr(answer.lines).encode() + answer.body
            for secret in (*keys.values(), "canary-wrong-key", "canary-admin-key"):
                assert secret.encode() not in shown
    seen = hub.said()
    assert seen.count('"event":"exchange"') >= 36
    for secret in (PROMPT, ANSWER, "canary", *keys.values()):
        assert secret not in seen
