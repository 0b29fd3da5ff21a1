"""The frames that go the long way, and what the library makes of them."""

from __future__ import annotations

from websockets.frames import Opcode

from hive.wire.link_odd_frames import OddFrames
from hive.wire.link_rules import MAX_PINGS

from .linking import CLOSE, CONTINUATION, NOT_LAST, PING, TEXT, frame


def test_frames_come_out_as_they_came_in() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.take(frame(TEXT & NOT_LAST, b"a") + frame(CONTINUATION, b"b")) == []
    assert [odd.next_frame(), odd.next_frame()] == [(Opcode.TEXT, b"a", False), (Opcode.CONT, b"b", True)]
    assert not odd.frames


def test_a_ping_is_answered_with_its_payload() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.take(frame(PING, b"hello")) == [b"\x8a\x05hello"]


def test_what_has_come_of_a_fragmented_message_is_counted() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.gathered_bytes is None
    odd.take(frame(TEXT & NOT_LAST, b"abc"))
    assert odd.gathered_bytes == 3
    odd.take(frame(CONTINUATION, b"d"))
    assert odd.gathered_bytes is None


def test_a_message_above_the_limit_closes_the_socket() -> None:
    odd = OddFrames(is_hub=True)
    odd.limit(3)
    out = odd.take(frame(TEXT, b"abcd"))
    assert not odd.is_open
    assert odd.sent_close is not None
    assert odd.sent_close.code == 1009
    assert out[0].startswith(b"\x88")


def test_a_frame_without_the_mask_that_is_due_closes_the_socket() -> None:
    odd = OddFrames(is_hub=True)
    odd.take(frame(TEXT, b"a", mask=None))
    assert odd.sent_close is not None
    assert odd.sent_close.code == 1002


def test_a_closing_handshake_from_the_other_end_is_answered() -> None:
    odd = OddFrames(is_hub=True)
    out = odd.take(frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
    assert odd.received_close is not None
    assert (odd.received_close.code, odd.received_close.reason) == (1000, "bye")
    assert out[0].startswith(b"\x88")


def test_a_closing_handshake_from_here_is_one_frame() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.close(1001, "away") == [b"\x88\x06" + (1001).to_bytes(2, "big") + b"away"]
    assert not odd.is_open


def test_a_text_is_gathered_until_it_is_whole() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.is_text(Opcode.TEXT)
    assert not odd.is_text(Opcode.CONT)
    assert odd.gather(b"a", is_last=False, max_bytes=10) is None
    assert odd.is_text(Opcode.CONT)
    assert odd.gather(b"b", is_last=True, max_bytes=10) == b"ab"
    assert not odd.is_text(Opcode.CONT)


def test_a_text_above_the_limit_is_not_gathered_further() -> None:
    odd = OddFrames(is_hub=True)
    assert odd.gather(b"abc", is_last=False, max_bytes=3) is None
    assert odd.gather(b"d", is_last=False, max_bytes=3) == b"abcd"


def test_pings_are_counted_between_two_ticks() -> None:
    odd = OddFrames(is_hub=True)
    assert not any(odd.has_too_many_pings() for _ in range(MAX_PINGS))
    assert odd.has_too_many_pings()
    odd.tick()
    assert not odd.has_too_many_pings()
