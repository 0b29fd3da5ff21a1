"""The routes of an engine that a hub may use: a closed list of methods and paths. A node passes on nothing else."""

from __future__ import annotations

import re
from typing import Final

from hive.auth.keys import Right
from hive.dialects.operations import BLOB_HEAD, MODEL, MODELS, OPERATIONS, PS, ROOT, TAGS, VERSION, Answered
from hive.fleet.identity import PROBES
from hive.wire.requests import RequestHead

_BLOBS = BLOB_HEAD.path
_BLOB = re.compile(r"sha256[:-][0-9a-f]{64}\Z")
_MODEL = re.compile(r"[A-Za-z0-9._~:@%+-]+(?:/[A-Za-z0-9._~:@%+-]+)*\Z")
"""The form of a model's name in a path."""

ROUTES: Final[frozenset[tuple[str, str]]] = frozenset(
    {(each.method, each.path) for each in OPERATIONS if each.answered is Answered.ENGINE or each.right is Right.MANAGE}
    | {("GET", each.path) for each in (ROOT, TAGS, PS, VERSION, MODELS)}
    | {("GET", path) for path in PROBES}
)
"""Inference, models, listings and probes. Also allowed are one model by name, and blobs by digest."""


def refusal(head: RequestHead) -> str | None:
    """Return why a request is not passed on; None if it may pass."""
    method, path = head.method, head.path
    if head.path_key is not None:
        return "a key in a path"
    if head.query:
        return f"{path}: a query"
    if (method, path) in ROUTES:
        return None
    if path.startswith(_BLOBS) and method in ("HEAD", "POST") and _BLOB.match(path, len(_BLOBS)):
        return None
    if path.startswith(MODEL.path) and method == "GET" and _is_model(path[len(MODEL.path) :]):
        return None
    return f"{method} {path[:100]}: not a route that this node passes on"


def _is_model(name: str) -> bool:
    """Is the text a name, and not a path to another route?"""
    lowered = name.lower().replace("%2e", ".")
    return _MODEL.match(name) is not None and not {".", ".."} & set(re.split("/|%2f", lowered))
