"""The closed list of what a hub can have an engine do."""

from __future__ import annotations

import pytest

from hive.node.allowed_routes import ROUTES, refusal
from hive.wire.requests import RequestReader

LIST = """
DELETE /api/delete
GET /
GET /api/ps
GET /api/tags
GET /api/version
GET /health
GET /props
GET /v1/models
GET /version
POST /api/chat
POST /api/copy
POST /api/create
POST /api/embed
POST /api/embeddings
POST /api/generate
POST /api/pull
POST /api/push
POST /api/show
POST /v1/audio/speech
POST /v1/audio/transcriptions
POST /v1/audio/translations
POST /v1/chat/completions
POST /v1/completions
POST /v1/embeddings
POST /v1/messages
POST /v1/messages/count_tokens
POST /v1/rerank
POST /v1/responses
"""


def test_the_list_is_this_one() -> None:
    """A new row in `dialects/tasks.py` shows here first: is every engine's owner to allow it?"""
    assert sorted(f"{method} {path}" for method, path in ROUTES) == LIST.split("\n")[1:-1]


def judged(method: str, target: str) -> str | None:
    reader = RequestReader(32768)
    reader.feed(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert reader.head is not None
    return refusal(reader.head)


DIGEST = "sha256:" + "0a" * 32
ALLOWED = [
    ("POST", "/api/chat"),
    ("HEAD", f"/api/blobs/{DIGEST}"),
    ("POST", f"/api/blobs/{DIGEST.replace(':', '-')}"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/v1/models/library/tiny:latest"),
    ("GET", "/v1/models/hf.co%2Fa%2Fb"),
]
REFUSED = [
    ("GET", "/api/chat"),
    ("POST", "/api/tags"),
    ("POST", "/api/signout"),
    ("POST", "/api/blobs/"),
    ("POST", "/api/blobs/x"),
    ("GET", f"/api/blobs/{DIGEST}"),
    ("HEAD", f"/api/blobs/{DIGEST}/../x"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/slots/0?action=erase"),
    ("GET", "/metrics"),
    ("GET", "/hive/v1/keys"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/models/.."),
    ("GET", "/v1/models/a/../../b"),
    ("GET", "/v1/models/%2e%2e/b"),
    ("GET", "/v1/models/a%2F..%2fb"),
    ("GET", "/v1/models/a//b"),
    ("GET", "/v1/models/a\\b"),
    ("GET", "/api/tags?x"),
    ("GET", "/k/hk_x/api/tags"),
    ("GET", "//api/tags"),
    ("POST", "/api/chat/"),
    ("POST", "/API/chat"),
]


@pytest.mark.parametrize(("method", "target"), ALLOWED)
def test_passed_on(method: str, target: str) -> None:
    assert judged(method, target) is None


@pytest.mark.parametrize(("method", "target"), REFUSED)
def test_refused(method: str, target: str) -> None:
    assert judged(method, target)
