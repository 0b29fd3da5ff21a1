"""The routes of the management surface, each with the right that it needs, and the hub's own pages."""

from __future__ import annotations

from hive.auth.keys import Right
from hive.dialects.routes import Answered, Route, RouteTable
from hive.dialects.tasks import Dialect

PREFIX = "/hive/v1"

HEALTH = Route("healthz", "GET", "/healthz", Dialect.HIVE, Answered.SURFACE, Right.NONE, takes_head=True)
READY = Route("readyz", "GET", "/readyz", Dialect.HIVE, Answered.SURFACE, Right.NONE, takes_head=True)
METRICS = Route("metrics", "GET", "/metrics", Dialect.HIVE, Answered.SURFACE, Right.ADMIN, locally_open=True)
LINK = Route("link", "GET", "/hive/link", Dialect.HIVE, Answered.LINK, Right.WORK)


def _managing(method: str, path: str, right: Right = Right.ADMIN) -> Route:
    return Route("management", method, PREFIX + path, Dialect.HIVE, Answered.SURFACE, right, takes_body=True)


MANAGEMENT_ROUTES = RouteTable(
    (
        HEALTH,
        READY,
        METRICS,
        LINK,
        _managing("GET", "/openapi.json"),
        _managing("GET", "/keys"),
        _managing("POST", "/keys"),
        _managing("DELETE", "/keys/{name}"),
        _managing("GET", "/nodes"),
        _managing("POST", "/nodes/{name}/drain"),
        _managing("POST", "/nodes/{name}/resume"),
        _managing("GET", "/models"),
        _managing("GET", "/queue"),
        _managing("GET", "/events"),
        _managing("GET", "/requests"),
        _managing("GET", "/requests/{request_id}"),
        _managing("DELETE", "/requests/{request_id}"),
        *(_managing(method, "/") for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    )
)
"""The last rows own every other path below the prefix: only administrators learn which paths do not exist."""
