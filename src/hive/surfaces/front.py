"""The front of the hub: judges every request by its head, and hands it to whoever answers it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from urllib.parse import unquote

import msgspec

from hive import OLLAMA_API_VERSION, errors
from hive.auth.access import Door
from hive.auth.origins import Origins, cors_fields, preflight_fields
from hive.dialects import operations
from hive.dialects.operations import Answered, Operation, methods_of
from hive.errors import Fault
from hive.fleet.model_names import MAX_NAME, with_tag
from hive.hub.core import Hub
from hive.hub.exchange import Exchange, Plan
from hive.net.asgi import Application, AsgiBridge
from hive.net.stream import ClientStream
from hive.wire.link_accept import accept_upgrade
from hive.wire.requests import RequestHead

_log = logging.getLogger(__name__)

_JSON = b"Content-Type: application/json; charset=utf-8\r\n"
_V1_JSON = b"Content-Type: application/json\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_NO_REFERRER = b"Referrer-Policy: no-referrer\r\n"


@dataclass(frozen=True, slots=True)
class _Redirect:
    status: int
    location: str
    fields: bytes


@dataclass(frozen=True, slots=True)
class _Preflight:
    fields: bytes


@dataclass(frozen=True, slots=True)
class _Joins:
    head: bytes
    protocol: asyncio.Protocol


class Front:
    """The server's handler."""

    def __init__(
        self,
        hub: Hub,
        door: Door,
        origins: Origins,
        make_application: Callable[[], Application],
        metrics: Callable[[], bytes],
    ) -> None:
        self._hub = hub
        self._door = door
        self._origins = origins
        self._make_application = make_application
        self._metrics = metrics
        self._application: Application | None = None
        self._bridge = AsgiBridge()

    # --- at the end of the head ---

    def judge(self, stream: ClientStream) -> None:
        """Find the operation and see whether this client may ask for it. Raises `Fault`."""
        head = stream.head
        origin = head.fields.get(b"origin")
        if origin is not None and not self._origins.allows(origin, head.fields.get(b"host", b"")):
            raise Fault(errors.ORIGIN_REFUSED, "this origin is not allowed")
        methods = methods_of(head.path)
        if head.method == "OPTIONS" and origin is not None and b"access-control-request-method" in head.fields:
            stream.plan = _Preflight(preflight_fields(origin) + self._request_id(stream.request_id))
            return
        operation = methods.get(head.method)
        if operation is None or (operation.answered is Answered.UPGRADE and b"upgrade" not in head.fields):
            stream.plan = self._without_operation(head, methods, stream.request_id)
            return
        key_name = self._door.admit(
            head, stream.peer, operation.right, self._hub.now(), locally_open=operation.locally_open
        )
        if operation.answered is Answered.LATER:
            raise Fault(errors.NOT_YET, f"{head.method} {operation.path} is not built yet")
        if operation.answered is Answered.LINK:
            stream.plan = self._judge_link(head)
            return
        if operation.answered is Answered.UPGRADE:
            raise Fault(errors.UPGRADE_REQUIRED, "WebSockets are not spoken here; use POST", (("Upgrade", "HTTP/1.1"),))
        stream.takes_body = operation.answered in (Answered.ENGINE, Answered.APPLICATION)
        stream.plan = Plan(operation, key_name, self._fields(head, stream.request_id))

    def _judge_link(self, head: RequestHead) -> _Joins:
        """Return what a node's connection becomes. Raises `Fault`."""
        key = self._door.key_of(head)
        assert key is not None, "only a known key has the right to work"
        upgrade = accept_upgrade(head)
        return _Joins(upgrade.head, self._hub.joining.arrive(key))

    def _without_operation(self, head: RequestHead, methods: dict[str, Operation], request_id: str) -> _Redirect:
        """Return where a path that only differs by slashes leads. Raises `Fault`: 404 or 405, as Ollama's router."""
        if methods:
            allow = ", ".join(sorted(m for m, found in methods.items() if found.answered is not Answered.UPGRADE))
            raise Fault(errors.METHOD_NOT_ALLOWED, "405 method not allowed", (("Allow", allow),))
        clean = "/" + "/".join(part for part in head.path.split("/") if part)
        if clean != head.path and head.method in methods_of(clean) and head.path_key is None:
            status = 301 if head.method == "GET" and head.path == clean + "/" else 307
            target = clean + ("?" + head.query if head.query else "")
            return _Redirect(status, target, self._fields(head, request_id))
        raise Fault(errors.NOT_FOUND, "404 page not found")

    @staticmethod
    def _request_id(request_id: str) -> bytes:
        return b"X-Hive-Request-Id: %b\r\n" % request_id.encode()

    def _fields(self, head: RequestHead, request_id: str) -> bytes:
        """Return the header lines that every answer carries."""
        fields = self._request_id(request_id)
        origin = head.fields.get(b"origin")
        if origin is not None and self._origins.allows(origin, head.fields.get(b"host", b"")):
            fields += cors_fields(origin)
        return fields if head.path_key is None else fields + _NO_REFERRER

    def refuse(self, head: RequestHead | None, request_id: str, fault: Fault) -> tuple[int, bytes, bytes]:
        """Return status, header lines and body that tell a client of a fault in its dialect."""
        status, fields, body = self._hub.refuse(head, request_id, fault)
        operation = methods_of(head.path).get(head.method) if head is not None else None
        self._hub.note_refusal(operation, request_id, fault, len(body))
        if head is not None:
            fields += self._fields(head, request_id)
        return status, fields, body

    # --- when the body is whole ---

    def begin(self, stream: ClientStream) -> None:
        """Answer a request."""
        plan = stream.plan
        if isinstance(plan, Plan):
            if plan.operation.answered is Answered.ENGINE:
                Exchange(self._hub, stream, plan).start()
            elif plan.operation.answered is Answered.APPLICATION:
                self._hub.spawn(self._run_application(stream, plan))
            else:
                self._answer_from_memory(stream, plan)
        elif isinstance(plan, _Joins):
            stream.hand_over(plan.head, plan.protocol)
        elif isinstance(plan, _Preflight):
            stream.send(204, plan.fields, b"")
        elif isinstance(plan, _Redirect):
            location = plan.location.encode("latin-1")
            link = b'<a href="%b">%b</a>.\n\n' % (
                escape(plan.location).encode("latin-1"),
                HTTPStatus(plan.status).phrase.encode(),
            )
            body = link if stream.head.method in ("GET", "HEAD") else b""
            fields = b"Location: %b\r\nContent-Type: text/html; charset=utf-8\r\n" % location
            stream.send(plan.status, fields + plan.fields, body)

    def _answer_from_memory(self, stream: ClientStream, plan: Plan) -> None:
        try:
            status, fields, body = self._from_memory(stream.head, plan.operation)
        except Fault as fault:
            status, fields, body = self._hub.refuse(stream.head, stream.request_id, fault)
        stream.send(status, fields + plan.fields, body)

    def _from_memory(self, head: RequestHead, operation: Operation) -> tuple[int, bytes, bytes]:
        catalog = self._hub.catalog
        if operation is operations.TAGS:
            return 200, _JSON, catalog.tags()
        if operation is operations.PS:
            return 200, _JSON, catalog.ps()
        if operation is operations.VERSION:
            return 200, _JSON, msgspec.json.encode({"version": OLLAMA_API_VERSION})
        if operation is operations.MODELS:
            return 200, _V1_JSON, catalog.v1_models()
        if operation is operations.MODEL:
            return 200, _V1_JSON, self._one_model(head)
        if operation is operations.METRICS:
            return 200, b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", self._metrics()
        if operation is operations.READY and not self._hub.has_looked:
            return 503, _TEXT + b"Retry-After: 1\r\n", b"starting\n"
        if operation in (operations.READY, operations.HEALTH):
            return 200, _TEXT, b"ok\n"
        return 200, _TEXT, b"Ollama is running"

    def _one_model(self, head: RequestHead) -> bytes:
        name = unquote(head.path.removeprefix(operations.MODEL.path))
        found = self._hub.catalog.v1_model(name) if len(name) <= MAX_NAME else None
        if found is None:
            raise Fault(errors.MODEL_NOT_FOUND, f"model '{with_tag(name)}' not found")
        return found + b"\n"

    def end_event_streams(self) -> None:
        """End the event streams of the application: the hub stops."""
        self._bridge.end_event_streams()

    async def _run_application(self, stream: ClientStream, plan: Plan) -> None:
        try:
            if self._application is None:
                self._application = await asyncio.to_thread(self._make_application)
            extra: dict[str, object] = {"key_name": plan.key_name, "request_id": stream.request_id}
            await self._bridge.run(self._application, stream, extra, plan.fields)
        except Exception:
            _log.exception("management request %s", stream.request_id)
            if stream.has_started:
                return  # the bridge has cut the answer
            fault = Fault(errors.INTERNAL, f"the hub made a mistake; its log has {stream.request_id}")
            status, fields, body = self.refuse(stream.head, stream.request_id, fault)
            stream.send(status, fields, body)
