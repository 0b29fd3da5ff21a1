"""What a node's connection goes through before it is a link, and what becomes of one that says nonsense, or nothing."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from hive.net.joined import MAX_ARRIVING
from hive.net.joined_data import JoinedConnection
from hive.testing import ThreadedEngine
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.link_messages import Heartbeat, Hello, encode
from hive.wire.link_rules import MARK_OF_HUB, MAX_CONTROL_BYTES

from ..joining import INSTANCE, OFFER, NodeWire, joined, let_pass, pool_of, upgrade
from ..process import ADMIN_KEY, serving
from ..raw import GENERATE, Wire, ask, eventually, metric, request
from ..wire.linking import BINARY, CONTINUATION, NOT_LAST, PING, PONG, TEXT, frame, from_node

JSON = "Content-Type: application/json\r\n"
HELLO = Hello(INSTANCE, "by hand")


def without(line: str) -> str:
    """Return the head of an offer without one of its fields."""
    return "".join(one for one in OFFER.splitlines(keepends=True) if not one.startswith(line))


REFUSED = {
    "no key": (upgrade("").replace(b"Authorization: Bearer \r\n", b""), 401),
    "an unknown key": (upgrade("hk_nobody-has-it"), 401),
    "another path": (upgrade("KEY", path="/hive/links"), 404),
    "a longer path": (upgrade("KEY", path="/hive/link/x"), 404),
    "a POST": (upgrade("KEY", start="POST"), 405),
    "no offer": (upgrade("KEY", head=""), 426),
    "an offer of something else": (upgrade("KEY", head=OFFER.replace("websocket", "h2c")), 426),
    "no Connection": (upgrade("KEY", head=without("Connection")), 426),
    "no version": (upgrade("KEY", head=without("Sec-WebSocket-Version")), 426),
    "another version": (upgrade("KEY", head=OFFER.replace("13", "8")), 426),
    "no subprotocol": (upgrade("KEY", head=without("Sec-WebSocket-Protocol")), 426),
    "a newer subprotocol": (upgrade("KEY", head=OFFER.replace("hive-link-1", "hive-link-9")), 426),
    "no WebSocket key": (upgrade("KEY", head=without("Sec-WebSocket-Key")), 400),
    "a WebSocket key that is none": (upgrade("KEY", head=OFFER.replace("dGhlIH", "??????")), 400),
    "a web page": (upgrade("KEY", head=OFFER + "Origin: http://localhost\r\n"), 403),
    "a body": (upgrade("KEY", head=OFFER + "Content-Length: 1\r\n") + b"x", 400),
    "a key in the URL": (upgrade("").replace(b"/hive/link", b"/k/KEY/hive/link"), 403),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_nodes_offer_is_refused_in_http(hub: ThreadedHub, data: bytes, status: int) -> None:
    key = hub.create_key("desk", "worker")
    answer = ask(hub.port, data.replace(b"KEY", key.encode()))
    assert answer.status == status
    assert answer.body or answer.status == 403
    assert answer.header(MARK_OF_HUB)
    if status == 426:
        assert answer.header("Upgrade") == "websocket"


@pytest.mark.parametrize("role", ["client", "admin"])
def test_only_a_worker_key_joins(hub: ThreadedHub, role: str) -> None:
    answer = ask(hub.port, upgrade(hub.create_key("somebody", role)))
    assert answer.status == 403
    assert "is not a worker key; make one with --role worker" in str(answer.json())


def test_a_revoked_key_does_not_join(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    hub.revoke_key("desk")
    assert ask(hub.port, upgrade(key)).status == 401


def test_a_hub_that_drains_refuses_a_node(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    with Wire(hub.port) as wire:
        data = upgrade(key)
        wire.send(data[:20])
        hub.until(lambda server: any(not one._reader.is_idle for one in server.server.connections))
        hub.call(lambda server: server.server.stop_accepting())
        wire.send(data[20:])
        answer = wire.answer()
        assert (answer.status, answer.header("Retry-After") is not None) == (503, True)


def test_bytes_before_the_101_end_the_connection(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    with Wire(hub.port) as wire:
        wire.send(upgrade(key) + from_node(HELLO))
        answer = wire.answer()
        assert (answer.status, answer.header("Connection")) == (400, "close")
        wire.half_close()
        assert wire.is_closed()
    hub.until(lambda server: not server.server.connections)
    assert hub.call(lambda server: len(server.hub.joining.sockets)) == 0


def test_the_http_server_forgets_a_connection_that_became_a_link(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    with Wire(hub.port) as wire:
        wire.send(request(body=GENERATE))  # the connection has served requests before
        assert wire.answer().status == 404
        wire.send(upgrade(key))
        assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        state = hub.call(lambda server: (len(server.server.connections), server.server.held_body_bytes))
        assert state == (0, 0)
        assert hub.call(lambda server: len(server.hub.joining.sockets)) == 1
    eventually(lambda: hub.call(lambda server: len(server.hub.joining.sockets)) == 0)


GARBAGE = {
    "unmasked": (frame(TEXT, encode(HELLO), mask=None), 1002),
    "reserved bits": (frame(0xC1, b"{}"), 1002),
    "a reserved opcode": (frame(0x83, b""), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"{}"), 1002),
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "bytes": (frame(BINARY, b"x"), 4001),
    "not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "not JSON": (frame(TEXT, b"hello"), 4000),
    "an unknown type": (frame(TEXT, b'{"type":"greetings"}'), 4001),
    "a later message": (frame(TEXT, encode(Heartbeat(1))), 4000),
    "half a hello": (frame(TEXT, b'{"type":"hello"}'), 4000),
    "an engine's id as a path": (
        frame(
            TEXT,
            b'{"type":"hello","instance":"0123456789abcdef","agent":"a","engines":[{"id":"../x","kind":"ollama"}]}',
        ),
        4000,
    ),
    "deep": (frame(TEXT, b'{"type":"hello","labels":' + b"[" * 100_000), 4000),
    "huge": (frame(TEXT, b"", length=MAX_CONTROL_BYTES + 1), 1009),
    "endless": (frame(TEXT, b"", length=1 << 62), 1009),
    "a flood of pings": (frame(PING) * 40, 4001),
}


@pytest.mark.parametrize(("data", "code"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_closes_its_own_connection_with_a_reason(hub: ThreadedHub, data: bytes, code: int) -> None:
    key = hub.create_key("desk", "worker")
    with joined(hub, "other"), NodeWire(hub, key) as wire:
        wire.send(data)
        assert wire.code == code
        assert hub.call(lambda server: server.hub.joining.nodes["other"].control) is not None


def test_a_fragmented_hello_is_legal(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    text = encode(HELLO)
    with NodeWire(hub, key) as wire:
        wire.send(
            frame(TEXT & NOT_LAST, text[:9]) + frame(PING, b"x") + frame(0, text[9:20]) + frame(CONTINUATION, text[20:])
        )
        assert wire.text("welcome")["node"] == "desk"


def test_a_socket_that_sends_nothing_is_closed_after_ten_seconds(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    with NodeWire(hub, key) as wire:
        let_pass(hub, 9)
        assert hub.call(lambda server: repr(next(iter(server.hub.joining.sockets)))).count("open") >= 0
        let_pass(hub, 12)
        assert wire.code == 4002
    eventually(lambda: hub.call(lambda server: not server.hub.joining.sockets.arriving))


def test_sockets_that_say_nothing_are_limited_for_each_key(hub: ThreadedHub) -> None:
    silent, loud = hub.create_key("silent", "worker"), hub.create_key("loud", "worker")
    wires = [NodeWire(hub, silent) for _ in range(MAX_ARRIVING)]
    try:
        refused = ask(hub.port, upgrade(silent))
        assert (refused.status, refused.json()["error"]["code"]) == (503, "too_many_links")  # type: ignore[index]
        assert refused.header("Retry-After") is not None
        with joined(hub, "loud", key=loud):
            pass
    finally:
        for wire in wires:
            wire.sock.close()
    eventually(lambda: hub.call(lambda server: not server.hub.joining.sockets.arriving))
    with joined(hub, "silent", key=silent):
        pass


@pytest.mark.long
def test_nine_thousand_silent_sockets_delay_no_request(tmp_path: Path, engine: ThreadedEngine) -> None:
    """Of many keys, so that no limit of a key is met: answers stay quick, and all are closed in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 10_000:
        pytest.skip("this machine allows too few sockets")
    wires: list[Wire] = []
    try:
        with serving(tmp_path, "--node", f"a={engine.url}") as hub:
            head = f"Authorization: Bearer {ADMIN_KEY}\r\n"
            keys = []
            for number in range(36):
                made = ask(
                    hub.port, request("/hive/v1/keys", {"name": f"n{number}", "role": "worker"}, head=JSON + head)
                )
                keys.append(str(made.json()["key"]))
            for key in keys:
                for _ in range(250):
                    wire = Wire(hub.port)
                    wires.append(wire)
                    wire.send(upgrade(key))
            for wire in wires:
                assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            assert metric(hub.port, "hive_links_arriving", ADMIN_KEY) > 8_000
            slowest = 0.0
            for _ in range(100):
                began = time.monotonic()
                assert ask(hub.port, request(body=GENERATE)).status == 200
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 0.5
            eventually(lambda: metric(hub.port, "hive_links_arriving", ADMIN_KEY) == 0, 25)
            assert wires[0].rest().startswith(b"\x88")
    finally:
        for wire in wires:
            wire.sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_arriving_sockets_have_sent_is_limited_too(hub: ThreadedHub) -> None:
    key = hub.create_key("desk", "worker")
    wires = [NodeWire(hub, key) for _ in range(6)]
    try:
        for wire in wires:
            wire.send_anyway(frame(TEXT, b"", length=MAX_CONTROL_BYTES) + bytes(MAX_CONTROL_BYTES - 1000))
        eventually(lambda: hub.call(lambda server: len(server.hub.joining.sockets)) < 6)
    finally:
        for wire in wires:
            wire.sock.close()
    eventually(lambda: hub.call(lambda server: not server.hub.joining.sockets.arriving_bytes))


def test_a_control_socket_that_floods_the_hub_is_read_slowly_and_then_goes_on(hub: ThreadedHub) -> None:
    with joined(hub) as node, joined(hub, "other"):
        beats = frame(TEXT, encode(Heartbeat(1))) * 1_000_000
        node.control.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            node.control.sock.sendall(beats)
        began = hub.call(lambda server: server.hub.now())
        assert ask(hub.port, request("/api/tags", method="GET")).status == 200
        assert hub.call(lambda server: server.hub.now()) - began < 1
        nodes = hub.call(lambda server: {n.name: n.control is not None for n in server.hub.joining.nodes.values()})
        assert nodes == {"desk": True, "other": True}


def test_a_spare_that_does_not_answer_pings_is_closed(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        data = node.data()
        let_pass(hub, 40, JoinedConnection)
        assert data.code == 4003
        eventually(lambda: len(pool_of(hub)) == 0)


def test_a_spare_that_answers_pings_stays(hub: ThreadedHub) -> None:
    with joined(hub) as node:
        data = node.data()
        let_pass(hub, 20, JoinedConnection)
        data.send(frame(PONG))
        assert data.sock.recv(2) == frame(PING, mask=None)
        hub.until(lambda server: all(one._machine.socket.alive.asked is None for one in server.hub.joining.sockets))
        let_pass(hub, 4, JoinedConnection)
        assert len(pool_of(hub)) == 1


@pytest.fixture
def hub() -> ThreadedHub:  # type: ignore[misc]
    """A hub that dials no node."""
    with run_hub({}, link="dialed") as hub:
        yield hub  # type: ignore[misc]
