"""The control socket: how each end reacts to hello, welcome and heartbeats, and to their absence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.wire.link_control import ControlState, HeartbeatDue, HubArrival, HubControl, NodeControl, Suspected
from hive.wire.link_messages import (
    Beat,
    Bye,
    Draining,
    EngineBeat,
    Heartbeat,
    Hello,
    JoinData,
    Links,
    MachineState,
    Refresh,
    Report,
    ReportedEngine,
    Welcome,
    json_object,
)
from hive.wire.link_rules import MAX_CONTROL_BYTES, CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side

from .feeding import cuts, one_by_one
from .linking import BINARY, CLOSE, PING, frame, from_hub, from_node, said

SESSION = "s" * 43
HELLO = Hello("0123456789abcdef", "hive 0.1.0", engines=(ReportedEngine("ollama", "ollama"),))
WELCOME = Welcome("desk", SESSION, 2.0, 15.0, 8)
ENGINES = (ReportedEngine("ollama", "ollama", tags=json_object(b'{"models":[]}')),)


def arrival() -> HubArrival:
    return HubArrival(LinkSocket(Side.HUB, 0.0), 0.0)


def hub(*, is_running: bool = True) -> HubControl:
    control = HubControl(LinkSocket(Side.HUB, 0.0), 0.0)
    if is_running:
        control.welcome("desk", SESSION, 8, 0.0)
        control.socket.take_output()
    return control


def node(*, is_running: bool = True) -> NodeControl:
    control = NodeControl(LinkSocket(Side.NODE, 0.0), HELLO, 0.0)
    if is_running:
        assert control.receive(from_hub(WELCOME), 0.0) == [WELCOME]
    control.socket.take_output()
    return control


def closed(code: CloseCode, reason: str) -> Closed:
    return Closed(code, reason, is_ours=True)


# --- arrival ---


@pytest.mark.parametrize("first", [HELLO, JoinData(SESSION)], ids=["hello", "data"])
def test_the_first_message_says_what_a_socket_is(first: Hello | JoinData) -> None:
    for pieces in ([from_node(first)], one_by_one(from_node(first))):
        guest = arrival()
        events = [event for piece in pieces for event in guest.receive(piece, 1.0)]
        assert [type(event) for event in events] == [type(first)]
        assert guest.socket.closed is None


def test_bytes_behind_the_first_message_wait_for_the_next_machine() -> None:
    guest = arrival()
    assert guest.receive(from_node(JoinData(SESSION)) + from_node(b"early", BINARY), 1.0) == [JoinData(SESSION)]
    events = HubControl(guest.socket, 1.0).receive(b"", 1.0)
    assert events == [closed(CloseCode.VIOLATION, "a binary message on a control socket")]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (from_node(b"hello", BINARY), CloseCode.VIOLATION),
        (from_node('{"type":"new"}'), CloseCode.VIOLATION),
        (from_node('{"type":"heartbeat","seq":1}'), CloseCode.MALFORMED),
        (from_node('{"type":"hello"}'), CloseCode.MALFORMED),
        (b"GET / HTTP/1.1\r\n", CloseCode.BAD_FRAME),
    ],
    ids=["bytes", "unknown", "not the first", "incomplete", "HTTP"],
)
def test_a_wrong_first_message_closes_the_socket(stream: bytes, code: CloseCode) -> None:
    guest = arrival()
    (event,) = guest.receive(stream, 1.0)
    assert isinstance(event, Closed)
    assert (event.code, event.is_ours) == (code, True)
    assert said(guest.socket) == [f"closed {code}"]


def test_the_first_message_must_come_within_ten_seconds() -> None:
    guest = arrival()
    events = [guest.tick(half / 2) for half in range(22)]
    assert events == [[]] * 21 + [[closed(CloseCode.TOO_LATE, "no first message")]]


def test_a_socket_may_close_before_its_first_message() -> None:
    assert arrival().receive(frame(CLOSE, b"\x03\xe9"), 1.0) == [Closed(1001, "", is_ours=False)]


# --- the hub's end ---


def test_the_hub_sends_welcome() -> None:
    control = hub(is_running=False)
    control.welcome("desk", SESSION, 8, 1.0)
    assert said(control.socket) == [
        f'{{"type":"welcome","node":"desk","session":"{SESSION}","heartbeat_s":2.0,"ping_s":15.0,"links":8}}'
    ]
    assert control.state is ControlState.RUNNING


def test_the_hub_sends_links_refresh_and_bye() -> None:
    control = hub()
    control.want_links(12)
    control.refresh("ollama")
    control.say_bye("the hub stops")
    assert said(control.socket) == [
        '{"type":"links","want":12}',
        '{"type":"refresh","engine":"ollama"}',
        '{"type":"bye","reason":"the hub stops"}',
    ]


def test_each_heartbeat_is_answered() -> None:
    control = hub()
    events = control.receive(from_node(Heartbeat(1)) + from_node(Heartbeat(2)), 1.0)
    assert events == [Heartbeat(1), Heartbeat(2)]
    assert said(control.socket) == ['{"type":"beat","seq":1}', '{"type":"beat","seq":2}']


def test_messages_of_the_node_are_events_of_the_hub() -> None:
    control = hub()
    report, draining = control.receive(from_node(Report(ENGINES)) + from_node(Draining()), 1.0)
    assert isinstance(report, Report)
    assert (report.engines[0].id, bytes(report.engines[0].tags)) == ("ollama", b'{"models":[]}')
    assert draining == Draining()
    assert control.socket.take_output() == b""


def test_the_node_sends_nothing_between_hello_and_welcome() -> None:
    event = closed(CloseCode.VIOLATION, "a message before welcome")
    assert hub(is_running=False).receive(from_node(Heartbeat(1)), 1.0) == [event]


def test_a_refused_node_gets_the_reason() -> None:
    control = hub(is_running=False)
    control.close(CloseCode.NAME_TAKEN, "another machine uses this key")
    assert control.socket.take_output() == frame(CLOSE, b"\x0f\xa8another machine uses this key", mask=None)
    assert control.receive(from_node(Heartbeat(1)), 1.0) == control.tick(1.0) == []


def test_a_silent_node_is_suspect_then_its_session_ends() -> None:
    control = hub()
    events = {half / 2: events for half in range(30) if (events := control.tick(half / 2))}
    assert events == {5.5: [Suspected()], 10.5: [closed(CloseCode.HEARTBEAT_LOST, "no heartbeat")]}
    assert control.state is ControlState.CLOSED


def test_a_heartbeat_lifts_suspicion() -> None:
    control = hub()
    suspected = []
    for half in range(60):
        now = half / 2
        if half % 14 == 0:
            control.receive(from_node(Heartbeat(half)), now)
            assert not control.is_suspect
        suspected += [now for event in control.tick(now) if event == Suspected()]
    assert suspected == [5.5, 12.5, 19.5, 26.5]


def test_other_messages_are_no_heartbeat() -> None:
    """A heartbeat comes from the one task of the agent that must not hang."""
    control = hub()
    for half in range(11):
        control.receive(from_node(Report(())) + frame(PING), half / 2)
        assert control.tick(half / 2) == []
    assert control.tick(5.5) == [Suspected()]


def test_the_hub_does_not_blame_its_nodes_for_its_own_stall() -> None:
    control = hub()
    assert control.tick(1.0) == []
    assert control.tick(13.0) == []
    assert control.receive(from_node(Heartbeat(1)), 13.1) == [Heartbeat(1)]
    assert control.tick(13.5) == []


# --- the node's end ---


def test_the_node_says_hello() -> None:
    control = NodeControl(LinkSocket(Side.NODE, 0.0), HELLO, 0.0)
    guest = arrival()
    (hello,) = guest.receive(control.socket.take_output(), 0.0)
    assert isinstance(hello, Hello)
    assert (hello.instance, hello.engines[0].id) == (HELLO.instance, "ollama")


def test_heartbeats_are_due_as_often_as_the_hub_said() -> None:
    control = node(is_running=False)
    assert control.tick(0.5) == []
    assert control.receive(from_hub(Welcome("desk", SESSION, 1.0, 15.0, 8)), 1.0)[0].node == "desk"  # type: ignore[union-attr]
    due = [half / 2 for half in range(2, 10) if control.tick(half / 2) == [HeartbeatDue()]]
    assert due == [1.0, 2.0, 3.0, 4.0]


def test_the_node_sends_report_heartbeat_and_draining() -> None:
    control = node()
    control.heartbeat(MachineState(0.5), {"ollama": EngineBeat(True)})
    control.heartbeat(MachineState(), {})
    control.report(ENGINES)
    control.say_draining()
    stream = control.socket.take_output()
    events = hub().receive(stream, 1.0)
    assert events[:2] == [Heartbeat(1, MachineState(0.5), {"ollama": EngineBeat(True)}), Heartbeat(2)]
    assert [type(event) for event in events[2:]] == [Report, Draining]


def test_messages_of_the_hub_are_events_of_the_node() -> None:
    wishes = [Links(3), Refresh("ollama"), Bye("the hub stops")]
    stream = b"".join(from_hub(wish) for wish in [*wishes, Beat(1)]) + from_hub('{"type":"hint"}')
    assert node().receive(stream, 1.0) == wishes


@pytest.mark.parametrize(
    ("is_running", "message", "reason"),
    [(True, WELCOME, "welcome while running"), (False, Links(1), "links while greeting")],
)
def test_a_message_in_the_wrong_state_closes_the_socket(
    is_running: bool, message: Welcome | Links, reason: str
) -> None:
    control = node(is_running=is_running)
    assert control.receive(from_hub(message), 1.0) == [closed(CloseCode.VIOLATION, reason)]
    assert control.state is ControlState.CLOSED


@pytest.mark.parametrize("is_running", [True, False])
def test_a_silent_hub_is_given_up_after_ten_seconds(is_running: bool) -> None:
    control = node(is_running=is_running)
    ends = [half / 2 for half in range(40) if closed(CloseCode.SILENT, "the hub is silent") in control.tick(half / 2)]
    assert ends == [10.5]


def test_beats_keep_the_hub_alive() -> None:
    control = node()
    for half in range(100):
        if half % 8 == 0:
            assert control.receive(from_hub(Beat(half)), half / 2) == []
        assert all(event == HeartbeatDue() for event in control.tick(half / 2))


# --- both ---


@pytest.mark.parametrize("control", [hub(), node()], ids=["hub", "node"])
def test_a_binary_message_closes_a_control_socket(control: HubControl | NodeControl) -> None:
    frame_of = from_node if isinstance(control, HubControl) else from_hub
    event = closed(CloseCode.VIOLATION, "a binary message on a control socket")
    assert control.receive(frame_of(b"{}", BINARY), 1.0) == [event]
    assert "closed" in repr(control)


def test_a_report_may_be_large_but_not_endless() -> None:
    listing = json_object(b'{"models":["' + b"a" * (4 << 20) + b'"]}')
    (event,) = hub().receive(from_node(Report((ReportedEngine("a", "ollama", tags=listing),))), 1.0)
    assert isinstance(event, Report)
    (event,) = hub().receive(frame(0x81, length=MAX_CONTROL_BYTES + 1), 1.0)
    assert isinstance(event, Closed)
    assert event.code == CloseCode.TOO_BIG


def test_the_end_of_a_socket_is_one_event() -> None:
    for control in (hub(), node()):
        assert control.receive_eof(1.0) == [Closed(CloseCode.BROKE_OFF, "the connection broke off", is_ours=False)]
        assert control.receive_eof(1.0) == control.tick(1.5) == []
        assert control.state is ControlState.CLOSED


STREAM = from_node(Heartbeat(1)) + from_node(Draining()) + from_node("{") + from_node(Heartbeat(2))


@given(cuts(STREAM))
@settings(deadline=None, max_examples=100)
def test_any_cut_gives_the_same_events(pieces: list[bytes]) -> None:
    control = hub()
    events = [event for piece in pieces for event in control.receive(piece, 1.0)]
    assert events == hub().receive(STREAM, 1.0)
    assert isinstance(events[2], Closed)
    assert len(events) == 3


@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_never_raise(pieces: list[bytes], is_running: bool) -> None:
    ours, theirs, guest = hub(is_running=is_running), node(is_running=is_running), arrival()
    for piece in pieces:
        ours.receive(piece, 1.0)
        theirs.receive(piece, 1.0)
        guest.receive(piece, 1.0)
