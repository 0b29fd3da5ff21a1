"""What the management API lists of engines that say odd things of their models."""

from __future__ import annotations

import pytest

from hive.testing.hub import run_hub
from hive.testing.scripted import run_scripted

from ..raw import ask, get

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
            shown = ask(hub.port, get("/hive/v1/models", f"Authorization: Bearer {hub.admin_key}\r\n"))
    assert shown.status == 200
    models = {model["name"]: model["details"] for model in shown.json()["models"]}  # type: ignore[index,union-attr]
    assert models == {"odd:latest": {}, "fine:latest": {"family": "llama"}}
