"""A socket to the hub whose other end reads slowly, or not at all."""

from __future__ import annotations

import pytest

from hive.node.hub_socket import HubControlSocket, Turn
from hive.wire.link_control import NodeEvent
from hive.wire.link_messages import FROM_NODE, Hello, Report, ReportedEngine, Welcome
from hive.wire.link_rules import CLOSE_SECONDS, MAX_CONTROL_BYTES, MAX_PINGS, CloseCode
from hive.wire.link_socket import Closed

from ..wire.linking import PING, frame, from_hub
from .hub import run
from .pipe import Pipe, dial, turn

HELLO = Hello("0123456789abcdef", "hive 0.1.0")
WELCOME = from_hub(Welcome("desk", "s" * 43, 60.0, 15.0, 0))


class Owner:
    """Whose engine has another version in each report."""

    def __init__(self) -> None:
        self.reports = 0
        self.closed: Closed | None = None

    def on_control(self, event: NodeEvent | Closed) -> None:
        if isinstance(event, Closed):
            self.closed = event

    def report(self) -> tuple[ReportedEngine, ...]:
        self.reports += 1
        return (ReportedEngine("e", "ollama", str(self.reports)),)


def opened() -> tuple[Owner, HubControlSocket, Pipe]:
    owner = Owner()
    control = HubControlSocket(dial(), Turn(), HELLO, owner)
    return owner, control, Pipe(control)


def versions(messages: list[str | bytes]) -> list[str]:
    """Return what was reported."""
    read = [FROM_NODE.decode(message) for message in messages if isinstance(message, str)]
    return [message.engines[0].version for message in read if isinstance(message, Report)]


def test_a_report_that_waits_is_replaced_by_a_newer_one() -> None:
    async def main() -> None:
        owner, control, pipe = opened()
        await pipe.say(WELCOME)
        pipe.take()
        control.report_soon()
        await turn()
        for _ in range(5):  # the first has not left
            control.report_soon()
            await turn()
            await pipe.tick()
        assert owner.reports == 1
        assert versions(pipe.take()) == ["1"]
        await pipe.tick()
        assert versions(pipe.take()) == ["2"]
        await pipe.tick()
        assert versions(pipe.take()) == []

    run(main())


def test_changes_of_one_turn_are_one_report() -> None:
    async def main() -> None:
        _, control, pipe = opened()
        await pipe.say(WELCOME)
        pipe.take()
        control.report_soon()
        control.report_soon()
        await turn()
        assert versions(pipe.take()) == ["1"]

    run(main())


def test_what_changes_before_welcome_is_reported_behind_it() -> None:
    async def main() -> None:
        owner, control, pipe = opened()
        control.report_soon()
        await turn()
        pipe.take()
        assert owner.reports == 0
        await pipe.say(WELCOME)
        assert versions(pipe.take()) == ["1"]

    run(main())


def test_a_hub_that_pings_and_does_not_read_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        owner, _, pipe = opened()
        await pipe.say(WELCOME)
        pings = frame(PING, bytes(125), mask=None) * MAX_PINGS
        for _ in range(2 * MAX_CONTROL_BYTES // len(pings)):
            if pipe.is_lost:
                break
            await pipe.say(pings)
            await pipe.tick()
        assert pipe.is_lost
        assert len(pipe.unsent) <= MAX_CONTROL_BYTES + 2 * len(pings)
        assert owner.closed is not None
        assert owner.closed.code == CloseCode.BROKE_OFF

    run(main())
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("the hub does not read: 8")
    assert "bytes wait for it in <ControlSocket" in said


def test_a_close_that_the_hub_does_not_read_ends_all_the_same() -> None:
    async def main() -> None:
        _, control, pipe = opened()
        await pipe.say(WELCOME)
        control.close(CloseCode.GOING_AWAY, "the agent stops")
        await pipe.tick()
        assert not pipe.is_lost
        await pipe.tick(CLOSE_SECONDS + 0.1)
        assert pipe.is_lost
        assert control.lost.done()

    run(main())


def test_a_socket_that_cannot_write_delays_no_other_socket(caplog: pytest.LogCaptureFixture) -> None:
    class Writing:
        def __init__(self, error: Exception | None = None) -> None:
            self.error = error
            self.has_written = self.is_aborted = False

        def write_now(self) -> None:
            if self.error is not None:
                raise self.error
            self.has_written = True

        def abort(self) -> None:
            self.is_aborted = True

    async def main() -> None:
        one, other = Writing(RuntimeError("no way")), Writing()
        ends = Turn()
        ends.add(one)
        ends.add(other)
        await turn()
        assert (one.is_aborted, other.has_written, other.is_aborted) == (True, True, False)

    run(main())
    assert "no way" in caplog.text
