"""The management surface as a value: the health pages, the metrics, and the application behind the ASGI bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import unquote

from hive import errors
from hive.dialects.error_shapes import error_answer
from hive.dialects.routes import Methods
from hive.dialects.tasks import Dialect
from hive.errors import Fault
from hive.hub.core import Hub
from hive.hub.plan import Plan
from hive.net.asgi import Application, AsgiBridge
from hive.net.stream import ClientStream
from hive.surfaces.management.management_routes import HEALTH, MANAGEMENT_ROUTES, METRICS, READY
from hive.surfaces.surface import Find, Redirect, Surface
from hive.wire.requests import RequestHead

_log = logging.getLogger(__name__)

_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_METRICS = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"


def management_surface(
    hub: Hub, bridge: AsgiBridge, make_application: Callable[[], Application], render_metrics: Callable[[], bytes]
) -> Surface:
    """Return the management surface of a hub. The application is made, and imported, at the first request for it."""
    management = _Management(hub, bridge, make_application, render_metrics)
    return Surface(
        "management", MANAGEMENT_ROUTES, management.answer, lambda _: Dialect.HIVE, _answer_unknown, prefix="/hive/"
    )


class _Management:
    """Answers the requests for the management surface."""

    def __init__(
        self,
        hub: Hub,
        bridge: AsgiBridge,
        make_application: Callable[[], Application],
        render_metrics: Callable[[], bytes],
    ) -> None:
        self._hub = hub
        self._bridge = bridge
        self._make_application = make_application
        self._render_metrics = render_metrics
        self._application: Application | None = None

    def answer(self, stream: ClientStream, plan: Plan) -> None:
        """Answer at once, or let the application answer."""
        route = plan.route
        if route is METRICS:
            stream.send(200, _METRICS + plan.fields, self._render_metrics())
        elif route is READY and not self._hub.roster.has_looked:
            stream.send(503, _TEXT + b"Retry-After: 1\r\n" + plan.fields, b"starting\n")
        elif route is READY or route is HEALTH:
            stream.send(200, _TEXT + plan.fields, b"ok\n")
        elif MANAGEMENT_ROUTES.find(unquote(stream.head.path)).get(stream.head.method) is not route:
            # The application decodes the path: the right that was judged must be that of the route which answers.
            raise Fault(errors.NOT_FOUND, "there is nothing at this path")
        else:
            self._hub.background.spawn(self._run_application(stream, plan))

    async def _run_application(self, stream: ClientStream, plan: Plan) -> None:
        try:
            if self._application is None:
                self._application = await asyncio.to_thread(self._make_application)
            extra: dict[str, object] = {"principal": plan.principal, "request_id": stream.request_id}
            await self._bridge.run(self._application, stream, extra, plan.fields)
        except Exception:
            _log.exception("management request %s", stream.request_id)
            if stream.has_started:
                return  # the answer is cut
            fault = Fault(errors.INTERNAL, f"the hub made a mistake; its log has {stream.request_id}")
            status, fields, body = error_answer(plan.errors, fault, stream.request_id)
            self._hub.register.note_refusal(plan.route, stream.request_id, fault, len(body))
            stream.send(status, fields + plan.fields, body)


def _answer_unknown(head: RequestHead, methods: Methods, find: Find) -> Redirect:
    if methods:
        raise Fault(errors.METHOD_NOT_ALLOWED, "405 method not allowed", (("Allow", ", ".join(sorted(methods))),))
    raise Fault(errors.NOT_FOUND, "404 page not found")
