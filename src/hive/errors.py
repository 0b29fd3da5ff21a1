"""Every error that a client can see: its family, status and code, and whether another node may be tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Family(StrEnum):
    """Who must act so that the error does not come again."""

    CLIENT = "client"
    NODE = "node"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table of errors. Only the sentence of an error varies."""

    code: str
    status: int
    family: Family
    another_node: bool = False
    """May the same request be tried on another node?"""
    retry: bool = True
    """May the client repeat the request? False sends `x-should-retry: false`."""


@dataclass(slots=True)
class Fault(Exception):  # noqa: N818 - the domain's word: a fault becomes an answer, not a crash
    """An error on its way to a client. `kind` is its row in the table; `message` is the sentence for the client."""

    kind: Kind
    message: str
    headers: tuple[tuple[str, str], ...] = field(default=())
    delay: float = 0.0
    """Seconds by which the answer is delayed."""
    key: str = ""
    """The name of the key that the client sent, if the hub knows the key."""

    def __str__(self) -> str:
        return f"{self.kind.code}: {self.message}"


def _client(code: str, status: int, *, retry: bool = True) -> Kind:
    return Kind(code, status, Family.CLIENT, retry=retry)


BAD_REQUEST = _client("bad_request", 400)
BAD_JSON = _client("bad_json", 400)
REPEATED_KEY = _client("repeated_key", 400)
MODEL_REQUIRED = _client("model_required", 400)
INVALID_MODEL_NAME = _client("invalid_model_name", 400)
UNAUTHENTICATED = _client("unauthenticated", 401, retry=False)
FORBIDDEN = _client("forbidden", 403, retry=False)
ORIGIN_REFUSED = _client("origin_refused", 403, retry=False)
NOT_FOUND = _client("not_found", 404)
MODEL_NOT_FOUND = _client("model_not_found", 404)
METHOD_NOT_ALLOWED = _client("method_not_allowed", 405)
REQUEST_TIMEOUT = _client("request_timeout", 408)
CONFLICT = _client("conflict", 409)
CANCELLED = _client("cancelled", 410, retry=False)
BODY_TOO_LARGE = _client("body_too_large", 413)
UNSUPPORTED_ENCODING = _client("unsupported_encoding", 415)
EXPECTATION_FAILED = _client("expectation_failed", 417)
INVALID_VALUE = _client("invalid_value", 422)
UPGRADE_REQUIRED = _client("upgrade_required", 426)
HEAD_TOO_LARGE = _client("head_too_large", 431)

INTERNAL = Kind("internal", 500, Family.HUB)
NOT_YET = Kind("not_yet", 501, Family.HUB, retry=False)
NOT_SERVED = Kind("not_served", 501, Family.HUB, retry=False)
HTTP_VERSION = _client("http_version", 505)
QUEUE_FULL = Kind("queue_full", 503, Family.HUB)
QUEUE_TIMEOUT = Kind("queue_timeout", 503, Family.HUB)
NO_NODE = Kind("no_node", 503, Family.HUB)
BODY_MEMORY_FULL = Kind("body_memory_full", 503, Family.HUB)
OVERLOADED = Kind("overloaded", 503, Family.HUB)
DRAINING = Kind("draining", 503, Family.HUB)
TOO_MANY_LINKS = Kind("too_many_links", 503, Family.HUB)

NODE_UNREACHABLE = Kind("node_unreachable", 502, Family.NODE, another_node=True)
NODE_SILENT = Kind("node_silent", 504, Family.NODE, another_node=True)
NODE_BROKE_OFF = Kind("node_broke_off", 502, Family.NODE, another_node=True)
NODE_GARBLED = Kind("node_garbled", 502, Family.NODE, another_node=True)
NODE_REFUSED_HUB = Kind("node_refused_hub", 502, Family.NODE, another_node=True)
NODE_FAILED = Kind("node_failed", 502, Family.NODE, another_node=True)
NODE_BUSY = Kind("node_busy", 503, Family.NODE, another_node=True)
