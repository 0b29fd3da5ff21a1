"""The routes about requests: which keys they need, what they take and refuse, that no word of a prompt comes out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from hive.testing import SimOptions, run_in_thread
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub

from ...raw import GENERATE, Answer, ask, request

PROMPT = "canary-prompt-text"
ROUTES = [
    ("GET", "/hive/v1/queue"),
    ("GET", "/hive/v1/requests"),
    ("GET", "/hive/v1/requests/req_1"),
    ("DELETE", "/hive/v1/requests/req_1"),
]


@pytest.fixture(scope="module")
def hub() -> Iterator[ThreadedHub]:
    """A hub that has served four requests: alice's chat, a generate, an unknown model, and a body that is no JSON."""
    options = SimOptions(models=("tiny", "other"), slots=8)
    with run_in_thread(options) as engine, run_hub({"a": engine.url}, slots=8) as hub:
        alice = hub.create_key("alice")
        hub.create_key("gone")
        hub.revoke_key("gone")
        said = {"model": "other", "stream": False, "messages": [{"role": "user", "content": PROMPT}]}
        ask(hub.port, request("/api/chat", said, head=f"Authorization: Bearer {alice}\r\nX-Canary: {PROMPT}\r\n"))
        ask(hub.port, request(body={**GENERATE, "prompt": PROMPT}))
        ask(hub.port, request(body={"model": PROMPT}))
        ask(hub.port, request(body=b'{"model":"tiny","prompt":"' + PROMPT.encode()))
        yield hub


def call(hub: ThreadedHub, path: str, method: str = "GET", key: str = "") -> Answer:
    head = f"Authorization: Bearer {key or hub.admin_key}\r\n"
    return ask(hub.port, request(path, method=method, head=head))


def operations(hub: ThreadedHub, query: str) -> list[str]:
    """Return the operations of the requests that a listing has, with their models."""
    answer = call(hub, f"/hive/v1/requests?{query}")
    assert answer.status == 200, answer.body
    listed = answer.json()
    return [f"{each['operation']} {each['model']}".strip() for each in [*listed["running"], *listed["ended"]]]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_an_admin_key_opens(hub: ThreadedHub, method: str, path: str) -> None:
    refused = ask(hub.port, request(path, method=method))
    assert (refused.status, refused.json()["error"]["code"]) == (401, "unauthenticated")
    for name, role in (("bob", "client"), ("gpu", "worker")):
        key = hub.create_key(f"{name}-{method}-{path.count('/')}-{len(path)}", role)
        refused = call(hub, path, method, key)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden")
    in_path = ask(hub.port, request(f"/k/{hub.admin_key}{path}", method=method))
    assert in_path.status == 403


EVERYTHING = ["generate", "generate", "generate tiny:latest", "chat other:latest"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", EVERYTHING),
        ("state=all", EVERYTHING),
        ("state=ended", EVERYTHING),
        ("state=running", []),
        ("state=queued", []),
        ("limit=2", EVERYTHING[:2]),
        ("limit=1000", EVERYTHING),
        ("model=other", ["chat other:latest"]),
        ("model=Registry.Ollama.ai/library/OTHER:latest", ["chat other:latest"]),
        ("model=", ["generate", "generate"]),
        ("node=a", ["generate tiny:latest", "chat other:latest"]),
        ("node=", ["generate", "generate"]),
        ("key=alice", ["chat other:latest"]),
        ("key=admin", []),
        ("key=gone", []),
        ("key=", ["generate", "generate", "generate tiny:latest"]),
        ("key=alice&model=tiny", []),
        ("key=alice&model=other&node=a&state=ended&limit=1", ["chat other:latest"]),
    ],
)
def test_a_listing_is_filtered(hub: ThreadedHub, query: str, found: list[str]) -> None:
    assert operations(hub, query) == found


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("limit=", "limit"),
        ("state=runing", "state"),
        ("state=", "state"),
        (f"model={'x' * 601}", "model"),
    ],
)
def test_a_filter_that_does_not_fit_is_named(hub: ThreadedHub, query: str, name: str) -> None:
    answer = call(hub, f"/hive/v1/requests?{query}")
    assert (answer.status, answer.json()["error"]["code"]) == (422, "invalid_value")
    assert answer.json()["error"]["message"].startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("node=dsek", "there is no node 'dsek'"),
        ("node=A", "there is no node 'A'"),
        ("key=alcie", "there is no key 'alcie'"),
        ("model=tiny-babbel", "there is no model 'tiny-babbel'"),
        ("state=running&key=alice&node=dsek", "there is no node 'dsek'"),
    ],
)
def test_a_name_that_the_hub_does_not_know_is_no_empty_list(hub: ThreadedHub, query: str, message: str) -> None:
    answer = call(hub, f"/hive/v1/requests?{query}")
    assert answer.status == 404
    assert answer.json()["error"] == {"code": "not_found", "message": message}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("request_id", ["req_nobody", "x" * 2000, "%0d%0aX-A:%20b", "..", "req_%ff"])
def test_an_unknown_request_is_a_sentence(hub: ThreadedHub, method: str, request_id: str) -> None:
    answer = call(hub, f"/hive/v1/requests/{request_id}", method)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.header("X-A") is None


def test_the_sentence_says_how_long_requests_are_known(hub: ThreadedHub) -> None:
    message = call(hub, "/hive/v1/requests/req_nobody").json()["error"]["message"]
    kept = "kept are requests to engines, the last 1,000 since the hub started"
    assert message == f"there is no request 'req_nobody': {kept}"


def test_what_has_ended_cannot_be_cancelled(hub: ThreadedHub) -> None:
    (ended, *_) = call(hub, "/hive/v1/requests").json()["ended"]
    refused = call(hub, f"/hive/v1/requests/{ended['request_id']}", "DELETE")
    assert (refused.status, refused.json()["error"]["code"]) == (409, "conflict")
    assert refused.json()["error"]["message"] == f"request '{ended['request_id']}' has ended already"


def test_other_methods_are_told_which_there_are(hub: ThreadedHub) -> None:
    assert call(hub, "/hive/v1/requests/req_1", "PUT").header("Allow") == "DELETE, GET"
    assert call(hub, "/hive/v1/queue", "DELETE").header("Allow") == "GET"


def test_no_word_of_a_prompt_and_no_key_comes_out(hub: ThreadedHub) -> None:
    listed = call(hub, "/hive/v1/requests")
    shown = [listed, call(hub, "/hive/v1/queue")]
    shown += [call(hub, f"/hive/v1/requests/{each['request_id']}") for each in listed.json()["ended"]]
    assert [answer.status for answer in shown] == [200] * 6
    for answer in shown:
        assert b"canary" not in answer.body
        assert hub.admin_key.encode() not in answer.body
        assert b"hk_" not in answer.body


def test_what_is_gone_is_known_as_long_as_the_history_has_it() -> None:
    with run_in_thread(SimOptions(slots=8)) as engine, run_hub({}) as hub:
        key = hub.create_key("far", "worker")
        with run_agent(hub.url, key, {"ollama": engine.url}):
            hub.until(lambda server: bool(server.hub.fleet.engines) and server.hub.fleet.engines[0].takes_work)
            ask(hub.port, request(body=GENERATE))
        hub.revoke_key("far")
        hub.until(lambda server: not server.hub.fleet.engines)
        for query in ("node=far", "model=tiny"):
            assert operations(hub, query) == ["generate tiny:latest"]
        hub.call(lambda server: server.hub.register.history.clear())
        for query in ("node=far", "model=tiny"):
            assert call(hub, f"/hive/v1/requests?{query}").status == 404


def test_no_model_is_missed_before_every_node_was_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with run_hub({"a": url}, link="dialed", wait=False, probe_timeout=30.0) as hub:
            assert operations(hub, "model=not-listed-yet") == []
