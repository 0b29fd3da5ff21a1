"""One exchange after the other on a data socket, the node's end played by hand."""

from __future__ import annotations

import gc
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hive.net.joined_data import JoinedConnection
from hive.net.resend import MAX_RESENDS
from hive.testing.hub import ThreadedHub, run_hub
from hive.wire.link_messages import Accepted, EndCode, Ended, EndError, Report
from hive.wire.link_rules import SENT_BINARY_BYTES

from ..joining import DataWire, RawNode, an_engine, joined, let_pass, pool_of
from ..raw import GENERATE, STREAM, Answer, Wire, ask, eventually, metric, request
from ..wire.linking import BINARY, NOT_LAST, frame

LARGE = 8_000_000
"""More than the system holds for a node that does not read."""
OK = b'{"response":"whole","done":true}'
LINE, DONE = b'{"response":"a","done":false}\n', b'{"response":"","done":true}\n'


def counted(body: bytes = OK, more: str = "") -> bytes:
    """Return an engine's answer."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAMED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def hub() -> Iterator[ThreadedHub]:
    """A hub that dials no node."""
    with run_hub({}, link="dialed", connect_timeout=1) as hub:
        yield hub


@pytest.fixture
def node(hub: ThreadedHub) -> Iterator[RawNode]:
    """A node with one engine."""
    with joined(hub) as node:
        yield node


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for clients."""
    with ThreadPoolExecutor() as pool:
        yield pool


def asking(pool: ThreadPoolExecutor, hub: ThreadedHub, body: object = GENERATE) -> Future[Answer]:
    """Ask the hub in a thread."""
    return pool.submit(ask, hub.port, request(body=body))


def test_a_request_arrives_byte_by_byte_as_the_protocol_says(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    assert data.hear() == '{"type":"open","id":"1","engine":"ollama"}'
    sent = data.hear()
    assert isinstance(sent, bytes)
    assert sent.startswith(b"POST /api/generate HTTP/1.1\r\nHost: ollama\r\n")
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == GENERATE
    data.answer("1", counted())
    assert answer.result().body == OK
    assert answer.result().header("X-Hive-Node") == "desk"


def test_a_socket_serves_one_exchange_after_the_other(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    for number in range(1, 4):
        answer = asking(pool, node.hub)
        exchange, _, _ = data.request()
        assert exchange == str(number)
        data.answer(exchange, counted(more="Connection: close\r\n" if number == 2 else ""))
        assert answer.result().body == OK
    assert (len(pool_of(node.hub)), pool_of(node.hub).spares) == (1, 1)


def test_the_spare_used_last_goes_first(node: RawNode, pool: ThreadPoolExecutor) -> None:
    first, second = node.data(), node.data()
    for _ in range(3):
        answer = asking(pool, node.hub)
        second.answer(second.request()[0], counted())
        assert answer.result().status == 200
    first.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        first.sock.recv(1)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_stream_passes_however_its_frames_are_cut(node: RawNode, size: int) -> None:
    data = node.data()
    stream = STREAMED + chunk(LINE) * 20 + chunk(DONE) + chunk(b"")
    with Wire(node.hub.port) as wire:
        wire.send(request(body=STREAM))
        exchange = data.opened()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        data.say(Accepted(exchange), *pieces, Ended(exchange))
        assert wire.answer().body == LINE * 20 + DONE


def test_a_fragmented_binary_message_passes(node: RawNode) -> None:
    data = node.data()
    with Wire(node.hub.port) as wire:
        wire.send(request(body=GENERATE))
        exchange = data.opened()
        whole = counted()
        data.say(Accepted(exchange))
        data.send(frame(BINARY & NOT_LAST, whole[:30]) + frame(0, whole[30:60]) + frame(0x80, whole[60:]))
        data.say(Ended(exchange))
        assert wire.answer().body == OK


def test_the_client_has_its_answer_before_the_node_says_ended(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    exchange = data.request()[0]
    data.say(Accepted(exchange), counted())
    assert answer.result().body == OK
    assert pool_of(node.hub).spares == 0
    data.say(Ended(exchange))
    eventually(lambda: pool_of(node.hub).spares == 1)


def test_ended_completes_a_body_that_only_the_close_ends(node: RawNode) -> None:
    data = node.data()
    for _ in range(2):
        with Wire(node.hub.port) as wire:
            wire.send(request(body=STREAM))
            data.answer(data.request()[0], UNTIL_CLOSE + LINE + DONE)
            assert (wire.answer().body, wire.is_open()) == (LINE + DONE, True)


NOT_WHOLE = {
    "cut in its body": (counted()[:-5], None),
    "cut in its head": (b"HTTP/1.1 200 OK\r\nContent-", None),
    "nothing": (b"", None),
    "cut in a stream": (STREAMED + chunk(LINE)[:9], None),
    "broke off": (b"", EndError(EndCode.ENGINE_BROKE_OFF, "reset")),
    "broke off in its body": (UNTIL_CLOSE + LINE[:5], EndError(EndCode.ENGINE_BROKE_OFF, "reset")),
    "garbled": (b"", EndError(EndCode.ENGINE_GARBLED, "no HTTP")),
    "refused": (b"", EndError(EndCode.REQUEST_REFUSED, "not on the list")),
    "a newer code": (b"", EndError("engine_is_on_fire", "smoke")),
    "cancelled by nobody": (b"", EndError(EndCode.CANCELLED)),
    "no HTTP": (b"\x16\x03\x01\x00\x00", None),
    "two answers": (counted() + counted(), None),
}


@pytest.mark.parametrize(("data", "error"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_an_answer_that_is_not_whole_is_tried_elsewhere_and_the_socket_stays(
    node: RawNode, pool: ThreadPoolExecutor, data: bytes, error: EndError | None
) -> None:
    with joined(node.hub, "other") as other:
        bad, good = node.data(), other.data()
        node.hub.call(lambda server: server.hub.node_cases.drain("other", True))
        answer = asking(pool, node.hub)
        exchange = bad.request()[0]
        node.hub.call(lambda server: server.hub.node_cases.drain("other", False))
        bad.say(Accepted(exchange), *([data] if data else []), Ended(exchange, error))
        good.answer(good.request()[0], counted())
        assert (answer.result().status, answer.result().body) == (200, OK)
        assert answer.result().header("X-Hive-Node") == "other"
        assert answer.result().header("X-Hive-Attempts") == "2"
        eventually(lambda: pool_of(node.hub).spares == 1)


def test_an_answer_that_is_not_whole_is_an_honest_error_without_another_engine(
    node: RawNode, pool: ThreadPoolExecutor
) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    for _ in range(3):
        data.answer(data.request()[0], b"", EndError(EndCode.ENGINE_BROKE_OFF, "connection reset"))
    assert answer.result().status == 502
    assert answer.result().json()["error"] == "node 'desk': connection reset"


def test_an_engine_that_its_node_cannot_reach_gets_no_work_until_a_report(
    node: RawNode, pool: ThreadPoolExecutor
) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    data.answer(data.request()[0], b"", EndError(EndCode.ENGINE_UNREACHABLE, "connection refused"))
    assert node.control.text("refresh")["engine"] == "ollama"
    assert node.hub.call(lambda server: server.hub.fleet.engines[0].health.value) == "down"
    assert not answer.done()  # it waits for whoever is up
    node.control.say(Report((an_engine(),)))
    data.answer(data.request()[0], counted())
    assert answer.result().body == OK


# --- accepted ---


def test_the_way_to_a_node_is_measured_by_its_accepted(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    assert pool_of(node.hub).round_trip == 0.0
    answer = asking(pool, node.hub)
    data.answer(data.request()[0], counted())
    assert answer.result().body == OK
    assert pool_of(node.hub).round_trip > 0.0
    eventually(lambda: node.hub.call(lambda server: server.hub.fleet.engines[0].known.round_trip) > 0.0)


def test_a_spare_that_was_dead_is_replaced_without_blame(node: RawNode, pool: ThreadPoolExecutor) -> None:
    living, dead = node.data(), node.data()
    answer = asking(pool, node.hub)
    dead.request()
    let_pass(node.hub, 2, JoinedConnection)
    assert dead.code == 4005
    living.answer(living.request()[0], counted())
    assert answer.result().body == OK
    assert metric(node.hub.port, "hive_attempts_total", node.hub.admin_key) == 1


def freeze(node: RawNode, data: DataWire) -> None:
    """Let a socket take a request and say nothing, until the hub has given it up."""
    data.opened()
    let_pass(node.hub, 2, JoinedConnection)
    assert data.code == 4005


def test_as_many_frozen_spares_as_may_be_are_replaced_in_one_attempt(node: RawNode, pool: ThreadPoolExecutor) -> None:
    living, *frozen = [node.data() for _ in range(MAX_RESENDS + 1)]
    answer = asking(pool, node.hub)
    for data in reversed(frozen):
        freeze(node, data)
    living.answer(living.request()[0], counted())
    assert answer.result().body == OK
    assert metric(node.hub.port, "hive_attempts_total", node.hub.admin_key) == 1


def test_one_frozen_spare_more_costs_an_attempt(node: RawNode, pool: ThreadPoolExecutor) -> None:
    frozen = [node.data() for _ in range(MAX_RESENDS + 1)]
    answer = asking(pool, node.hub)
    for data in reversed(frozen):
        freeze(node, data)
    living = node.data()
    living.answer(living.request()[0], counted())
    assert (answer.result().body, answer.result().header("X-Hive-Attempts")) == (OK, "2")


def test_a_spare_that_is_frozen_under_a_large_body_is_replaced_too(node: RawNode, pool: ThreadPoolExecutor) -> None:
    """The body stands in the hub's own buffer behind `open`: the node reads none of it."""
    living, frozen = node.data(), node.data(receive_buffer=16_384)
    body = {**GENERATE, "images": ["x" * LARGE]}
    answer = asking(pool, node.hub, body)
    eventually(lambda: pool_of(node.hub).spares == 1)
    let_pass(node.hub, 2, JoinedConnection)
    exchange, _, received = living.request()
    assert json.loads(received) == body
    living.answer(exchange, counted())
    assert answer.result().body == OK
    assert frozen.sock.fileno() >= 0


def test_a_spare_that_breaks_off_before_it_accepts_is_replaced_without_blame(
    node: RawNode, pool: ThreadPoolExecutor
) -> None:
    living, dead = node.data(), node.data()
    answer = asking(pool, node.hub)
    dead.request()
    dead.reset()
    living.answer(living.request()[0], counted())
    assert answer.result().body == OK
    assert metric(node.hub.port, "hive_attempts_total", node.hub.admin_key) == 1


def test_a_socket_that_breaks_off_after_it_accepted_costs_an_attempt(node: RawNode, pool: ThreadPoolExecutor) -> None:
    spare, data = node.data(), node.data()
    answer = asking(pool, node.hub)
    data.say(Accepted(data.request()[0]))
    data.reset()
    spare.answer(spare.request()[0], counted())
    assert (answer.result().body, answer.result().header("X-Hive-Attempts")) == (OK, "2")
    assert pool_of(node.hub).spares == 1


def test_a_begun_stream_whose_socket_is_lost_ends_with_its_dialects_error(node: RawNode) -> None:
    data = node.data()
    with Wire(node.hub.port) as wire:
        wire.send(request(body=STREAM))
        data.say(Accepted(data.request()[0]), STREAMED + chunk(LINE))
        wire.until(LINE)
        data.reset()
        answer = wire.until(b"0\r\n\r\n")
        assert b'{"error":"node \'desk\'' in answer


# --- cancel ---


def test_a_client_that_leaves_costs_no_connection(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    for number in ("1", "2", "3"):
        with Wire(node.hub.port) as wire:
            wire.send(request(body=STREAM))
            assert data.request()[0] == number
            if number != "1":
                data.say(Accepted(number), STREAMED + chunk(LINE))
                wire.until(LINE)
        assert data.text("cancel")["id"] == number
        crossing = [Accepted(number)] if number == "1" else []
        data.say(*crossing, chunk(LINE), Ended(number, EndError(EndCode.CANCELLED)))
        eventually(lambda: pool_of(node.hub).spares == 1)
    answer = asking(pool, node.hub)
    data.answer(data.request()[0], counted())
    assert answer.result().body == OK


def test_an_ended_that_crosses_the_cancel_is_the_end(node: RawNode) -> None:
    data = node.data()
    wire = Wire(node.hub.port)
    wire.send(request(body=STREAM))
    exchange = data.request()[0]
    data.say(Accepted(exchange), STREAMED + chunk(LINE))
    wire.until(LINE)
    wire.sock.close()
    data.say(chunk(DONE) + chunk(b""), Ended(exchange))
    eventually(lambda: pool_of(node.hub).spares == 1)


def test_a_cancelled_exchange_that_does_not_end_closes_its_socket(node: RawNode) -> None:
    data = node.data()
    with Wire(node.hub.port) as wire:
        wire.send(request(body=STREAM))
        data.request()
    data.text("cancel")
    let_pass(node.hub, 7, JoinedConnection)
    assert data.code == 4006


def test_a_whole_answer_that_the_node_does_not_end_is_cancelled(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    exchange = data.request()[0]
    data.say(Accepted(exchange), counted())
    assert answer.result().body == OK
    let_pass(node.hub, 5, JoinedConnection)
    assert data.text("cancel")["id"] == exchange
    data.say(Ended(exchange, EndError(EndCode.CANCELLED)))
    eventually(lambda: pool_of(node.hub).spares == 1)


def test_bytes_after_a_whole_answer_reach_no_client(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    exchange = data.request()[0]
    data.say(Accepted(exchange), counted(), counted(b'{"response":"EVIL","done":true}'))
    assert answer.result().body == OK
    assert data.text("cancel")["id"] == exchange
    data.say(Ended(exchange, EndError(EndCode.CANCELLED)))
    second = asking(pool, node.hub)
    data.answer(data.request()[0], counted(b'{"response":"mine","done":true}'))
    assert b"mine" in second.result().body


def test_a_client_that_leaves_during_its_upload_ends_the_socket(node: RawNode) -> None:
    """The cancel would wait behind the request: the hub drops the connection, and the node its engine's."""
    data = node.data(receive_buffer=16_384)
    body = {**GENERATE, "images": ["x" * LARGE]}
    with Wire(node.hub.port) as wire:
        wire.send(request(body=body))
        data.opened()
    assert eventually(lambda: len(pool_of(node.hub)) == 0, 2) < 1


# --- large bodies ---


def test_a_large_body_arrives_whole_in_bounded_pieces_as_the_node_takes_them(
    node: RawNode, pool: ThreadPoolExecutor
) -> None:
    data = node.data(receive_buffer=16_384)
    body = {**GENERATE, "images": ["x" * LARGE]}
    answer = asking(pool, node.hub, body)
    exchange = data.opened()

    def kept(server: object) -> tuple[int, int]:
        [one] = [one for one in server.hub.joining.sockets if isinstance(one, JoinedConnection)]  # type: ignore[attr-defined]
        assert one._transport is not None
        return one._kept_bytes, one._transport.get_write_buffer_size()

    eventually(lambda: node.hub.call(kept)[0] > 0)
    assert node.hub.call(kept)[1] <= 4 * SENT_BINARY_BYTES
    received = b""
    while not received.endswith(b'"]}'):
        message = data.hear()
        assert isinstance(message, bytes)
        assert len(message) <= SENT_BINARY_BYTES
        received += message
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == body
    data.answer(exchange, counted())
    assert answer.result().body == OK


def test_an_engine_may_answer_before_it_has_read_the_body(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data(receive_buffer=16_384)
    answer = asking(pool, node.hub, {**GENERATE, "images": ["x" * LARGE]})
    data.answer(data.opened(), counted())
    assert answer.result().body == OK
    eventually(lambda: pool_of(node.hub).spares == 1)
    second = asking(pool, node.hub)
    while isinstance(message := data.hear(), bytes):
        pass  # the rest of what was under way
    data.answer(json.loads(str(message))["id"], counted())
    assert second.result().body == OK


# --- violations ---


VIOLATIONS = {
    "an exchange that nobody opened": (Accepted("1"), 4001),
    "an end of nothing": (Ended("1"), 4001),
    "bytes on a spare": (b"HTTP/1.1 200 OK\r\n\r\n", 4001),
    "a second arrival": ('{"type":"data","session":"0123456789abcdef"}', 4001),
    "no JSON": ("hello", 4000),
    "a long text": ("x" * 5000, 1009),
}


@pytest.mark.parametrize(("message", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_closes_its_own_socket_and_is_named_in_the_log(
    node: RawNode, caplog: pytest.LogCaptureFixture, message: object, code: int
) -> None:
    data, other = node.data(), node.data()
    data.say(message)  # type: ignore[arg-type]
    assert data.code in ({code} | ({4000} if code == 4001 else set()))
    eventually(lambda: len(pool_of(node.hub)) == 1)
    assert "node desk: data socket closed" in caplog.text
    assert other.sock.fileno() >= 0
    assert node.hub.call(lambda server: server.hub.joining.nodes["desk"].control) is not None


def test_a_second_exchange_on_a_busy_socket_is_a_violation(node: RawNode, pool: ThreadPoolExecutor) -> None:
    spare, data = node.data(), node.data()
    answer = asking(pool, node.hub)
    data.request()
    data.say(Accepted("7"))
    assert data.code == 4001
    spare.answer(spare.request()[0], counted())
    assert answer.result().body == OK


def test_a_message_beyond_its_limit_ends_the_exchange(node: RawNode, pool: ThreadPoolExecutor) -> None:
    data = node.data()
    answer = asking(pool, node.hub)
    data.say(Accepted(data.request()[0]))
    data.send(frame(BINARY, b"", length=1 << 40))
    assert data.code == 1009
    spare = node.data()
    spare.answer(spare.request()[0], counted())
    assert answer.result().body == OK


# --- cost ---


def test_an_exchange_over_a_joined_link_leaves_no_cycles(node: RawNode) -> None:
    data = node.data()
    stop = threading.Event()

    def serve() -> None:
        for _ in itertools.count():
            exchange, _, body = data.request()
            is_stream = b'"stream": false' not in body
            data.answer(exchange, STREAMED + chunk(LINE + DONE) + chunk(b"") if is_stream else counted())
            if stop.is_set():
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with Wire(node.hub.port) as wire:
        for body in (GENERATE, STREAM) * 2:
            wire.send(request(body=body))
            wire.answer()
        gc.collect()
        gc.disable()
        try:
            for body in (GENERATE, STREAM) * 5:
                wire.send(request(body=body))
                wire.answer()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(thing).__name__ for thing in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        stop.set()
        wire.send(request(body=GENERATE))
        wire.answer()
    thread.join(5)
    assert left == []
