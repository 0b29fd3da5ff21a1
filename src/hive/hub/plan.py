"""What is known of a request before its body is accepted: its route, its principal, its frontend."""

from __future__ import annotations

import msgspec

from hive.auth.principals import Principal
from hive.dialects.error_shapes import ErrorShapes
from hive.dialects.routes import Route
from hive.scheduling.frontends import Frontend


class Plan(msgspec.Struct, frozen=True):
    """What the hub has decided about a request from its head alone."""

    route: Route
    principal: Principal
    frontend: Frontend
    errors: ErrorShapes
    """How its client is told of a fault."""
    fields: bytes = b""
    """Header lines that every answer to the request carries."""
