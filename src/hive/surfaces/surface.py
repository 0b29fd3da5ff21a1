"""A surface: one system's routes, its way of showing a key, its error shapes, and its answer to everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hive.auth.access import credentials
from hive.dialects.error_shapes import ERRORS, ErrorShapes
from hive.dialects.routes import Methods, RouteTable
from hive.dialects.tasks import Dialect
from hive.hub.plan import Plan
from hive.net.stream import ClientStream
from hive.wire.requests import RequestHead


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer to a path that only differs from a known one by its slashes."""

    status: int
    location: str


Find = Callable[[str], Methods]
"""Finds the routes of a path among all surfaces of the listener."""
WholeAnswer = tuple[int, bytes, bytes]
"""Status, header lines, body."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The API of one system. A listener carries one or more surfaces."""

    name: str
    routes: RouteTable
    answer: Callable[[ClientStream, Plan], None]
    """Answers a request for a route that the surface answers itself. Raises `Fault`."""
    dialect_of: Callable[[str], Dialect]
    """Returns the dialect of the errors at a path that has no route."""
    answer_unknown: Callable[[RequestHead, Methods, Find], Redirect]
    """Answers a method or a path for which there is no route. Raises `Fault`, or returns a redirect."""
    errors: Mapping[Dialect, ErrorShapes] = field(default_factory=lambda: ERRORS)
    """How a fault is worded in each dialect."""
    credentials: Callable[[RequestHead], list[bytes]] = credentials
    """Returns the keys that a request carries, in the order in which they are looked up."""
    prefix: str = ""
    """Every path below it belongs to the surface, with or without a route; "" if there is no such prefix."""
