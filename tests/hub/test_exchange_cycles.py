"""The garbage collector looks away from a running hub, so nothing that ends may leave a reference cycle behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from hive.hub.attempt import Attempt
from hive.hub.exchange import Exchange
from hive.hub.relay import Relay
from hive.net.client import ClientConnection
from hive.net.engine_connection import EngineConnection
from hive.net.stream import ClientStream
from hive.testing import ThreadedEngine, run_in_thread
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.requests import RequestReader
from hive.wire.responses import ResponseReader

from ..raw import GENERATE, STREAM, Wire, ask, eventually, request

KINDS = (Exchange, Attempt, Relay, ClientConnection, ClientStream, EngineConnection, RequestReader, ResponseReader)
TIMES = 20


@contextmanager
def uncollected() -> Iterator[Callable[[], dict[str, int]]]:
    """Switch the collector off; give what counts the objects of our own that only it would free."""
    gc.collect()
    gc.disable()
    known = {id(each) for each in gc.get_objects() if isinstance(each, KINDS)}

    def count() -> dict[str, int]:
        left: dict[str, int] = {}
        for each in gc.get_objects():
            if isinstance(each, KINDS) and id(each) not in known:
                left[type(each).__name__] = left.get(type(each).__name__, 0) + 1
        return left

    try:
        yield count
    finally:
        gc.enable()
        gc.collect()


def whole(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    assert ask(hub.port, request(body=GENERATE, head="Connection: close\r\n")).status == 200


def streamed(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    assert ask(hub.port, request(body=STREAM, head="Connection: close\r\n")).status == 200


def refused(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    assert ask(hub.port, request(body={"model": "none"}, head="Connection: close\r\n")).status == 404


def garbled(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    assert ask(hub.port, b"nonsense\r\n\r\n").status == 400


def broken_body(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    """A client leaves in the middle of its body."""
    with Wire(hub.port) as wire:
        wire.send(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
        eventually(lambda: hub.call(lambda server: server.server.held_body_bytes) == 50_000)


def departed(hub: ThreadedHub, engine: ThreadedEngine) -> None:
    """A client leaves before its answer begins."""
    engine.set_fault("freeze", path="/api/generate")
    with Wire(hub.port) as wire:
        wire.send(request(body=STREAM))
        hub.until(lambda server: bool(server.hub.register.attempts()))
    hub.until(lambda server: not server.hub.register.running)
    engine.clear_faults()


@pytest.mark.parametrize("end", [whole, streamed, refused, garbled, broken_body, departed])
def test_no_end_of_a_connection_leaves_a_cycle(
    end: Callable[[ThreadedHub, ThreadedEngine], None], engine: ThreadedEngine
) -> None:
    with run_hub({"a": engine.url}, link="dialed", probe_interval=60) as hub:
        end(hub, engine)
        hub.until(lambda server: not server.server.connections)
        with uncollected() as count:
            for _ in range(TIMES):
                end(hub, engine)
            hub.until(lambda server: not server.server.connections)
            left = {name: number for name, number in count().items() if number >= TIMES // 2}
        assert left == {}


def test_a_dial_that_fails_leaves_no_cycle() -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(run_in_thread())
        with run_hub({"a": engine.url}, link="dialed", probe_interval=60, queue_timeout=0.5) as hub:
            whole(hub, engine)
            hub.until(lambda server: not server.server.connections)
            stack.close()  # the engine is gone, and no probe has noticed it yet
            hub.until(lambda server: next(iter(server.hub.roster.links.values())).take_idle() is None)
            with uncollected() as count:
                assert ask(hub.port, request(body=GENERATE, head="Connection: close\r\n")).status == 503
                hub.until(lambda server: not server.server.connections)
                left = count()
            assert left == {}
