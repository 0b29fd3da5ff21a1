"""Exchanges on a data socket, one after the other: how each end reacts to each message in each state."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hive.wire.link_data import HubData, HubState, NodeData, NodeState
from hive.wire.link_messages import Accepted, Cancel, EndCode, Ended, EndError, Open
from hive.wire.link_rules import MAX_TEXT_BYTES, SENT_BINARY_BYTES, CloseCode
from hive.wire.link_socket import Closed, LinkSocket, Side

from .feeding import cuts, one_by_one
from .linking import BINARY, TEXT, frame, from_hub, from_node, said

SESSION = "s" * 43
REQUEST = b"GET /api/ps HTTP/1.1\r\nHost: ollama\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CANCELLED = EndError(EndCode.CANCELLED)


def hub(state: HubState = HubState.SPARE) -> HubData:
    """Return a hub's end in this state, with exchange r1."""
    data = HubData(LinkSocket(Side.HUB, 0.0), 0.0)
    if state is not HubState.SPARE:
        data.open("r1", "ollama", 0.0)
        data.send(REQUEST)
    if state is HubState.STREAMING:
        assert data.receive(from_node(Accepted("r1")), 0.0) == [Accepted("r1")]
    elif state is HubState.CANCELLING:
        data.cancel(0.0)
    elif state is HubState.CLOSED:
        data.close(CloseCode.GOING_AWAY)
    data.socket.take_output()
    assert data.state is state
    return data


def node(state: NodeState = NodeState.SPARE) -> NodeData:
    """Return a node's end in this state, with exchange r1."""
    data = NodeData(LinkSocket(Side.NODE, 0.0), SESSION, 0.0)
    if state is not NodeState.SPARE:
        assert data.receive(from_hub(Open("r1", "ollama")), 0.0) == [Open("r1", "ollama")]
    if state is NodeState.SERVING:
        data.accept("r1")
    elif state is NodeState.CLOSED:
        data.close(CloseCode.GOING_AWAY)
    data.socket.take_output()
    assert data.state is state
    return data


def closed(code: CloseCode, reason: str) -> Closed:
    return Closed(code, reason, is_ours=True)


# --- transcripts ---


def test_an_exchange_byte_by_byte() -> None:
    ours = hub()
    ours.open("r1", "ollama", 1.0)
    ours.send(REQUEST)
    assert ours.socket.take_output() == (
        b'\x81\x2b{"type":"open","id":"r1","engine":"ollama"}\x82\x26GET /api/ps HTTP/1.1\r\nHost: ollama\r\n\r\n'
    )
    stream = from_node(Accepted("r1")) + from_node(ANSWER, BINARY) + from_node(Ended("r1"))
    assert ours.receive(stream, 1.5) == [Accepted("r1"), ANSWER, Ended("r1")]
    assert ours.state is HubState.SPARE
    assert ours.socket.take_output() == b""


def test_a_node_serves() -> None:
    theirs = NodeData(LinkSocket(Side.NODE, 0.0), SESSION, 0.0)
    assert said(theirs.socket) == [f'{{"type":"data","session":"{SESSION}"}}']
    stream = from_hub(Open("r1", "ollama")) + from_hub(REQUEST, BINARY)
    assert theirs.receive(stream, 1.0) == [Open("r1", "ollama"), REQUEST]
    theirs.accept("r1")
    theirs.answer("r1", ANSWER)
    theirs.end("r1")
    assert said(theirs.socket) == ['{"type":"accepted","id":"r1"}', ANSWER, '{"type":"ended","id":"r1","error":null}']
    assert theirs.state is NodeState.SPARE


def test_the_first_byte_of_an_answer_accepts() -> None:
    theirs = node(NodeState.OPENED)
    theirs.answer("r1", b"H")
    assert said(theirs.socket) == ['{"type":"accepted","id":"r1"}', b"H"]


def test_a_refused_exchange_is_never_accepted() -> None:
    theirs = node(NodeState.OPENED)
    theirs.end("r1", EndError(EndCode.ENGINE_UNKNOWN, "no engine 'ollama'"))
    ended = Ended("r1", EndError("engine_unknown", "no engine 'ollama'"))
    output = theirs.socket.take_output()
    ours = hub(HubState.OPENING)
    assert ours.receive(output, 1.0) == [ended]
    assert ours.state is HubState.SPARE


def test_large_bodies_leave_in_pieces() -> None:
    body = bytes(range(256)) * 700
    ours, theirs = hub(HubState.OPENING), node(NodeState.SERVING)
    ours.send(body)
    theirs.answer("r1", body)
    for pieces in (said(ours.socket), said(theirs.socket)):
        assert [len(piece) for piece in pieces] == [SENT_BINARY_BYTES, SENT_BINARY_BYTES, 48128]
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == body


def test_no_empty_messages_are_sent_or_handed_on() -> None:
    ours, theirs = hub(HubState.STREAMING), node(NodeState.SERVING)
    ours.send(b"")
    theirs.answer("r1", b"")
    assert (ours.socket.take_output(), theirs.socket.take_output()) == (b"", b"")
    assert ours.receive(from_node(b"", BINARY), 1.0) == []
    assert theirs.receive(from_hub(b"", BINARY), 1.0) == []


# --- cancelling ---


@pytest.mark.parametrize("state", [HubState.OPENING, HubState.STREAMING])
def test_messages_after_a_cancel_are_discarded_until_ended(state: HubState) -> None:
    ours = hub(state)
    ours.cancel(1.0)
    assert ours.socket.take_output() == b'\x81\x1b{"type":"cancel","id":"r1"}'
    ghosts = from_node(Accepted("r1")) if state is HubState.OPENING else b""
    ghosts += from_node(ANSWER, BINARY) * 3
    assert ours.receive(ghosts, 1.5) == []
    assert ours.receive(from_node(Ended("r1", CANCELLED)), 1.5) == [Ended("r1", CANCELLED)]
    assert ours.state is HubState.SPARE
    ours.open("r2", "ollama", 2.0)
    assert ours.receive(from_node(Accepted("r2")) + from_node(b"x", BINARY), 2.0) == [Accepted("r2"), b"x"]


@pytest.mark.parametrize("state", [HubState.SPARE, HubState.CANCELLING, HubState.CLOSED])
def test_only_an_exchange_under_way_can_be_cancelled(state: HubState) -> None:
    with pytest.raises(AssertionError):
        hub(state).cancel(1.0)


@pytest.mark.parametrize("state", [NodeState.OPENED, NodeState.SERVING])
def test_a_cancelled_node_says_ended_and_is_a_spare(state: NodeState) -> None:
    theirs = node(state)
    assert theirs.receive(from_hub(Cancel("r1")), 1.0) == [Cancel("r1")]
    assert said(theirs.socket) == ['{"type":"ended","id":"r1","error":{"code":"cancelled","message":""}}']
    assert theirs.state is NodeState.SPARE


def test_bytes_of_an_engine_after_a_cancel_are_dropped() -> None:
    theirs = node(NodeState.SERVING)
    theirs.receive(from_hub(Cancel("r1")), 1.0)
    theirs.socket.take_output()
    theirs.answer("r1", b"ghost")
    theirs.end("r1")
    assert theirs.socket.take_output() == b""
    theirs.receive(from_hub(Open("r2", "ollama")), 1.0)
    theirs.accept("r1")
    theirs.answer("r1", b"ghost")
    theirs.end("r1")
    assert theirs.socket.take_output() == b""
    assert theirs.state is NodeState.OPENED


def test_a_cancel_may_cross_an_ended() -> None:
    ours, theirs = hub(HubState.STREAMING), node(NodeState.SERVING)
    theirs.answer("r1", ANSWER)
    theirs.end("r1")
    ours.cancel(1.0)
    assert ours.receive(theirs.socket.take_output(), 1.0) == [Ended("r1")]
    ours.open("r2", "ollama", 1.0)
    assert theirs.receive(ours.socket.take_output(), 1.0) == [Open("r2", "ollama")]


def test_request_bytes_that_were_under_way_at_the_end_are_discarded() -> None:
    """An Ollama answers before it has read the body if it already has the blob."""
    theirs = node(NodeState.SERVING)
    theirs.answer("r1", ANSWER)
    theirs.end("r1")
    rest = from_hub(b"rest of a blob", BINARY)
    assert theirs.receive(rest + from_hub(Open("r2", "a")) + from_hub(b"x", BINARY), 1.0) == [Open("r2", "a"), b"x"]


# --- each message in each state ---

HUB_TAKES = {
    (HubState.OPENING, "accepted"): HubState.STREAMING,
    (HubState.OPENING, "ended"): HubState.SPARE,
    (HubState.STREAMING, "bytes"): HubState.STREAMING,
    (HubState.STREAMING, "ended"): HubState.SPARE,
    (HubState.CANCELLING, "accepted"): HubState.CANCELLING,
    (HubState.CANCELLING, "bytes"): HubState.CANCELLING,
    (HubState.CANCELLING, "ended"): HubState.SPARE,
}
FROM_NODE_FRAMES = {
    "accepted": from_node(Accepted("r1")),
    "bytes": from_node(ANSWER, BINARY),
    "ended": from_node(Ended("r1")),
    "accepted of another": from_node(Accepted("r0")),
    "ended of another": from_node(Ended("r0")),
}
LIVING = [HubState.SPARE, HubState.OPENING, HubState.STREAMING, HubState.CANCELLING]


@pytest.mark.parametrize(("state", "name"), list(itertools.product(LIVING, FROM_NODE_FRAMES)))
def test_the_hub_accepts_exactly_the_messages_of_its_state(state: HubState, name: str) -> None:
    ours = hub(state)
    ours.exchange = "r1"
    events = ours.receive(FROM_NODE_FRAMES[name], 1.0)
    following = HUB_TAKES.get((state, name), HubState.CLOSED)
    assert ours.state is following
    if following is HubState.CLOSED:
        assert isinstance(events[0], Closed)
        assert (events[0].code, len(events)) == (CloseCode.VIOLATION, 1)
        assert state.value in events[0].reason


NODE_TAKES = {
    (NodeState.SPARE, "open"): NodeState.OPENED,
    (NodeState.SPARE, "bytes"): NodeState.SPARE,
    (NodeState.SPARE, "cancel"): NodeState.SPARE,
    (NodeState.SPARE, "cancel of another"): NodeState.SPARE,
    (NodeState.OPENED, "bytes"): NodeState.OPENED,
    (NodeState.OPENED, "cancel"): NodeState.SPARE,
    (NodeState.SERVING, "bytes"): NodeState.SERVING,
    (NodeState.SERVING, "cancel"): NodeState.SPARE,
}
FROM_HUB_FRAMES = {
    "open": from_hub(Open("r1", "ollama")),
    "bytes": from_hub(REQUEST, BINARY),
    "cancel": from_hub(Cancel("r1")),
    "cancel of another": from_hub(Cancel("r0")),
}


@pytest.mark.parametrize(
    ("state", "name"), list(itertools.product([NodeState.SPARE, NodeState.OPENED, NodeState.SERVING], FROM_HUB_FRAMES))
)
def test_the_node_accepts_exactly_the_messages_of_its_state(state: NodeState, name: str) -> None:
    theirs = node(state)
    events = theirs.receive(FROM_HUB_FRAMES[name], 1.0)
    following = NODE_TAKES.get((state, name), NodeState.CLOSED)
    assert theirs.state is following
    if following is NodeState.CLOSED:
        assert isinstance(events[0], Closed)
        assert events[0].code == CloseCode.VIOLATION


@pytest.mark.parametrize("text", ["{", '{"type":"open","id":"a","engine":"b"}', '{"type":"hello"}'])
def test_a_malformed_message_closes(text: str) -> None:
    events = hub(HubState.STREAMING).receive(from_node(ANSWER, BINARY) + from_node(text), 1.0)
    assert events[0] == ANSWER
    assert isinstance(events[1], Closed)
    assert events[1].code == CloseCode.MALFORMED


def test_messages_of_a_newer_version_are_ignored() -> None:
    ours, theirs = hub(), node()
    assert ours.receive(from_node('{"type":"statistics"}'), 1.0) == []
    assert theirs.receive(from_hub('{"type":"hint"}'), 1.0) == []
    assert (ours.state, theirs.state) == (HubState.SPARE, NodeState.SPARE)


def test_a_long_text_closes() -> None:
    events = hub().receive(frame(TEXT, b" " * (MAX_TEXT_BYTES + 1)), 1.0)
    assert events == [closed(CloseCode.TOO_BIG, f"a text message of more than {MAX_TEXT_BYTES} bytes")]


# --- time ---


def sweep(data: HubData | NodeData, end: float, *, is_excused: bool = False) -> tuple[float, list[object]]:
    """Tick twice a second until an event comes; return when, and the events."""
    now = 0.0
    while now < end:
        now += 0.5
        if events := data.tick(now, is_excused=is_excused):
            return now, list(events)
    return now, []


@pytest.mark.parametrize("is_excused", [False, True])
def test_a_spare_that_does_not_accept_is_closed(is_excused: bool) -> None:
    """A body that cannot be sent is no excuse, because `open` was sent before it."""
    event = closed(CloseCode.NOT_ACCEPTED, "the exchange was not accepted")
    assert sweep(hub(HubState.OPENING), 60, is_excused=is_excused) == (2.5, [event])


def test_a_cancel_that_does_not_end_closes() -> None:
    event = closed(CloseCode.NOT_CANCELLED, "the cancelled exchange did not end")
    assert sweep(hub(HubState.CANCELLING), 60) == (5.5, [event])


@pytest.mark.parametrize(("state", "end"), [(HubState.SPARE, 25.5), (HubState.STREAMING, 45.5)])
def test_a_node_that_answers_no_ping_is_gone(state: HubState, end: float) -> None:
    assert sweep(hub(state), 60) == (end, [closed(CloseCode.SILENT, "no answer to a ping")])


def test_a_slow_client_does_not_count_against_the_node() -> None:
    assert sweep(hub(HubState.STREAMING), 300, is_excused=True)[1] == []


def test_a_node_waits_for_a_ping_as_long_as_the_hub_said() -> None:
    assert sweep(node(), 60) == (25.5, [closed(CloseCode.SILENT, "the hub is silent")])
    slow = NodeData(LinkSocket(Side.NODE, 0.0), SESSION, 0.0, ping_seconds=30.0)
    assert sweep(slow, 60)[0] == 40.5


def test_the_peer_is_not_judged_after_a_stall_of_our_own() -> None:
    ours = hub(HubState.OPENING)
    assert ours.tick(9.0) == []
    assert ours.receive(from_node(Accepted("r1")), 9.1) == [Accepted("r1")]
    assert ours.tick(9.5) == []


# --- the end of the socket ---


def test_the_end_of_a_socket_is_one_event() -> None:
    ours = hub(HubState.STREAMING)
    assert ours.receive_eof(1.0) == [Closed(CloseCode.BROKE_OFF, "the connection broke off", is_ours=False)]
    assert ours.receive_eof(1.0) == ours.tick(1.0) == []
    assert ours.state is HubState.CLOSED


def test_a_caller_that_closes_gets_no_closed_event() -> None:
    theirs = node(NodeState.SERVING)
    theirs.close(CloseCode.GOING_AWAY, "stopping")
    theirs.answer("r1", b"ghost")
    theirs.end("r1")
    assert said(theirs.socket) == ["closed 1001"]
    assert theirs.tick(1.0) == theirs.receive_eof(1.0) == []
    assert (theirs.state, theirs.socket.is_finished) == (NodeState.CLOSED, True)


def test_a_closed_hub_takes_nothing_more() -> None:
    assert hub(HubState.CLOSED).receive(b"".join(FROM_NODE_FRAMES.values()), 1.0) == []


@pytest.mark.parametrize("data", [hub(), node()], ids=["hub", "node"])
def test_repr_shows_the_state(data: HubData | NodeData) -> None:
    assert "spare" in repr(data)


# --- any cut, and two ends against each other ---

STREAM = from_node(Accepted("r1")) + from_node(ANSWER, BINARY) + from_node(b"x" * 300, BINARY) + from_node(Ended("r1"))


@given(cuts(STREAM))
@settings(deadline=None, max_examples=100)
def test_any_cut_gives_the_same_events(pieces: list[bytes]) -> None:
    ours = hub(HubState.OPENING)
    events = [event for piece in pieces for event in ours.receive(piece, 1.0)]
    assert events == [Accepted("r1"), ANSWER, b"x" * 300, Ended("r1")]


def test_single_bytes_give_the_same_events() -> None:
    theirs = node()
    stream = from_hub(Open("r1", "a")) + from_hub(REQUEST, BINARY) + from_hub(Cancel("r1"))
    events = [event for piece in one_by_one(stream) for event in theirs.receive(piece, 1.0)]
    assert events == [Open("r1", "a"), REQUEST, Cancel("r1")]


@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from(LIVING))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_never_raise(pieces: list[bytes], state: HubState) -> None:
    ours = hub(state)
    for piece in pieces:
        ours.receive(piece, 1.0)


class TwoEnds(RuleBasedStateMachine):
    """A hub and a node that talk with any delay. No exchange gets bytes of another one, and neither end ever closes."""

    def __init__(self) -> None:
        super().__init__()
        self.hub = HubData(LinkSocket(Side.HUB, 0.0), 0.0)
        self.node = NodeData(LinkSocket(Side.NODE, 0.0), SESSION, 0.0)
        self.node.socket.take_output()
        self.up, self.down = b"", b""
        self.count = 0
        self.was_cancelled = False

    @precondition(lambda self: self.hub.state is HubState.SPARE)
    @rule()
    def open(self) -> None:
        self.count += 1
        self.was_cancelled = False
        self.hub.open(f"r{self.count}", "ollama", 0.0)

    @precondition(lambda self: self.hub.state in (HubState.OPENING, HubState.STREAMING))
    @rule(cancels=st.booleans())
    def send_or_cancel(self, cancels: bool) -> None:
        if cancels:
            self.was_cancelled = True
            self.hub.cancel(0.0)
        else:
            self.hub.send(f"r{self.count}".encode())

    @precondition(lambda self: self.node.state in (NodeState.OPENED, NodeState.SERVING))
    @rule(what=st.sampled_from(["accept", "answer", "end"]), which=st.integers(0, 1))
    def work(self, what: str, which: int) -> None:
        """`which` selects the exchange: the engine of the exchange before may still send."""
        exchange = self.node.exchange if which == 0 else f"r{int(self.node.exchange[1:]) - 1}"
        if what == "accept":
            self.node.accept(exchange)
        elif what == "answer":
            self.node.answer(exchange, exchange.encode())
        else:
            self.node.end(exchange)

    @rule(size=st.integers(1, 80))
    def deliver_to_node(self, size: int) -> None:
        self.up += self.hub.socket.take_output()
        data, self.up = self.up[:size], self.up[size:]
        for event in self.node.receive(data, 0.0):
            assert not isinstance(event, Closed)
            if isinstance(event, bytes):
                assert event == self.node.exchange.encode()

    @rule(size=st.integers(1, 80))
    def deliver_to_hub(self, size: int) -> None:
        self.down += self.node.socket.take_output()
        data, self.down = self.down[:size], self.down[size:]
        for event in self.hub.receive(data, 0.0):
            assert isinstance(event, bytes | Accepted | Ended)
            assert (event.decode() if isinstance(event, bytes) else event.id) == f"r{self.count}"
            assert isinstance(event, Ended) or not self.was_cancelled

    @invariant()
    def both_live(self) -> None:
        assert self.hub.state is not HubState.CLOSED
        assert self.node.state is not NodeState.CLOSED


TwoEnds.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=60)
TestTwoEnds = TwoEnds.TestCase
