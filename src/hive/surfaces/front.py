"""The front of a listener: judges every request by its head, and hands it to the part that answers its route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from hive import errors
from hive.auth.access import Door
from hive.auth.origins import Origins, cors_fields, preflight_fields
from hive.auth.principals import Principal
from hive.dialects.error_shapes import error_answer
from hive.dialects.routes import Answered, Methods
from hive.errors import Fault
from hive.hub.core import Hub
from hive.hub.exchange import Exchange
from hive.hub.plan import Plan
from hive.net.stream import ClientStream
from hive.surfaces.surface import Redirect, Surface, WholeAnswer
from hive.wire.link_accept import accept_upgrade
from hive.wire.requests import RequestHead

_log = logging.getLogger(__name__)

_NO_REFERRER = b"Referrer-Policy: no-referrer\r\n"
_ID = b"X-Hive-Request-Id: %b\r\n"


@dataclass(frozen=True, slots=True)
class _AnswerOfSurface:
    surface: Surface
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Preflight:
    fields: bytes


@dataclass(frozen=True, slots=True)
class _Redirection:
    to: Redirect
    fields: bytes


@dataclass(frozen=True, slots=True)
class _Joins:
    head: bytes
    protocol: asyncio.Protocol


class Front:
    """The handler of a listener's requests."""

    def __init__(self, hub: Hub, door: Door, origins: Origins, surfaces: Sequence[Surface]) -> None:
        """The first of `surfaces` that has a path answers it. The first surface answers a path that no surface has."""
        self._hub = hub
        self._services = hub.services
        self._door = door
        self._origins = origins
        self._surfaces = tuple(surfaces)
        self._first = self._surfaces[0]
        self._known = {path: self._find(path) for surface in self._surfaces for path in surface.routes.exact}
        """The surface and the routes of every path that stands in a table as it is, so that one look finds them."""

    def judge(self, stream: ClientStream) -> None:
        """Find the route and the principal, and set `stream.plan` if the principal may ask for it. Raises `Fault`."""
        head = stream.head
        origin = head.fields.get(b"origin")
        if origin is not None and not self._origins.allows(origin, head.fields.get(b"host", b"")):
            raise Fault(errors.ORIGIN_REFUSED, "this origin is not allowed")
        surface, methods = self._known.get(head.path) or self._find(head.path)
        if head.method == "OPTIONS" and origin is not None and b"access-control-request-method" in head.fields:
            stream.plan = _Preflight(preflight_fields(origin) + _ID % stream.request_id.encode())
            return
        route = methods.get(head.method)
        if route is None or (route.answered is Answered.UPGRADE and b"upgrade" not in head.fields):
            stream.plan = _Redirection(
                surface.answer_unknown(head, methods, self._routes), self._fields(head, stream.request_id)
            )
            return
        shown = surface.credentials(head)
        principal = self._door.admit(
            head, shown, stream.peer, route.right, self._hub.now(), locally_open=route.locally_open
        )
        answered = route.answered
        frontend = self._hub.frontend
        most, own = frontend.max_body_bytes, principal.limits.max_body_bytes
        stream.max_body_bytes = most if own is None else min(most, own)
        if answered is Answered.ENGINE:
            stream.takes_body = True
            fields = self._fields(head, stream.request_id)
            stream.plan = Plan(route, principal, frontend, surface.errors[route.dialect], fields)
        elif answered is Answered.SURFACE:
            stream.takes_body = route.takes_body
            fields = self._fields(head, stream.request_id)
            plan = Plan(route, principal, frontend, surface.errors[route.dialect], fields)
            stream.plan = _AnswerOfSurface(surface, plan)
        elif answered is Answered.LINK:
            stream.plan = self._judge_link(head, principal)
        elif answered is Answered.LATER:
            raise Fault(errors.NOT_YET, f"{head.method} {route.path} is not built yet", key=principal.name)
        else:
            text, headers = "WebSockets are not spoken here; use POST", (("Upgrade", "HTTP/1.1"),)
            raise Fault(errors.UPGRADE_REQUIRED, text, headers, key=principal.name)

    def _find(self, path: str) -> tuple[Surface, Methods]:
        for surface in self._surfaces:
            methods = surface.routes.find(path)
            if methods:
                return surface, methods
        for surface in self._surfaces:
            if surface.prefix and path.startswith(surface.prefix):
                return surface, methods
        return self._first, methods

    def _routes(self, path: str) -> Methods:
        return self._find(path)[1]

    def _judge_link(self, head: RequestHead, principal: Principal) -> _Joins:
        """Return what a node's connection becomes. Raises `Fault`."""
        assert principal.key is not None, "only a known key has the right to work"
        upgrade = accept_upgrade(head)
        return _Joins(upgrade.head, self._hub.joining.arrive(principal.key))

    def _fields(self, head: RequestHead, request_id: str) -> bytes:
        """Return the header lines that every answer carries."""
        fields = _ID % request_id.encode()
        origin = head.fields.get(b"origin")
        if origin is not None and self._origins.allows(origin, head.fields.get(b"host", b"")):
            fields += cors_fields(origin)
        return fields if head.path_key is None else fields + _NO_REFERRER

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> WholeAnswer:
        """Return status, header lines and body that tell a client of a fault, in the shapes of its surface."""
        surface, methods = self._find(head.path) if head is not None else (self._first, {})
        dialect = next((route.dialect for route in methods.values()), None)
        if dialect is None:
            dialect = surface.dialect_of(head.path if head is not None else "/")
        status, fields, body = error_answer(surface.errors[dialect], fault, request_id)
        self._hub.register.note_refusal(
            methods.get(head.method) if head is not None else None, request_id, fault, len(body)
        )
        if head is not None:
            fields += self._fields(head, request_id)
        return status, fields, body

    def begin(self, stream: ClientStream) -> None:
        """Answer a request whose body is whole."""
        plan = stream.plan
        if isinstance(plan, Plan):
            Exchange(self._services, stream, plan).start()
        elif isinstance(plan, _AnswerOfSurface):
            self._answer_of_surface(stream, plan.surface, plan.plan)
        elif isinstance(plan, _Joins):
            stream.hand_over(plan.head, plan.protocol)
        elif isinstance(plan, _Preflight):
            stream.send(204, plan.fields, b"")
        elif isinstance(plan, _Redirection):
            self._redirect(stream, plan)

    def _answer_of_surface(self, stream: ClientStream, surface: Surface, plan: Plan) -> None:
        try:
            surface.answer(stream, plan)
        except Fault as fault:
            self._answer_fault(stream, plan, fault)
        except Exception:
            _log.exception("request %s to the surface %s", stream.request_id, surface.name)
            mistake = Fault(errors.INTERNAL, f"the hub made a mistake; its log has {stream.request_id}")
            self._hub.register.note_refusal(plan.route, stream.request_id, mistake, 0)
            self._answer_fault(stream, plan, mistake)

    @staticmethod
    def _answer_fault(stream: ClientStream, plan: Plan, fault: Fault) -> None:
        if stream.has_started:
            stream.cut()
            return
        status, fields, body = error_answer(plan.errors, fault, stream.request_id)
        stream.send(status, fields + plan.fields, body)

    @staticmethod
    def _redirect(stream: ClientStream, plan: _Redirection) -> None:
        to = plan.to
        link = b'<a href="%b">%b</a>.\n\n' % (
            escape(to.location).encode("latin-1"),
            HTTPStatus(to.status).phrase.encode(),
        )
        body = link if stream.head.method in ("GET", "HEAD") else b""
        fields = b"Location: %b\r\nContent-Type: text/html; charset=utf-8\r\n" % to.location.encode("latin-1")
        stream.send(to.status, fields + plan.fields, body)
