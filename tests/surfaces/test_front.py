"""Who may ask for what, in which form the refusal comes, and what a path with a key in it shows: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hive.app import HubServer
from hive.auth.principals import Limits
from hive.testing import SimOptions, ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub

from ..raw import GENERATE, Answer, Wire, ask, eventually, get, request

REMOTE = "hub.example"
"""As Host: a request that is not local."""


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadedHub]:
    """A hub with a key of each sort."""
    with run_in_thread(SimOptions(slots=64)) as engine, run_hub({"a": engine.url}, slots=64) as hub:
        yield hub


@pytest.fixture(scope="module")
def keys(hub: ThreadedHub) -> dict[str, str]:
    """Secrets by sort."""
    return {
        "client": hub.create_key("alice"),
        "manager": hub.create_key("bob", manage=True),
        "worker": hub.create_key("gpu-1", "worker"),
        "admin": hub.admin_key,
    }


SAID = [{"role": "user", "content": "a"}]


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


PATHS = "/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/hive/v1/keys", "/metrics", "/api/tags"


def ask_for(hub: ThreadedHub, path: str, head: str = "", host: str = REMOTE, method: str = "") -> Answer:
    method = method or (
        "GET" if path.startswith(("/hive", "/metrics", "/api/tags", "/api/ps", "/v1/models")) else "POST"
    )
    body = {"model": "tiny", "messages": SAID, "input": "a", "max_tokens": 3} if method == "POST" else None
    return ask(hub.port, request(path, body, method=method, head=head, host=host))


def shape_of(path: str, answer: Answer) -> str:
    """Check the shape of an error in the dialect of its path; return its type, code, or "text"."""
    decoded = answer.json()
    error = decoded["error"]
    if path.startswith("/v1/messages"):
        assert decoded["type"] == "error"
        assert isinstance(error, dict)
        assert set(error) == {"type", "message"}
        return str(error["type"])
    if isinstance(error, dict):
        assert error["message"]
        return str(error.get("type") or error.get("code"))
    assert isinstance(error, str)
    return "text"


EXPECTED_401 = {
    "/api/chat": "text",
    "/v1/chat/completions": "authentication_error",
    "/v1/messages": "authentication_error",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "head", ["", bearer("never-known"), "x-api-key: never-known\r\n", "Authorization: Basic YTpi\r\n"]
)
def test_no_key_and_an_unknown_key_are_401_in_the_dialect(path: str, head: str) -> None:
    with run_hub({}, local_access="off", wait=False) as hub:
        answer = ask_for(hub, path, head)
        assert answer.status == 401
        assert (answer.header("WWW-Authenticate") or "").startswith("Bearer")
        assert answer.header("x-should-retry") == "false"
        kind = shape_of(path, answer)
        assert kind == EXPECTED_401.get(path, kind)


def test_a_key_comes_in_three_forms(hub: ThreadedHub, keys: dict[str, str]) -> None:
    key = keys["client"]
    for path, head in (
        ("/api/chat", bearer(key)),
        ("/api/chat", f"authorization: bearer {key}\r\n"),
        ("/api/chat", f"x-api-key: {key}\r\n"),
        (f"/k/{key}/api/chat", ""),
    ):
        assert ask_for(hub, path, head).status == 200


ALL_ROUTES = [
    ("GET", "/"), ("HEAD", "/"), ("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/api/ps"),
    ("GET", "/api/version"),
    ("GET", "/v1/models"), ("GET", "/v1/models/tiny"), ("POST", "/api/generate"), ("POST", "/api/chat"),
    ("POST", "/api/show"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/messages"),
    ("POST", "/v1/responses"), ("POST", "/generate"), ("POST", "/chat"), ("GET", "/healthz"), ("GET", "/readyz"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ALL_ROUTES)
def test_the_path_prefix_works_on_every_route_and_shows_nowhere(
    hub: ThreadedHub, keys: dict[str, str], method: str, path: str
) -> None:
    body = {"model": "tiny", "prompt": "a", "messages": SAID, "input": "a", "max_tokens": 3, "stream": False}
    data = request(f"/k/{keys['client']}{path}", body if method == "POST" else None, method=method, host=REMOTE)
    with Wire(hub.port) as wire:
        wire.send(data)
        answer = wire.answer(is_head=method == "HEAD")
    assert answer.status == 200
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert keys["client"] not in repr(answer)


def test_the_path_prefix_shows_in_no_error_and_no_redirect(hub: ThreadedHub, keys: dict[str, str]) -> None:
    key = keys["client"]
    for path in (
        f"/k/{key}", f"/k/{key}/", f"/k/{key}/nowhere", f"/k/{key}//api/tags", f"/k/{key}/api/tags/",
        f"//k/{key}/api/tags",
        f"/k/{key}/k/{key}/api/tags", f"/k/{key}/hive/v1/keys", f"/k/{key}/api/blobs/sha256:0", f"/k/{key}/../api/tags",
        f"/K/{key}/api/tags", f"/k/%6b/{key}", f"/k/{key}x/api/tags", f"/k//{key}/api/tags", f"/k/{key}/v1/models/nope",
    ):  # fmt: skip
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            answer = ask_for(hub, path, method=method)
            assert key not in repr(answer)
            if answer.status >= 300 and path.startswith("/k/"):
                assert answer.header("Referrer-Policy") == "no-referrer"


def test_only_a_client_key_may_stand_in_a_path(hub: ThreadedHub, keys: dict[str, str]) -> None:
    for sort in ("admin", "worker"):
        answer = ask_for(hub, f"/k/{keys[sort]}/api/tags", method="GET")
        assert answer.status == 403
        assert keys[sort] not in repr(answer)


RIGHTS = [
    ("POST", "/api/chat", {"client": 200, "manager": 200, "worker": 403, "admin": 200, "": 401}),
    ("GET", "/api/tags", {"client": 200, "manager": 200, "worker": 403, "admin": 200, "": 401}),
    ("POST", "/api/pull", {"client": 403, "manager": 501, "worker": 403, "admin": 501, "": 401}),
    ("POST", "/api/push", {"client": 403, "manager": 501, "worker": 403, "admin": 501, "": 401}),
    ("POST", "/api/create", {"client": 403, "manager": 501, "worker": 403, "admin": 501, "": 401}),
    ("POST", "/api/copy", {"client": 403, "manager": 501, "worker": 403, "admin": 501, "": 401}),
    ("DELETE", "/api/delete", {"client": 403, "manager": 501, "worker": 403, "admin": 501, "": 401}),
    ("GET", "/hive/v1/keys", {"client": 403, "manager": 403, "worker": 403, "admin": 200, "": 401}),
    ("GET", "/hive/v1/nodes", {"client": 403, "manager": 403, "worker": 403, "admin": 200, "": 401}),
    ("GET", "/metrics", {"client": 403, "manager": 403, "worker": 403, "admin": 200, "": 401}),
    ("GET", "/", {"client": 200, "": 200}),
    ("GET", "/healthz", {"": 200}),
    ("GET", "/readyz", {"": 200}),
]


@pytest.mark.parametrize(("method", "path", "expected"), RIGHTS, ids=[f"{row[0]} {row[1]}" for row in RIGHTS])
def test_rights_are_judged_before_whether_the_route_exists(
    hub: ThreadedHub, keys: dict[str, str], method: str, path: str, expected: dict[str, int]
) -> None:
    seen = {sort: ask_for(hub, path, bearer(keys[sort]) if sort else "", method=method) for sort in expected}
    assert {sort: answer.status for sort, answer in seen.items()} == expected
    for answer in seen.values():
        if answer.status in (401, 403):
            assert answer.header("x-should-retry") == "false"
        if answer.status == 501:
            assert answer.json()["error"]


@pytest.mark.parametrize(
    "head",
    [
        "Forwarded: for=1.2.3.4\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
        "Via: 1.1 proxy\r\n", "X-Forwarded-Anything: a\r\n",
    ],
)  # fmt: skip
def test_what_came_through_a_proxy_is_not_local(hub: ThreadedHub, head: str) -> None:
    assert ask_for(hub, "/api/tags", head, host="localhost").status == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:4483", 200), ("127.0.0.1", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200),
        ("hub.example", 401), ("192.168.1.2", 401), ("localhost.example", 401), ("127.0.0.1.example", 401),
        ("0x7f.1", 401),
    ],
)  # fmt: skip
def test_the_host_decides_whether_a_request_is_local(hub: ThreadedHub, host: str, status: int) -> None:
    assert ask_for(hub, "/api/tags", host=host).status == status


def test_http_1_0_is_not_local(hub: ThreadedHub) -> None:
    assert ask(hub.port, b"GET /api/tags HTTP/1.0\r\nHost: localhost\r\n\r\n").status == 401


def test_local_access_and_open_say_what_no_key_gives() -> None:
    rows = [
        ({"local_access": "off"}, "localhost", {"/api/tags": 401, "/metrics": 401}),
        ({"local_access": "infer"}, "localhost", {"/api/tags": 200, "/metrics": 200}),
        ({"open": True}, REMOTE, {"/api/tags": 200, "/metrics": 401, "/hive/v1/keys": 401}),
        ({"trusted_proxies": ("10.0.0.1",)}, "localhost", {"/api/tags": 401}),
    ]
    for settings, host, expected in rows:
        with run_hub({}, wait=False, **settings) as hub:
            assert {path: ask_for(hub, path, host=host).status for path in expected} == expected
    with run_hub({}, wait=False, local_access="manage") as hub:
        assert ask_for(hub, "/api/pull", host="localhost").status == 501


def test_locally_an_unknown_key_is_ignored_and_a_refused_one_refused(hub: ThreadedHub, keys: dict[str, str]) -> None:
    gone = hub.create_key("gone")
    hub.revoke_key("gone")
    heads = {bearer("ollama"): 200, bearer("sk-anything"): 200, bearer(gone): 401, bearer(keys["worker"]): 403}
    assert {head: ask_for(hub, "/api/tags", head, host="localhost").status for head in heads} == heads


def test_revocation_acts_within_a_second_in_every_form_and_on_open_connections(hub: ThreadedHub) -> None:
    key = hub.create_key("short-lived")
    tags = request("/api/tags", method="GET", head=bearer(key), host=REMOTE)
    with Wire(hub.port) as wire:
        wire.send(tags)
        assert wire.answer().status == 200
        answer = ask_for(hub, "/hive/v1/keys/short-lived", bearer(hub.admin_key), method="DELETE")
        assert answer.status in (200, 204)
        assert eventually(lambda: ask(hub.port, tags).status == 401, 1) < 1
        wire.send(tags)
        assert wire.answer().status == 401
    assert ask_for(hub, f"/k/{key}/api/tags", method="GET").status == 401
    assert ask_for(hub, "/api/tags", f"x-api-key: {key}\r\n").status == 401


def test_many_different_wrong_keys_are_slowed_down_and_the_same_again_is_not() -> None:
    with run_hub({}, local_access="off", wait=False) as hub:
        for _ in range(20):
            assert ask_for(hub, "/api/tags", bearer("the-same")).status == 401
        wires = [Wire(hub.port) for _ in range(12)]
        for number, wire in enumerate(wires):
            wire.sock.settimeout(0.3)
            wire.send(request("/api/tags", method="GET", head=bearer(f"guess-{number}"), host=REMOTE))
        late = 0
        for wire in wires:
            try:
                assert wire.answer().status == 401
            except TimeoutError:
                late += 1
            wire.sock.close()
        assert late >= 4


# --- CORS ---


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://127.0.0.1:1", "app://obsidian.md", "vscode-webview://a"],
)
def test_a_local_page_may_call(hub: ThreadedHub, origin: str) -> None:
    for data in (
        get("/api/tags", f"Origin: {origin}\r\n"),
        request(body=GENERATE, head=f"Origin: {origin}\r\n"),
        request("/api/chat", b"{", head=f"Origin: {origin}\r\n"),
        get("/nowhere", f"Origin: {origin}\r\n"),
    ):
        answer = ask(hub.port, data)
        assert answer.header("Access-Control-Allow-Origin") == origin
        assert "Origin" in (answer.header("Vary") or "")
        assert sum(name.lower() == "access-control-allow-origin" for name, _ in answer.lines) == 1


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil"]
)
def test_a_strange_page_may_not(hub: ThreadedHub, origin: str) -> None:
    for data in (get("/api/tags", f"Origin: {origin}\r\n"), request(body=GENERATE, head=f"Origin: {origin}\r\n")):
        answer = ask(hub.port, data)
        assert answer.status == 403
        assert answer.header("Access-Control-Allow-Origin") is None


def test_a_page_of_a_set_origin_may_call(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}, origins=("https://*.example.org",)) as hub:
        answer = ask(hub.port, get("/api/tags", "Origin: https://chat.example.org\r\n"))
        assert answer.header("Access-Control-Allow-Origin") == "https://chat.example.org"
        assert ask(hub.port, get("/api/tags", "Origin: https://example.com\r\n")).status == 403


def test_a_preflight_needs_no_key_and_allows_what_clients_send(hub: ThreadedHub) -> None:
    head = "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n"
    head += "Access-Control-Request-Headers: authorization,content-type\r\n"
    answer = ask(hub.port, request("/api/chat", method="OPTIONS", head=head, host=REMOTE))
    assert answer.status == 204
    assert answer.header("Access-Control-Allow-Origin") == "http://localhost:3000"
    assert "POST" in (answer.header("Access-Control-Allow-Methods") or "")
    allowed = (answer.header("Access-Control-Allow-Headers") or "").lower()
    assert "authorization" in allowed
    assert "content-type" in allowed


# --- what no surface owns ---


def test_what_is_unknown_is_answered_as_ollama_would(hub: ThreadedHub) -> None:
    answer = ask(hub.port, get("/nowhere"))
    assert (answer.status, answer.body) == (404, b"404 page not found")
    assert (answer.header("Content-Type") or "").startswith("text/plain")
    wrong = ask(hub.port, request("/api/tags", {}))
    assert (wrong.status, wrong.body) == (405, b"405 method not allowed")
    assert "GET" in (wrong.header("Allow") or "")


def test_from_memory(hub: ThreadedHub) -> None:
    tags = ask(hub.port, get("/api/tags")).json()["models"]
    assert isinstance(tags, list)
    assert [(model["name"], len(model["digest"])) for model in tags] == [("tiny:latest", 64)]
    assert ask(hub.port, get("/api/version")).json() == {"version": "0.33.0"}
    assert ask(hub.port, get("/v1/models/tiny")).json()["object"] == "model"
    assert ask(hub.port, get("/v1/models/nope")).status == 404
    assert ask(hub.port, get("/")).body == b"Ollama is running"


@pytest.mark.parametrize(
    "path", ["/v1/load_lora_adapter", "/api/../v1/load_lora_adapter", "/slots/0", "/sim/state", "/api/generate/../ps"]
)
def test_the_table_of_routes_is_closed(hub: ThreadedHub, path: str) -> None:
    for method in ("GET", "POST"):
        answer = ask_for(hub, path, method=method, host="localhost")
        assert answer.status in (301, 307, 404, 405)


def test_a_redirect_keeps_the_query_and_escapes_its_html(hub: ThreadedHub) -> None:
    answer = ask(hub.port, get('//v1/models/"><script>alert(1)</script>?a="<b>&c=d'))
    assert answer.status == 307
    assert answer.header("Location") == '/v1/models/"><script>alert(1)</script>?a="<b>&c=d'
    assert b"<script" not in answer.body
    assert answer.body.count(b"<") == 2
    assert b"&amp;c=d" in answer.body
    assert ask(hub.port, get("/api/tags/?a=b")).header("Location") == "/api/tags?a=b"
    assert ask(hub.port, get("/api/tags/")).header("Location") == "/api/tags"


def test_invalid_utf_8_and_odd_bytes_in_a_path_are_404(hub: ThreadedHub) -> None:
    for path in (
        b"/\xff\xfe",
        b"/%ff%fe",
        b"/api/tags%00",
        b"/api/tags;x",
        b"/v1/models/%ff",
        b"/v1/models/..%2f..%2fetc",
    ):
        assert ask(hub.port, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n").status in (400, 404)


def test_an_error_is_json_in_every_dialect_whatever_the_text(hub: ThreadedHub) -> None:
    for path in ("/api/chat", "/v1/chat/completions", "/v1/messages"):
        answer = ask(hub.port, request(path, {"model": "a\"b\\c\u2028'<script>", "messages": []}))
        assert answer.status in (400, 404)
        json.loads(answer.body)


def test_the_longest_body_depends_on_the_principal(hub: ThreadedHub) -> None:
    """The key is judged before the length of the body."""
    secret = hub.create_key("narrow")

    def narrow(server: HubServer) -> None:
        (key,) = [key for key in server.keys.listed() if key.name == "narrow"]
        server.ring.put(key, Limits(max_body_bytes=100))

    hub.call(narrow)
    body = {"model": "tiny", "prompt": "a" * 200}
    assert ask(hub.port, request(body=body, head=bearer(secret), host=REMOTE)).status == 413
    chunked = f"POST /api/generate HTTP/1.1\r\nHost: {REMOTE}\r\n{bearer(secret)}Transfer-Encoding: chunked\r\n\r\n"
    assert ask(hub.port, chunked.encode() + b"c8\r\n" + b"a" * 200 + b"\r\n0\r\n\r\n").status == 413
    assert ask(hub.port, request(body=GENERATE, head=bearer(secret), host=REMOTE)).status == 200
    assert ask(hub.port, request(body=body, head=bearer(hub.create_key("wide")), host=REMOTE)).status == 200


def test_a_request_without_a_key_learns_nothing_of_the_limits(hub: ThreadedHub) -> None:
    head = f"POST /api/generate HTTP/1.1\r\nHost: {REMOTE}\r\nContent-Length: 100000000\r\n\r\n"
    assert ask(hub.port, head.encode()).status == 401


@pytest.mark.parametrize("path", ["/hive/v1/%6eodes", "/hive/v1/nodes/a%2Fdrain", "/hive/v1/requests%2Fabc"])
def test_the_route_that_was_judged_is_the_route_that_answers(path: str, hub: ThreadedHub) -> None:
    method = "POST" if path.endswith("drain") else "GET"
    answer = ask(hub.port, request(path, method=method, head=bearer(hub.admin_key), host=REMOTE))
    assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")  # type: ignore[index]
