"""What the machines of a link have in common, on the smallest one that can be."""

from __future__ import annotations

from hive.wire.link_machine import LinkMachine
from hive.wire.link_rules import MAX_TEXT_BYTES, PING_SECONDS, PONG_SECONDS, CloseCode, LinkError
from hive.wire.link_socket import Closed, LinkSocket, Side

from .linking import BINARY, from_node, said


class Echo(LinkMachine[str]):
    """Tells every text, refuses "bad", keeps "quiet" to itself."""

    def __init__(self, *, takes_one: bool = False) -> None:
        super().__init__(LinkSocket(Side.HUB, 0.0), 0.0)
        self.socket.limit(MAX_TEXT_BYTES, MAX_TEXT_BYTES)
        self._takes_one = takes_one
        self.closed_count = 0

    def _on_text(self, text: str) -> str | None:
        if text == "bad":
            raise LinkError("a bad word")
        return None if text == "quiet" else text

    def _on_time(self, now: float) -> str | None:
        return f"tick {now:g}"

    def _on_closed(self) -> None:
        self.closed_count += 1


def test_each_message_becomes_an_event_or_none() -> None:
    data = b"".join(map(from_node, ("a", "quiet", "b")))
    assert Echo().receive(data, 0.0) == ["a", "b"]


def test_a_machine_that_takes_one_message_leaves_the_rest_to_its_successor() -> None:
    first = Echo(takes_one=True)
    assert first.receive(from_node("a") + from_node("b"), 0.0) == ["a"]
    assert first.receive(b"", 0.0) == ["b"]


def test_a_message_against_the_protocol_closes_the_socket_and_ends_the_events() -> None:
    machine = Echo()
    events = machine.receive(from_node("a") + from_node("bad") + from_node("b"), 0.0)
    assert events == ["a", Closed(CloseCode.MALFORMED, "a bad word", is_ours=True)]
    assert said(machine.socket) == [f"closed {CloseCode.MALFORMED}"]


def test_a_binary_message_is_against_the_protocol_unless_the_role_takes_it() -> None:
    (closed,) = Echo().receive(from_node(b"x", BINARY), 0.0)
    assert isinstance(closed, Closed)
    assert closed.code == CloseCode.VIOLATION


def test_the_end_is_told_once_however_often_it_comes() -> None:
    machine = Echo()
    assert machine.receive_eof(1.0) == [Closed(CloseCode.BROKE_OFF, "the connection broke off", is_ours=False)]
    assert machine.receive_eof(2.0) == []
    assert machine.receive(from_node("a"), 2.0) == []
    assert machine.tick(3.0) == []
    assert machine.closed_count == 1


def test_a_caller_that_closes_hears_nothing_of_it() -> None:
    machine = Echo()
    machine.close(CloseCode.NORMAL, "enough")
    assert machine.receive_eof(1.0) == []
    assert machine.closed_count == 1


def test_time_brings_an_event_until_the_socket_is_closed() -> None:
    machine = Echo()
    assert machine.tick(1.0) == ["tick 1"]
    machine.close(CloseCode.NORMAL)
    assert machine.tick(2.0) == []


def test_silence_after_a_ping_ends_the_socket() -> None:
    machine = Echo()
    now, events = 0.0, []
    while not any(isinstance(event, Closed) for event in events):
        now += 1.0
        assert now < PING_SECONDS + PONG_SECONDS + 3
        events += machine.tick(now)
    assert isinstance(events[-1], Closed)
    assert events[-1].code == CloseCode.SILENT
