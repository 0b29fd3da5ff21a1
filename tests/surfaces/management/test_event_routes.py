"""The stream of events: what it tells, where a client goes on, and that nothing is left when it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from hive.app import HubServer
from hive.hub.event_feed import MAX_FOLLOWERS
from hive.hub.event_log import KEPT
from hive.hub.events import DETAILS, EventKind
from hive.hub.records import Record
from hive.surfaces.management import event_routes
from hive.testing import SimOptions, run_in_thread
from hive.testing.agent_double import run_agent
from hive.testing.hub import ThreadedHub, run_hub

from ...raw import GENERATE, Answer, Wire, ask, get, request

PATH = "/hive/v1/events"
PROMPT = "canary-prompt-text"


@dataclass(frozen=True)
class Block:
    """One block of a stream, by the names of its lines; a comment is without a name."""

    id: str = ""
    event: str = ""
    data: str = ""

    @property
    def number(self) -> int:
        return int(self.id.rpartition("-")[2])

    def json(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.data)
        return decoded


class Follower:
    """A client that follows the events of a hub."""

    def __init__(
        self, hub: ThreadedHub, query: str = "", head: str = "", key: str = "", receive_buffer: int | None = None
    ) -> None:
        self.wire = Wire(hub.port, receive_buffer)
        self.wire.send(get(PATH + query, f"Authorization: Bearer {key or hub.admin_key}\r\n{head}"))
        self.head = self.wire.until(b"\r\n\r\n")
        self._blocks: list[Block] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wire.sock.close()

    def chunk(self) -> bytes:
        """Return the next chunk, which holds whole blocks."""
        size = int(self.wire.until(b"\r\n"), 16)
        data = self.wire.until(b"\n\n\r\n")
        assert len(data) == size + 2
        return data[:-2]

    def block(self) -> Block:
        """Return the next block."""
        while not self._blocks:
            texts = self.chunk().decode().split("\n\n")[:-1]
            lines = [[line.partition(": ") for line in text.splitlines()] for text in texts]
            self._blocks = [Block(**{name: value for name, _, value in each if name}) for each in lines]
        return self._blocks.pop(0)

    def event(self) -> Block:
        """Return the next block that is an event."""
        while not (block := self.block()).event:
            pass
        return block


@pytest.fixture
def hub() -> Iterator[ThreadedHub]:
    """A hub without nodes."""
    with run_hub({}) as hub:
        yield hub


def place(hub: ThreadedHub) -> str:
    """Return the position of a client that has read everything."""
    return hub.call(lambda server: str(server.events.position))


def begin(hub: ThreadedHub) -> str:
    """Return the position before the first event."""
    return hub.call(lambda server: f"{server.events.epoch}-0")


def call(hub: ThreadedHub, path: str, method: str = "GET", key: str = "", head: str = "") -> Answer:
    return ask(hub.port, request(path, method=method, head=f"Authorization: Bearer {key or hub.admin_key}\r\n{head}"))


def test_only_an_admin_key_opens(hub: ThreadedHub) -> None:
    assert ask(hub.port, get(PATH)).status == 401
    for name, role in (("bob", "client"), ("gpu", "worker")):
        assert call(hub, PATH, key=hub.create_key(name, role)).status == 403
    assert ask(hub.port, get(f"/k/{hub.admin_key}{PATH}")).status == 403
    assert call(hub, PATH, "POST").status == 405


def test_a_stream_begins_with_the_place_and_tells_what_comes(hub: ThreadedHub) -> None:
    here = place(hub)
    with Follower(hub) as follower:
        lines = follower.head.lower().split(b"\r\n")
        assert lines[0] == b"http/1.1 200 ok"
        for line in (
            b"content-type: text/event-stream; charset=utf-8",
            b"cache-control: no-store",
            b"x-accel-buffering: no",
            b"transfer-encoding: chunked",
        ):
            assert line in lines
        assert follower.chunk() == f": events\nid: {here}\n\n".encode()
        hub.create_key("alice")
        told = follower.chunk()
        epoch, _, number = here.partition("-")
        first, _, data = told.partition(b"data: ")
        assert first == f"id: {epoch}-{int(number) + 1}\nevent: key_made\n".encode()
        assert data.endswith(b"}\n\n")
        event = json.loads(data)
        assert (event.pop("time")[:2], event) == (
            "20",
            {
                "epoch": epoch,
                "number": int(number) + 1,
                "kind": "key_made",
                "subject": "alice",
                "details": {"role": "client", "manage": False},
            },
        )


@pytest.mark.parametrize("way", ["header", "query", "both"])
def test_a_client_that_comes_back_goes_on_where_it_was(hub: ThreadedHub, way: str) -> None:
    with Follower(hub) as follower:
        follower.block()
        hub.create_key("one")
        seen = follower.event().id
    hub.create_key("two")
    hub.create_key("three")
    query = {"header": "", "query": f"?after={seen}", "both": f"?after={begin(hub)}"}[way]
    head = "" if way == "query" else f"Last-Event-ID: {seen}\r\n"
    with Follower(hub, query, head) as follower:
        assert [follower.event().json()["subject"] for _ in range(2)] == ["two", "three"]


def test_after_too_many_events_the_first_is_a_gap(hub: ThreadedHub) -> None:
    seen = place(hub)
    hub.call(lambda server: server.events.append_requests([Record()] * KEPT))
    hub.create_key("alice")
    with Follower(hub, f"?after={seen}&kind=key_made") as follower:
        gap = follower.event()
        assert gap.event == "gap"
        assert gap.json() == {"asked": seen, "resume": gap.id}
        assert gap.number == hub.call(lambda server: server.events.last) - KEPT
        assert follower.event().json()["subject"] == "alice"
    with Follower(hub, head=f"Last-Event-ID: {gap.id}\r\n") as follower:
        assert follower.event().number == gap.number + 1


@pytest.mark.parametrize("number", [0, 3, 999_999_999])
def test_the_place_of_another_start_is_a_gap(hub: ThreadedHub, number: int) -> None:
    with Follower(hub, head=f"Last-Event-ID: 00-{number}\r\n") as follower:
        gap = follower.event()
        assert (gap.event, gap.id) == ("gap", begin(hub))
        assert follower.event().event == "hub_started"


def test_a_filter_passes_some_kinds_only(hub: ThreadedHub) -> None:
    hub.create_key("alice")
    hub.create_key("bob")
    hub.revoke_key("alice")
    with Follower(hub, f"?after={begin(hub)}&kind=hub_started&kind=key_revoked") as follower:
        assert [follower.event().event for _ in range(2)] == ["hub_started", "key_revoked"]


@pytest.mark.parametrize(
    ("query", "head", "message"),
    [
        ("?kind=node_lost", "", "kind: expected 'hub_started', 'node_joined'"),
        ("?kind=key_made&kind=", "", "kind: expected "),
        ("?after=", "", "after: expected EPOCH-NUMBER"),
        ("?after=17", "", "after: expected EPOCH-NUMBER"),
        (f"?after=ab-{'1' * 99}", "", "after: expected at most 64 characters"),
        ("", "Last-Event-ID: x\r\n", "last-event-id: expected EPOCH-NUMBER"),
    ],
)
def test_what_does_not_fit_is_named(hub: ThreadedHub, query: str, head: str, message: str) -> None:
    answer = call(hub, PATH + query, head=head)
    assert (answer.status, answer.json()["error"]["code"]) == (422, "invalid_value")  # type: ignore[index]
    assert answer.json()["error"]["message"].startswith(message)  # type: ignore[index]
    assert hub.call(lambda server: server.feed.followers) == 0


def test_two_clients_get_the_same_events(hub: ThreadedHub) -> None:
    with Follower(hub) as one, Follower(hub) as other:
        assert one.block() == other.block()
        hub.create_key("alice")
        assert one.event() == other.event()
        assert hub.call(lambda server: server.feed.followers) == 2


def test_a_quiet_stream_shows_that_it_lives_and_moves_the_place(
    hub: ThreadedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "QUIET", 0.05)
    with Follower(hub, "?kind=node_left") as follower:
        follower.chunk()
        hub.create_key("alice")
        here = place(hub)
        while (told := follower.chunk()) != f": events\nid: {here}\n\n".encode():
            assert told.startswith(b": events\nid: ")


def unsent_bytes(server: HubServer) -> int:
    """Return how many bytes wait in the hub for its clients."""
    transports = [each._transport for each in server.server.connections]
    return sum(transport.get_write_buffer_size() for transport in transports if transport is not None)


def test_a_slow_client_costs_little_and_is_told_what_it_missed(hub: ThreadedHub) -> None:
    last = 0
    with Follower(hub, receive_buffer=4_096) as follower:
        last = follower.block().number
        for _ in range(30):
            hub.call(lambda server: server.events.append_requests([Record(detail="x" * 500)] * 1_000))
        assert hub.call(unsent_bytes) < 1_000_000
        newest, gaps = hub.call(lambda server: server.events.last), 0
        while last < newest:
            block = follower.event()
            gaps += block.event == "gap"
            assert block.number > last + 1 if block.event == "gap" else block.number == last + 1
            last = block.number
        assert gaps


def test_a_departure_leaves_nothing(hub: ThreadedHub) -> None:
    for reset in (True, False):
        followers = [Follower(hub) for _ in range(5)]
        hub.until(lambda server: server.feed.followers == 5)
        for follower in followers:
            if reset:
                follower.wire.reset()
            else:
                follower.wire.sock.close()
        hub.until(lambda server: server.feed.followers == 0 and not server.server.connections)
    hub.create_key("alice")


def test_the_end_of_a_key_ends_its_stream(hub: ThreadedHub) -> None:
    key = hub.create_key("boss", "admin")
    with Follower(hub, "?kind=node_left", key=key) as follower, Follower(hub) as other:
        follower.block()
        other.block()
        hub.revoke_key("boss")
        assert follower.wire.until(b"\r\n\r\n") == b"0\r\n\r\n"
        assert other.event().event == "key_revoked"
        assert hub.call(lambda server: server.feed.followers) == 1


def test_there_is_room_for_a_bounded_number(hub: ThreadedHub) -> None:
    hub.call(lambda server: setattr(server.feed, "followers", MAX_FOLLOWERS))
    answer = call(hub, PATH)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "overloaded")  # type: ignore[index]


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_hub_that_stops_ends_the_streams_at_once_and_cleanly(use_uvloop: bool) -> None:
    with run_hub({}, drain_timeout=30, use_uvloop=use_uvloop) as hub:
        followers = [Follower(hub) for _ in range(3)]
        for follower in followers:
            follower.block()
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 5
        for follower in followers:
            assert follower.wire.rest().endswith(b"0\r\n\r\n")
            follower.wire.sock.close()


def test_everything_that_happens_is_told_without_prompts_and_secrets() -> None:
    with (
        run_in_thread(SimOptions(models=("tiny",), slots=8)) as engine,
        run_hub({"a": engine.url}, link="dialed") as hub,
    ):
        worker, client = hub.create_key("far", "worker"), hub.create_key("alice")
        with run_agent(hub.url, worker, {"ollama": engine.url}):
            hub.until(lambda server: "far" in server.hub.joining.nodes)
            head = f"Authorization: Bearer {client}\r\n"
            assert ask(hub.port, request(body={**GENERATE, "prompt": PROMPT}, head=head)).status == 200
            assert call(hub, "/hive/v1/nodes/a/drain", "POST").status == 200
            assert call(hub, "/hive/v1/nodes/a/drain", "POST").status == 200  # no change, no event
            assert call(hub, "/hive/v1/nodes/a/resume", "POST").status == 200
            hub.call(lambda server: server.hub.register.records.settle())
        hub.revoke_key("far")
        with Follower(hub, f"?after={begin(hub)}") as follower:
            events: list[Block] = []
            while not events or events[-1].event != EventKind.NODE_FORGOTTEN:
                events.append(follower.event())
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert {event.event for event in events} == set(EventKind)
    for event in events:
        fields = msgspec.structs.fields(DETAILS[EventKind(event.event)])  # type: ignore[arg-type]
        assert list(event.json()["details"]) == [field.name for field in fields]
        for secret in (PROMPT, worker, client, hub.admin_key):
            assert secret not in event.data
    drains = [event.json() for event in events if event.event in ("node_drained", "node_resumed")]
    assert [(each["kind"], each["subject"], each["details"]["by"]) for each in drains] == [
        ("node_drained", "a", "admin"),
        ("node_resumed", "a", "admin"),
    ]
    assert events[0].json()["details"]["settings"]["admin_key"] == "(secret)"
