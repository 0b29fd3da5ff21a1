"""The routes of an engine that a hub may use: a closed list of methods and paths. A node passes on nothing else."""

from __future__ import annotations

import re
from typing import Final

from hive.dialects.tasks import ENGINE_ROUTES
from hive.fleet.identity import PROBES
from hive.wire.requests import RequestHead

_BLOBS = "/api/blobs/"
_ONE_MODEL = "/v1/models/"
_LISTINGS = ("/", "/api/ps", "/api/tags", "/api/version", "/v1/models")
_BLOB = re.compile(r"sha256[:-][0-9a-f]{64}\Z")
_MODEL = re.compile(r"[A-Za-z0-9._~:@%+-]+(?:/[A-Za-z0-9._~:@%+-]+)*\Z")
"""The form of a model's name in a path."""

ROUTES: Final[frozenset[tuple[str, str]]] = frozenset(
    {(each.method, each.path) for each in ENGINE_ROUTES.values() if each.path != _BLOBS}
    | {("GET", path) for path in (*_LISTINGS, *PROBES)}
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
    if path.startswith(_ONE_MODEL) and method == "GET" and _is_model(path[len(_ONE_MODEL) :]):
        return None
    return f"{method} {path[:100]}: not a route that this node passes on"


def _is_model(name: str) -> bool:
    """Is the text a name, and not a path to another route?"""
    lowered = name.lower().replace("%2e", ".")
    return _MODEL.match(name) is not None and not {".", ".."} & set(re.split("/|%2f", lowered))
