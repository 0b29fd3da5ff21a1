"""The composition root of the hub: builds every part from the settings, and takes all down again at the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from hive.auth.access import Door, Guesses
from hive.auth.key_ring import KeyRing
from hive.auth.keys import Right
from hive.auth.origins import Origins
from hive.config import NO_NODES, LocalAccess, LogFormat, Settings
from hive.errors import Fault
from hive.hub.access_log import ExchangeLog, set_up_logging
from hive.hub.core import Hub
from hive.hub.event_feed import EventFeed
from hive.hub.event_log import EventLog
from hive.hub.key_cases import Keys
from hive.hub.log_writer import LogWriter
from hive.hub.recall import Recall
from hive.hub.records import Record
from hive.net.asgi import Application, AsgiBridge
from hive.net.certificate import Certificate, CertificateError
from hive.net.reception import ServerLimits
from hive.net.server import HttpServer, Listener
from hive.store.store import Store
from hive.store.store_error import StoreError
from hive.surfaces.front import Front
from hive.surfaces.main.main_surface import main_surface
from hive.surfaces.management.management_surface import management_surface
from hive.surfaces.surface import Surface

_log = logging.getLogger(__name__)

MANY_SOCKETS = 10_240
FAREWELL = 0.5
"""Seconds for the last errors to reach their clients, even after the drain time."""

_LOCAL_RIGHTS: dict[LocalAccess, frozenset[Right] | None] = {
    LocalAccess.OFF: None,
    LocalAccess.INFER: frozenset({Right.NONE, Right.INFER}),
    LocalAccess.MANAGE: frozenset({Right.NONE, Right.INFER, Right.MANAGE}),
}


class HubServer:
    """A whole hub, from its database to its listener. `start`, then `wait`, then `stop`."""

    def __init__(self, settings: Settings, write_records: Callable[[Sequence[Record]], None] | None = None) -> None:
        """`write_records` takes the records of exchanges in place of the log."""
        self.settings = settings
        self.store = Store(settings.data_dir)
        self.ring = KeyRing()
        self.events = EventLog()
        self.keys = Keys(self.store, self.ring, self.events)
        self.log_writer = LogWriter(sys.stderr.buffer)
        log = ExchangeLog(self.log_writer, as_json=_logs_json(settings))
        self.hub = Hub(settings, write_records or log.write, self.ring, self.events)
        self.feed = EventFeed(self.events)
        self.bridge = AsgiBridge()
        self.recall = Recall(self.store, self.hub.joining, self.hub.now)
        self.server = self._make_server()
        self._guesses = Guesses()
        self.certificate: Certificate | None = None
        self.port = 0
        self.new_admin_key: str | None = None

    def _make_server(self) -> HttpServer:
        settings = self.settings
        limits = ServerLimits(
            max_head_bytes=settings.max_head_bytes,
            max_body_bytes=self.hub.frontend.max_body_bytes,
            max_bodies_bytes=settings.max_bodies_bytes,
            head_timeout=settings.head_timeout,
            body_timeout=settings.body_timeout,
            keep_alive_timeout=settings.keep_alive_timeout,
            send_timeout=settings.send_timeout,
            linger_timeout=settings.linger_timeout,
        )
        return HttpServer(limits, self.hub.outbox)

    def _main_surfaces(self) -> tuple[Surface, ...]:
        """Return the surfaces of the main listener. The first one answers unknown paths as Ollama would."""
        management = management_surface(self.hub, self.bridge, self._make_application, self._render_metrics)
        return main_surface(self.hub.catalog), management

    async def listen(self, host: str, port: int, surfaces: Sequence[Surface]) -> int:
        """Serve surfaces at one more address; return its port. Raises `OSError` when the port is taken.

        The first surface also answers the paths that no surface has. The certificate in the settings is used here too.
        """
        settings = self.settings
        local_rights = _LOCAL_RIGHTS[settings.local_access_at(host)]
        door = Door(self.ring, self._guesses, local_rights, settings.open, settings.trusted_networks)
        front = Front(self.hub, door, Origins(settings.origins), surfaces)
        self._read_certificate()
        context = self.certificate.context if self.certificate is not None else None
        return await self.server.listen(Listener(host, port, front, context))

    def _read_certificate(self) -> None:
        settings = self.settings
        if self.certificate is None and settings.tls_cert is not None and settings.tls_key is not None:
            self.certificate = Certificate(settings.tls_cert, settings.tls_key)

    async def start(self) -> None:
        """Open the database, listen, and begin to look at the nodes.

        Raises `CertificateError`, `StoreError`, `Fault` or `OSError`.
        """
        settings = self.settings
        self._read_certificate()
        await self.store.open()
        try:
            await self.keys.load()
            await self.recall.load(self.keys.listed())
            # Only once the port is ours: a key made for a start that fails would never be shown.
            self.port = await self.listen(settings.host, settings.port, self._main_surfaces())
            self.new_admin_key = await self.keys.first_admin(settings.admin_key)
        except BaseException:
            self.server.close()
            await self.store.close()
            raise
        self.hub.start()
        self.hub.background.spawn(self.recall.run())

    @property
    def scheme(self) -> str:
        """Return the scheme of the hub's URL."""
        return "http" if self.certificate is None else "https"

    def reload_certificate(self) -> None:
        """Read the certificate anew. If it cannot be used, log that and keep the old one."""
        if self.certificate is None:
            return
        try:
            self.certificate.reload()
        except CertificateError as error:
            _log.error("the certificate is not read anew: %s", error)
        else:
            _log.info("the certificate was read anew")

    async def stop(self) -> None:
        """Refuse new work, finish what runs within the drain time, and take everything down."""
        deadline = self.hub.now() + self.settings.drain_timeout
        self.server.stop_accepting()
        self.bridge.end_event_streams()
        self.hub.joining.say_bye()
        await self.hub.register.finish(self.settings.drain_timeout)
        await self.server.finish(max(FAREWELL, deadline - self.hub.now()))
        self.hub.register.give_up_all()  # exchanges whose body came in the meantime
        await self.server.finish(FAREWELL)
        await self.hub.joining.leave(FAREWELL)  # only now: until here a request may need its link
        self.server.close()
        await self.hub.close()
        await self.recall.write()
        await self.store.close()
        self.log_writer.close()

    def _make_application(self) -> Application:
        from hive.surfaces.management.application import Services, create_app
        from hive.surfaces.management.fleet_views import Views
        from hive.surfaces.management.request_views import RequestViews

        return create_app(Services(self.keys, Views(self.hub), RequestViews(self.hub, self.keys), self.feed))

    def _render_metrics(self) -> bytes:
        from hive.surfaces.metrics import Metrics

        return Metrics(self.hub, self.server).render()


def serve(settings: Settings) -> int:
    """Run a hub until SIGTERM or SIGINT; return the program's exit code."""
    try:
        import uvloop
    except ImportError:
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    server = HubServer(settings)
    set_up_logging(server.log_writer, settings.log_level, as_json=_logs_json(settings))
    try:
        return await _run(server)
    finally:
        server.log_writer.close()


async def _run(server: HubServer) -> int:
    settings, loop = server.settings, asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _allow_many_sockets()
    try:
        await server.start()
    except CertificateError as error:
        return _fail(str(error), 2)
    except (StoreError, Fault) as error:
        return _fail(error.message if isinstance(error, Fault) else str(error))
    except socket.gaierror:
        return _fail(f"host: {settings.host!r} is no address of this machine")
    except OSError as error:
        reason = "is taken" if error.errno in (48, 98) else f"cannot be used ({os.strerror(error.errno or 0)})"
        return _fail(f"port {settings.port} on {settings.host} {reason}")
    if server.certificate is not None:
        loop.add_signal_handler(signal.SIGHUP, server.reload_certificate)
    _greet(server)
    _tune_collector()
    await stopping.wait()
    _log.info("stopping: waiting up to %g s for %s", settings.drain_timeout, _count(len(server.hub.register.running)))
    loop.add_signal_handler(signal.SIGINT, server.hub.register.give_up_all)  # Ctrl-C again: now
    await server.stop()
    return 0


def _count(exchanges: int) -> str:
    return f"{exchanges} exchange{'' if exchanges == 1 else 's'} under way"


def _logs_json(settings: Settings) -> bool:
    """Return whether log lines are JSON: as it is set, or else JSON for programs and text for people."""
    if settings.log_format is LogFormat.AUTO:
        return not sys.stderr.isatty()
    return settings.log_format is LogFormat.JSON


def _allow_many_sockets() -> None:
    """Raise the limit of open files as far as this user may: each client, node and engine takes one."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    for wanted in (hard, MANY_SOCKETS):  # macOS reports no limit, but has one
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        break


def _tune_collector() -> None:
    """Let the collector skip objects that live as long as the hub, and run rarely: no exchange leaves cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _fail(sentence: str, code: int = 1) -> int:
    """Print why there is no hub, and return `code`: 2 for a setting that cannot be used."""
    print(f"hive serve: {sentence}", file=sys.stderr)
    return code


def _greet(server: HubServer) -> None:
    host = server.settings.host
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what was asked for, said in an address to type
    shown = everywhere.get(host) or (f"[{host}]" if ":" in host else host)
    if server.new_admin_key is not None:
        print(f"The admin key, shown this once: {server.new_admin_key}", flush=True)
    nodes = ", ".join(dict.fromkeys(engine.node for engine in server.hub.fleet.engines)) or NO_NODES
    print(f"Hive serves {server.scheme}://{shown}:{server.port} (nodes: {nodes})", flush=True)
