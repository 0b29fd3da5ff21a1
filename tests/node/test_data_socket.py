"""A data socket between two exchanges: when it becomes a spare, and what it keeps for a hub that does not read."""

from __future__ import annotations

import asyncio

import pytest

from hive.node.data_socket import DataSocket, Held
from hive.node.engine_server import EngineServer
from hive.node.hub_socket import Turn
from hive.wire.link_messages import Cancel, Open, encode
from hive.wire.link_rules import CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side

from ..wire.linking import BINARY, from_hub, messages
from .engine import Call, RawEngine, plain
from .hub import SESSION, End, get, joined, post, run, until
from .pipe import Pipe, dial, turn


class Owner:
    """Of no engine."""

    def __init__(self) -> None:
        self.spares = 0
        self.closed: Closed | None = None

    def engine(self, name: str) -> EngineServer | None:
        return None

    def on_spare(self, socket: DataSocket) -> None:
        self.spares += 1

    def on_data_closed(self, socket: DataSocket, closed: Closed) -> None:
        self.closed = closed


def test_a_hub_that_opens_and_does_not_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(DataSocket, "max_unsent_bytes", 10_000)

    async def main() -> None:
        owner = Owner()
        pipe = Pipe(DataSocket(dial(), Turn(), SESSION, 15.0, owner, Held()))
        await turn()
        pipe.take()
        for _ in range(200):
            if pipe.is_lost:
                break
            await pipe.say(from_hub(Open("r1", "e")))
            await pipe.tick()
        assert pipe.is_lost
        assert owner.closed is not None
        assert owner.closed.code == CloseCode.BROKE_OFF

    run(main())
    (said,) = [record.message for record in caplog.records]
    assert "bytes wait for it in <DataSocket spare>, which is dropped" in said


class ByHand(asyncio.Protocol):
    """The hub's end of a data socket from now on: what comes is kept, what goes is written by the test."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.read: list[str | bytes] = []
        self.socket = LinkSocket(Side.HUB, end.loop.time())
        end.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self.read += messages(self.socket, [data], asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self.end.is_lost = True

    def has_ended(self, exchange: str) -> bool:
        return any(isinstance(each, str) and f'"ended","id":"{exchange}"' in each for each in self.read)


async def silent(call: Call) -> None:
    await call.read_body()
    await call.gone()


def test_a_surplus_socket_stays_open_when_the_next_exchange_comes_right_after_the_cancel() -> None:
    async def main() -> None:
        async with RawEngine(silent) as engine, joined(engine.url, links=2) as hub:
            end, other = hub.spares()
            hand = ByHand(end)
            end.transport.write(from_hub(Open("r1", engine.name)) + from_hub(post("/api/chat"), BINARY))
            await until(lambda: engine.calls)
            hub.control.want_links(0)
            hub.control_end.flush()
            await until(lambda: other.is_lost)  # the node knows that both are too many
            engine.script = plain
            request = from_hub(encode(Open("r2", engine.name))) + from_hub(post("/api/chat"), BINARY)
            end.transport.write(from_hub(Cancel("r1")) + request)
            await until(lambda: hand.has_ended("r2") or hand.socket.closed)
            kinds = [each if isinstance(each, str) else each[:12] for each in hand.read]
            assert kinds == [
                '{"type":"accepted","id":"r1"}',
                '{"type":"ended","id":"r1","error":{"code":"cancelled","message":""}}',
                '{"type":"accepted","id":"r2"}',
                b"HTTP/1.1 200",
                '{"type":"ended","id":"r2","error":null}',
            ]
            await until(lambda: hand.socket.closed)
            assert hand.socket.closed == Closed(CloseCode.NORMAL, "one too many", is_ours=False)

    run(main())


def test_a_surplus_socket_stays_open_when_the_next_exchange_comes_right_after_a_refusal() -> None:
    """A hub that does not wait for `ended`: the node refuses r1 while r2 has come in the same read."""

    async def main() -> None:
        async with RawEngine(silent) as engine, joined(engine.url, links=2) as hub:
            end, other = hub.spares()
            hand = ByHand(end)
            end.transport.write(from_hub(Open("r0", engine.name)) + from_hub(post("/api/chat"), BINARY))
            await until(lambda: engine.calls)
            hub.control.want_links(0)
            hub.control_end.flush()
            await until(lambda: other.is_lost)
            engine.script = plain
            end.transport.write(
                from_hub(Cancel("r0"))
                + from_hub(Open("r1", engine.name))
                + from_hub(get("/admin"), BINARY)
                + from_hub(Cancel("r1"))
                + from_hub(Open("r2", engine.name))
                + from_hub(post("/api/chat"), BINARY)
            )
            await until(lambda: hand.has_ended("r2") or hand.socket.closed)
            assert hand.has_ended("r2")
            await until(lambda: hand.socket.closed)

    run(main())
