"""What a socket of a link reads from frames, what it refuses, and when it gives the other end up."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.protocol import Side as LibrarySide

from hive.wire.link_rules import MAX_BINARY_BYTES, MAX_CONTROL_BYTES, MAX_PINGS, MAX_TEXT_BYTES, CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side

from .feeding import cut_at, cuts, mutations, one_by_one
from .linking import BINARY, CLOSE, CONTINUATION, NOT_LAST, PING, PONG, TEXT, frame, messages, said

BYE = b"\x03\xe8bye"


def hub() -> LinkSocket:
    socket = LinkSocket(Side.HUB, 0.0)
    socket.limit(MAX_TEXT_BYTES, MAX_BINARY_BYTES)
    return socket


def node() -> LinkSocket:
    return LinkSocket(Side.NODE, 0.0)


# --- in ---


def test_reads_the_frames_of_the_specification() -> None:
    """RFC 6455, 5.7."""
    masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    assert messages(hub(), [masked]) == ["Hello"]
    assert messages(node(), [b"\x81\x05Hello"]) == ["Hello"]
    assert messages(node(), [b"\x01\x03Hel\x80\x02lo"]) == ["Hello"]
    assert messages(node(), [b"\x82\x7e\x01\x00" + bytes(256)]) == [bytes(256)]
    assert messages(node(), [b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536)]) == [bytes(65536)]


def test_reads_messages_one_after_the_other() -> None:
    stream = frame(TEXT, b"{}") + frame(BINARY, b"abc") + frame(BINARY) + frame(TEXT, "é".encode())
    assert messages(hub(), [stream]) == ["{}", b"abc", b"", "é"]
    assert messages(hub(), one_by_one(stream)) == ["{}", b"abc", b"", "é"]


def test_messages_wait_until_they_are_taken() -> None:
    socket = hub()
    socket.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(TEXT, b"3")[:4], 0.0)
    assert socket.next_message() == "1"
    socket.receive(b"", 0.0)
    socket.receive(frame(TEXT, b"3")[4:] + frame(TEXT, b"4"), 0.0)
    assert [socket.next_message() for _ in range(4)] == ["2", "3", "4", None]


def test_fragments_of_text_are_joined_and_fragments_of_bytes_are_passed_on() -> None:
    text = frame(TEXT & NOT_LAST, b"a") + frame(0, b"\xc3") + frame(PING) + frame(CONTINUATION, b"\xa9")
    data = frame(BINARY & NOT_LAST, b"xy") + frame(0) + frame(PONG) + frame(CONTINUATION, b"z")
    assert messages(hub(), [text + data + text]) == ["aé", b"xy", b"z", "aé"]


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    socket = hub()
    assert messages(socket, [frame(PING, b"abc")]) == []
    assert socket.take_output() == frame(PONG, b"abc", mask=None)
    assert socket.take_output() == b""


def test_too_many_pings_close() -> None:
    socket = hub()
    for _ in range(3):
        messages(socket, [frame(PING) * MAX_PINGS])
        socket.tick(1.0)
    assert socket.closed is None
    messages(socket, [frame(PING) * (MAX_PINGS + 1)])
    assert socket.closed == Closed(CloseCode.VIOLATION, "too many pings", is_ours=True)


BAD_FRAMES = {
    "not masked": (frame(TEXT, b"{}", mask=None), CloseCode.BAD_FRAME),
    "reserved bit 1": (frame(TEXT | 0x40, b"{}"), CloseCode.BAD_FRAME),
    "reserved bit 2": (frame(BINARY | 0x20, b"{}"), CloseCode.BAD_FRAME),
    "reserved bit 3": (frame(TEXT | 0x10, b"{}"), CloseCode.BAD_FRAME),
    "reserved opcode": (frame(0x83, b"{}"), CloseCode.BAD_FRAME),
    "reserved control opcode": (frame(0x8B), CloseCode.BAD_FRAME),
    "continuation of nothing": (frame(CONTINUATION, b"{}"), CloseCode.BAD_FRAME),
    "text within text": (frame(TEXT & NOT_LAST, b"{") + frame(TEXT, b"}"), CloseCode.BAD_FRAME),
    "bytes within text": (frame(TEXT & NOT_LAST, b"{") + frame(BINARY, b"}"), CloseCode.BAD_FRAME),
    "ping in fragments": (frame(PING & NOT_LAST), CloseCode.BAD_FRAME),
    "long ping": (frame(PING, bytes(126)), CloseCode.BAD_FRAME),
    "close of one byte": (frame(CLOSE, b"\x03"), CloseCode.BAD_FRAME),
    "close without a legal code": (frame(CLOSE, b"\x03\xed"), CloseCode.BAD_FRAME),
    "close within a message": (frame(TEXT & NOT_LAST, b"{") + frame(CLOSE, BYE), CloseCode.BAD_FRAME),
    "reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), CloseCode.NOT_TEXT),
    "not UTF-8": (frame(TEXT, b"\xff"), CloseCode.NOT_TEXT),
    "not UTF-8 in fragments": (frame(TEXT & NOT_LAST, b"\xc3") + frame(CONTINUATION, b"a"), CloseCode.NOT_TEXT),
    "long text": (frame(TEXT, bytes(MAX_TEXT_BYTES + 1)), CloseCode.TOO_BIG),
    "long text in fragments": (
        frame(TEXT & NOT_LAST, b"a" * MAX_TEXT_BYTES) + frame(CONTINUATION, b"a"),
        CloseCode.TOO_BIG,
    ),
    "long text in endless fragments": (frame(TEXT & NOT_LAST, b"a") + frame(0, b"a") * 5000, CloseCode.TOO_BIG),
    "huge frame": (frame(BINARY, length=MAX_BINARY_BYTES + 1), CloseCode.TOO_BIG),
    "frame of 2^63 bytes": (frame(BINARY, length=1 << 63), CloseCode.TOO_BIG),
    "huge message in fragments": (
        frame(BINARY & NOT_LAST, b"a") + frame(0, length=MAX_BINARY_BYTES),
        CloseCode.TOO_BIG,
    ),
}


@pytest.mark.parametrize(("stream", "code"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_frame_against_the_rules_closes(stream: bytes, code: int) -> None:
    for pieces in ([stream], one_by_one(stream)):
        socket = hub()
        good = messages(socket, [frame(TEXT, b"good"), *pieces, frame(TEXT, b"ghost")])
        assert (good[0], "ghost" in good) == ("good", False)
        assert socket.closed is not None
        assert (socket.closed.code, socket.closed.is_ours) == (code, True)
        assert said(socket) == [f"closed {code}"]


def test_a_hub_that_masks_breaks_the_rules_too() -> None:
    socket = node()
    assert messages(socket, [frame(TEXT, b"{}")]) == []
    assert socket.closed is not None
    assert socket.closed.code == CloseCode.BAD_FRAME


def test_the_longest_messages_are_read() -> None:
    text, data = b"a" * MAX_TEXT_BYTES, bytes(MAX_BINARY_BYTES)
    assert messages(hub(), [frame(TEXT, text) + frame(BINARY, data)]) == [text.decode(), data]
    control = b"a" * MAX_CONTROL_BYTES
    stream = frame(TEXT, control, mask=None)
    assert messages(node(), cut_at(stream, range(0, len(stream), 65536))) == [control.decode()]


def test_the_held_part_of_an_incomplete_message_is_bounded() -> None:
    """Empty fragments add nothing, so their number is unbounded."""
    socket = hub()
    messages(socket, [frame(TEXT & NOT_LAST, b"a"), *itertools.repeat(frame(0) * 100, 100)])
    assert socket.closed is None
    assert messages(socket, [frame(CONTINUATION, b"b")]) == ["ab"]


# --- out ---


def test_the_hub_writes_plain_frames() -> None:
    socket = hub()
    socket.send_text(b"{}")
    socket.send_binary(b"abc")
    assert socket.take_output() == b"\x81\x02{}\x82\x03abc"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MAX_BINARY_BYTES])
@pytest.mark.parametrize("side", list(Side))
def test_messages_of_one_end_are_read_by_the_other(side: Side, size: int) -> None:
    socket, data = LinkSocket(side, 0.0), bytes(range(256)) * (size // 256) + bytes(size % 256)
    socket.send_binary(data)
    socket.send_binary(memoryview(data))
    assert said(socket) == [data, data]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_every_length_is_read_whole_and_cut(size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    stream = frame(BINARY, payload) + frame(TEXT, b"{}")
    assert messages(hub(), [stream]) == [payload, "{}"]
    assert messages(hub(), cut_at(stream, [1, 2, 3, 7, 8, 9, 13, 14, 15, len(stream) - 9])) == [payload, "{}"]


def test_a_limit_holds_for_frames_of_every_length() -> None:
    for size in (101, 126, 1000):
        socket = hub()
        socket.limit(100, 100)
        assert messages(socket, [frame(BINARY, bytes(100)) + frame(BINARY, bytes(size))]) == [bytes(100)]
        assert socket.closed is not None
        assert socket.closed.code == CloseCode.TOO_BIG


def test_parts_are_sent_as_one_message_without_a_copy() -> None:
    for parts in ((b"", b""), (b"head", b"body"), (bytes(100), bytes(26)), (bytes(40_000), bytes(30_000))):
        socket = hub()
        socket.send_parts(*parts)
        assert messages(node(), [socket.take_output()]) == [b"".join(parts)]
        assert messages(node(), [hub().binary_header(len(parts[1])), parts[1]]) == [parts[1]]
    closed = hub()
    closed.close(CloseCode.GOING_AWAY)
    closed.take_output()
    closed.send_parts(b"late")
    assert closed.take_output() == b""


def test_a_node_masks_each_frame_anew() -> None:
    socket = node()
    written = set()
    for _ in range(20):
        socket.send_text(b"{}")
        written.add(socket.take_output())
    assert len(written) > 1
    assert all(each[:2] == b"\x81\x82" and len(each) == 8 for each in written)


# --- the end ---


def test_a_close_of_the_peer_is_echoed() -> None:
    socket = hub()
    assert messages(socket, [frame(TEXT, b"last") + frame(CLOSE, BYE) + frame(TEXT, b"ghost")]) == ["last"]
    assert socket.closed == Closed(1000, "bye", is_ours=False)
    assert socket.take_output() == frame(CLOSE, BYE, mask=None)
    assert socket.is_finished


def test_a_close_without_code_is_echoed() -> None:
    socket = hub()
    assert messages(socket, [frame(CLOSE)]) == []
    assert socket.closed == Closed(1005, "", is_ours=False)
    assert socket.take_output() == b"\x88\x00"


def test_a_close_of_our_own_waits_for_the_echo() -> None:
    socket = hub()
    socket.receive(frame(TEXT, b"{}") + frame(TEXT, b"{}")[:3], 1.0)
    socket.close(CloseCode.SESSION_OVER, "over")
    socket.close(CloseCode.VIOLATION, "twice")
    socket.send_text(b"late")
    socket.send_binary(b"late")
    assert socket.take_output() == b"\x88\x06\x0f\xaaover"
    assert socket.closed == Closed(CloseCode.SESSION_OVER, "over", is_ours=True)
    assert not socket.is_finished
    rest = frame(TEXT, b"{}")[3:] + frame(BINARY, b"ghost") + frame(CLOSE, b"\x0f\xaaover")
    assert messages(socket, one_by_one(rest), 1.0) == []
    assert socket.is_finished


def test_a_missing_echo_is_waited_for_two_seconds() -> None:
    socket = hub()
    socket.tick(1.0)
    socket.close(CloseCode.SESSION_OVER)
    socket.tick(3.0)
    assert not socket.is_finished
    socket.tick(3.1)
    assert socket.is_finished


def test_a_long_reason_is_cut_between_characters() -> None:
    socket = hub()
    socket.close(CloseCode.MALFORMED, "é" * 100)
    assert socket.take_output() == frame(CLOSE, b"\x0f\xa0" + "é".encode() * 61, mask=None)


def test_a_broken_connection_closes_the_socket() -> None:
    for stream in (b"", frame(TEXT, b"{}")[:4]):
        socket = hub()
        messages(socket, [stream])
        socket.receive_eof(1.0)
        socket.receive_eof(1.0)
        assert socket.closed == Closed(CloseCode.BROKE_OFF, "the connection broke off", is_ours=False)
        assert socket.is_finished
        socket.close(CloseCode.VIOLATION)
        assert socket.take_output() == b""


# --- time ---


def sweep(socket: LinkSocket, start: float, end: float, *, is_excused: bool = False, patience: float = 10.0) -> float:
    """Tick twice a second until the socket closes; return the time of that."""
    now = start
    while now < end and socket.closed is None:
        now += 0.5
        socket.tick(now, is_excused=is_excused, patience=patience)
    return now


def test_the_hub_pings_every_15_seconds() -> None:
    socket = hub()
    pings = []
    for half in range(1, 121):
        now = half / 2
        socket.tick(now)
        if output := socket.take_output():
            assert output == b"\x89\x00"
            pings.append(now)
            messages(socket, [frame(PONG)], now)
    assert pings == [15, 30, 45, 60]


@pytest.mark.parametrize(("patience", "end"), [(10.0, 25.5), (30.0, 45.5)])
def test_a_ping_without_answer_closes(patience: float, end: float) -> None:
    socket = hub()
    assert sweep(socket, 0, 60, patience=patience) == end
    assert socket.closed == Closed(CloseCode.SILENT, "no answer to a ping", is_ours=True)


def test_any_byte_is_an_answer() -> None:
    """A pong may wait behind a long answer on a slow line."""
    socket = hub()
    sweep(socket, 0, 24)
    socket.receive(frame(BINARY, bytes(1000))[:1], 24.0)
    assert sweep(socket, 24, 100) == 40.5


def test_the_peer_is_not_judged_while_reading_is_paused() -> None:
    socket = hub()
    sweep(socket, 0, 20)
    sweep(socket, 20, 90, is_excused=True)
    assert socket.closed is None
    assert sweep(socket, 90, 200) == 100.5


def test_the_peer_is_not_judged_after_a_stall_of_our_own() -> None:
    socket = hub()
    sweep(socket, 0, 20)
    assert not socket.tick(60.0)
    assert socket.closed is None
    assert not socket.tick(60.5)
    assert socket.closed is not None


def test_a_node_closes_after_a_silent_hub() -> None:
    socket = node()
    messages(socket, [frame(PING, mask=None)], 3.0)
    assert sweep(socket, 3, 60) == 28.5
    assert socket.closed == Closed(CloseCode.SILENT, "the hub is silent", is_ours=True)


def test_a_node_that_does_not_read_does_not_judge_the_hub() -> None:
    socket = node()
    sweep(socket, 0, 100, is_excused=True)
    assert socket.closed is None
    assert sweep(socket, 100, 200) == 125.5


# --- any cut, fuzz, and what the library alone would say ---

WHOLE = (
    frame(TEXT, b'{"type":"accepted"}') + frame(BINARY, bytes(200)) + frame(PING, b"a") + frame(TEXT & NOT_LAST, b"a")
    + frame(PONG) + frame(CONTINUATION, b"b") + frame(BINARY & NOT_LAST, b"c") + frame(CONTINUATION, b"d")
)  # fmt: skip
CORPUS = [WHOLE, WHOLE + frame(CLOSE, BYE) + WHOLE, *(stream for stream, _ in BAD_FRAMES.values())]
Reading = tuple[list[str | bytes], int | None]


def read(pieces: list[bytes]) -> Reading:
    socket = hub()
    found = messages(socket, pieces)
    return found, socket.closed.code if socket.closed else None


def read_by_library(stream: bytes) -> Reading:
    """Read a stream with `websockets` alone, by the same rules about text and fragments."""
    protocol = Protocol(LibrarySide.SERVER, state=State.OPEN, max_size=MAX_BINARY_BYTES)
    protocol.receive_data(stream)
    found: list[str | bytes] = []
    text: bytes | None = None
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        data = bytes(event.data)
        if event.opcode is Opcode.TEXT or (event.opcode is Opcode.CONT and text is not None):
            text = (text or b"") + data
            if len(text) > MAX_TEXT_BYTES:
                return found, CloseCode.TOO_BIG
            if event.fin:
                try:
                    found.append(text.decode())
                except UnicodeDecodeError:
                    return found, CloseCode.NOT_TEXT
                text = None
        elif event.opcode in (Opcode.BINARY, Opcode.CONT) and data:
            found.append(data)
    end = protocol.close_rcvd if protocol.parser_exc is None else protocol.close_sent
    return found, end.code if end else None


@given(st.sampled_from(CORPUS).flatmap(lambda data: st.tuples(st.just(data), cuts(data))))
@settings(deadline=None, max_examples=150)
def test_any_cut_gives_the_same_messages(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    assert read(pieces) == read([whole])


@given(mutations([each for each in CORPUS if len(each) < 3000]).flatmap(lambda d: st.tuples(st.just(d), cuts(d))))
@settings(deadline=None, max_examples=400)
def test_the_short_way_reads_the_same_messages_as_the_library(case: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = case
    found, code = read(pieces)
    assert ([each for each in found if each != b""], code) == read_by_library(whole)


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from(list(Side)))
@settings(deadline=None, max_examples=300)
def test_arbitrary_bytes_never_raise(pieces: list[bytes], side: Side) -> None:
    socket = LinkSocket(side, 0.0)
    messages(socket, pieces)
    socket.close(CloseCode.GOING_AWAY)
    messages(socket, pieces)
    socket.receive_eof(0.0)
    assert socket.is_finished


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5).map(json.dumps)


@given(st.lists(JSON.map(str.encode) | st.binary(max_size=300), max_size=8), st.data())
@settings(deadline=None, max_examples=150)
def test_the_reader_returns_what_was_sent(payloads: list[bytes], data: st.DataObject) -> None:
    sender = node()
    for payload in payloads:
        sender.send_binary(payload)
    assert messages(hub(), data.draw(cuts(sender.take_output()))) == payloads
