"""What a client is told, state by state: nothing twice, and an end that fits what was said before."""

from __future__ import annotations

import pytest

from hive import errors
from hive.dialects.error_shapes import ERRORS
from hive.dialects.tasks import Dialect
from hive.errors import Fault
from hive.hub.answer import Answer, EndedAnswer, HeldAnswer, PassingAnswer, StreamingAnswer
from hive.wire.responses import ResponseHead

from .client_wire import ClientWire

TOKEN = b'{"response":"a","done":false}\n'
FAULT = Fault(errors.NODE_BROKE_OFF, "node 'a': it broke")
LINE = b'{"error":"node \'a\': it broke"}\n'


def made(*, is_paused: bool = False) -> tuple[Answer, ClientWire]:
    wire = ClientWire(is_paused=is_paused)
    answer = Answer(wire.stream(), ERRORS[Dialect.OLLAMA])
    answer.fields = b"X-Own: 1\r\n"
    return answer, wire


def head(content_type: bytes = b"application/json", length: int | None = None) -> ResponseHead:
    return ResponseHead(200, [(b"content-type", content_type)], content_type, length, length is None)


def test_a_fault_of_which_nothing_was_said_is_a_whole_answer() -> None:
    answer, wire = made()
    assert not answer.has_begun
    answer.tell(FAULT)
    assert wire.sent.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"X-Own: 1\r\n" in wire.sent
    assert wire.body == b'{"error":"node \'a\': it broke"}'
    assert (type(answer.state), wire.is_answered) == (EndedAnswer, True)


def test_what_an_attempt_left_is_dropped_when_the_next_one_begins() -> None:
    answer, wire = made()
    first = answer.hold()
    assert answer.hold() is first, "nothing is in it"
    first.pieces.append(b"half")
    first.size = 4
    second = answer.hold()
    assert (second.body, second.tail, second.size) == (b"", b"", 0)
    assert answer.state is second
    assert wire.sent == b""


def test_a_whole_answer_carries_the_lines_of_engine_and_hub() -> None:
    answer, wire = made()
    answer.send_whole(head(length=2), b"{}")
    assert wire.sent == b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Own: 1\r\nContent-Length: 2\r\n\r\n{}"
    assert answer.has_begun


def test_what_passes_is_cut_by_a_fault() -> None:
    answer, wire = made()
    answer.pass_on(head(length=9), b'{"a":')
    assert type(answer.state) is PassingAnswer
    answer.tell(FAULT)
    assert wire.body == b'{"a":'
    assert wire.is_cut


def test_a_stream_ends_with_the_fault_in_its_dialect() -> None:
    answer, wire = made()
    out = answer.give(head(b"application/x-ndjson"), TOKEN)
    assert b"X-Accel-Buffering: no\r\n" in wire.sent
    out.write(TOKEN)
    answer.tell(FAULT)
    assert wire.body == TOKEN + TOKEN + LINE
    assert wire.sent.endswith(b"0\r\n\r\n")
    assert not wire.is_cut


def test_a_fault_inside_a_long_unit_begins_on_a_line_of_its_own() -> None:
    answer, wire = made()
    out = answer.give(head(b"application/x-ndjson"), b'{"response":"aaaa')
    out.rest = b"\n"
    answer.tell(FAULT)
    assert wire.body == b'{"response":"aaaa\n' + LINE


def test_what_was_said_outlives_an_attempt() -> None:
    """A stream that another attempt may go on with: the head is said once."""
    answer, wire = made()
    answer.give(head(b"application/x-ndjson"), TOKEN)
    held = answer.hold()
    assert type(answer.state) is StreamingAnswer
    assert held.body == b""
    answer.give(head(b"application/x-ndjson"), TOKEN)
    answer.finish()
    assert wire.body == TOKEN + TOKEN
    assert wire.sent.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("end", ["whole", "stream", "fault"])
def test_after_its_end_nothing_is_said(end: str) -> None:
    answer, wire = made()
    if end == "whole":
        answer.send_whole(head(length=2), b"{}")
    elif end == "stream":
        answer.give(head(b"application/x-ndjson"), TOKEN)
        answer.finish()
    else:
        answer.tell(FAULT)
    before = wire.sent
    answer.tell(Fault(errors.INTERNAL, "a mistake"))
    assert (wire.sent, wire.is_cut) == (before, False)


def test_a_client_that_takes_nothing_from_the_very_beginning_pauses_its_engine() -> None:
    paused: list[bool] = []
    answer, _ = made(is_paused=True)
    answer.client.on_pause = lambda: paused.append(True)
    answer.give(head(b"application/x-ndjson"), TOKEN)
    assert paused == [True]


def test_the_engine_says_that_it_unloads_in_a_short_answer_alone() -> None:
    held = HeldAnswer([b'{"done":true,"done_reason":"unload"}'], 36)
    assert held.tells_unload
    held.size = 2_000
    assert not held.tells_unload
    assert not HeldAnswer().tells_unload
