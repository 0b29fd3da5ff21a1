"""Routes: the methods and paths that clients ask for, in which dialect, by which right, and what answers them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from hive.auth.keys import Right
from hive.dialects.tasks import Dialect, Task


class Answered(Enum):
    """What answers a route."""

    ENGINE = "engine"
    """An engine, by an exchange."""
    SURFACE = "surface"
    """The surface itself, from what the hub knows."""
    LATER = "later"
    """The route is known and not built yet: 501."""
    LINK = "link"
    """The connection becomes the link of a node."""
    UPGRADE = "upgrade"
    """The route exists only with an upgrade that the hub does not speak: 426."""


class BodyForm(Enum):
    """The form of a request's body, in which its model is named."""

    JSON = "json"
    MULTIPART = "multipart"


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method and path of a surface. Two routes are the same only when they are one object.

    `name` is its label in metrics and logs. A part of the path in braces (`{name}`) stands for any one part. A path
    that ends in `/` owns every path below it, except for methods that have a more exact route.
    """

    name: str
    method: str
    path: str
    dialect: Dialect
    answered: Answered
    right: Right = Right.INFER
    task: Task | None = None
    """What an engine is to do; None for a route that no engine answers."""
    form: BodyForm = BodyForm.JSON
    takes_head: bool = False
    """Is HEAD answered as well?"""
    takes_body: bool = False
    """Does the surface want the body before it answers?"""
    locally_open: bool = False
    """Is the route open to a local request, unless `local_access` is off?"""
    reads_name: bool = False
    """May the model stand under the key `name`?"""
    unnamed_is_unknown: bool = False
    """Without a model Ollama says 404 `model '' not found` here, elsewhere 400 `model is required`."""
    quotes_model: bool = False
    """Ollama words an unknown model in two ways: on this route in double quotes, with advice."""


Methods = Mapping[str, Route]
"""The routes of one path, by method."""
_NO_METHODS: Methods = {}


class RouteTable:
    """The routes of one surface, found by path."""

    def __init__(self, routes: Iterable[Route], aliases: Mapping[str, Route] | None = None) -> None:
        """`aliases`: further paths of some routes."""
        self.routes = tuple(routes)
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = by_path.setdefault(route.path, {})
            methods[route.method] = route
            if route.takes_head:
                methods["HEAD"] = route
        self._below = tuple((path, by_path.pop(path)) for path in list(by_path) if path.endswith("/") and path != "/")
        self.exact: dict[str, Methods] = {path: {**self._owner(path), **methods} for path, methods in by_path.items()}
        """The routes of each path that stands in the table as it is."""
        self._patterns = tuple(
            (re.compile(_pattern(path)), self.exact.pop(path)) for path in list(self.exact) if "{" in path
        )
        self.exact.update((path, {route.method: route}) for path, route in (aliases or {}).items())

    def find(self, path: str) -> Methods:
        """Return the routes of a path by method; empty when the table does not have the path."""
        found = self.exact.get(path)
        if found is not None:
            return found
        for pattern, methods in self._patterns:
            if pattern.fullmatch(path):
                return methods
        return self._owner(path)

    def _owner(self, path: str) -> Methods:
        """Return the routes that own this path, because it lies below their own path."""
        for prefix, methods in self._below:
            if path.startswith(prefix) and len(path) > len(prefix):
                return methods
        return _NO_METHODS


def _pattern(path: str) -> str:
    return "[^/]+".join(re.escape(part) for part in re.split(r"\{\w+\}", path))
