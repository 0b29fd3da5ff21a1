"""What the management API lists of engines that say odd things of their models."""

from __future__ import annotations

import msgspec
import pytest

from hive.testing import SimOptions, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import ScriptedEngine, run_scripted

from ...raw import Answer, ask, eventually, get


@pytest.fixture(autouse=True)
def dialed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a dialed engine is asked by the hub itself."""
    monkeypatch.setattr("hive.testing.hub.usual_link", "dialed")


def listing(hub: ThreadedHub) -> Answer:
    return ask(hub.port, get("/hive/v1/models", f"Authorization: Bearer {hub.admin_key}\r\n"))


ODD_DETAILS = {
    "null": b"null",
    "a list": b"[]",
    "a text": b'"gguf"',
    "bytes that are no UTF-8": b'{"family":"\xff"}',
    "a number beyond all": b'{"size":1e999}',
    "nothing": b"{}",
}


@pytest.mark.parametrize("details", ODD_DETAILS.values(), ids=ODD_DETAILS.keys())
def test_odd_details_of_one_model_do_not_break_the_list(details: bytes) -> None:
    listed = b'{"models":[{"name":"odd","details":%b},{"name":"fine","details":{"family":"llama"}}]}' % details
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(listed)
    with run_scripted(lambda call: call.answer(b"{}")) as engine:
        answer = engine.probe_answer
        engine.probe_answer = lambda path: head + listed if path == "/api/tags" else answer(path)  # type: ignore[method-assign]
        with run_hub({"a": engine.url}) as hub:
            shown = listing(hub)
    assert shown.status == 200
    models = {model["name"]: model["details"] for model in shown.json()["models"]}  # type: ignore[index,union-attr]
    assert models == {"odd:latest": {}, "fine:latest": {"family": "llama"}}


def lists(engine: ScriptedEngine, version: str, digest: str, modified_at: str) -> None:
    """Have an Ollama of a version list `tiny` as it has it."""
    entry = {"name": "tiny:latest", "digest": digest, "size": len(version), "modified_at": modified_at}
    answers = {"/api/version": {"version": version}, "/api/tags": {"models": [entry]}, "/api/ps": {"models": []}}

    def answer(path: str) -> bytes:
        body = msgspec.json.encode(answers[path])
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    engine.probe_answer = answer  # type: ignore[method-assign]


def test_the_version_that_is_shown_is_that_of_the_lists_of_clients_and_others_are_named() -> None:
    old, new = "0" * 64, "1" * 64
    with (
        run_scripted(lambda call: call.answer(b"{}")) as first,
        run_scripted(lambda call: call.answer(b"{}")) as second,
        run_scripted(lambda call: call.answer(b"{}")) as third,
        run_in_thread(SimOptions(kind="vllm", models=("tiny",))) as vllm,
    ):
        lists(first, "0.9.0", old, "2026-03-01T00:00:00Z")
        lists(second, "0.20.0", new, "2026-01-01T00:00:00Z")
        lists(third, "0.20.0", old, "2026-02-01T00:00:00Z")
        nodes = {"a": first.url, "b": second.url, "c": third.url, "d": vllm.url}
        with run_hub(nodes) as hub:
            eventually(lambda: [each["nodes"] for each in listing(hub).json()["models"]] == [list("abcd")])
            (shown,) = listing(hub).json()["models"]
            (listed,) = ask(hub.port, get("/api/tags")).json()["models"]
            assert (shown["digest"], shown["size"]) == (listed["digest"], listed["size"]) == (new, 6)
            assert shown["versions"] == [{"digest": old, "nodes": ["a", "c"]}, {"digest": new, "nodes": ["b"]}]
            second.close()
            eventually(lambda: listing(hub).json()["models"][0]["down_on"] == ["b"])
            (shown,) = listing(hub).json()["models"]
            (listed,) = ask(hub.port, get("/api/tags")).json()["models"]
            assert shown["digest"] == listed["digest"] == old
            assert [each["nodes"] for each in shown["versions"]] == [["a", "c"], ["b"]]
