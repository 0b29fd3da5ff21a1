"""The control socket of a joined link: hello, welcome, heartbeats, and the other messages between hub and node.

    hub:   HubArrival --hello--> HubControl   GREETING --welcome()--> RUNNING    takes report, heartbeat, draining
                      --data---> HubData (`link_data`)
    node:  NodeControl                        GREETING --welcome----> RUNNING    takes links, refresh, beat, bye

Each heartbeat is answered with a beat. A message in a state that does not take it is a violation and closes the
socket. A message of an unknown type is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hive.wire import link_messages as messages
from hive.wire import link_rules as link
from hive.wire.link_machine import LinkMachine
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
    encode,
)
from hive.wire.link_rules import CloseCode, LinkError
from hive.wire.link_socket import LinkSocket


class ControlState(Enum):
    """The states of a control socket."""

    GREETING = "greeting"
    """The node has said hello and waits. The hub has read the hello and has not answered yet."""
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Suspected:
    """No heartbeat came for `SUSPECT_SECONDS`, so the node gets no new work. The next heartbeat ends this."""


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """The node must now look at its machine and engines, and call `NodeControl.heartbeat`."""


HubEvent = Report | Heartbeat | Draining | Suspected
NodeEvent = Welcome | Links | Refresh | Bye | HeartbeatDue


class HubArrival(LinkMachine[Hello | JoinData]):
    """A socket whose first message has not come.

    Its one event is that message; `HubControl` or `HubData` continue then.
    """

    _takes_one = True

    def __init__(self, socket: LinkSocket, now: float) -> None:
        super().__init__(socket, now)
        self._since = now

    def _on_text(self, text: str) -> Hello | JoinData:
        first = messages.FIRST.decode(text)
        if first is None:
            raise LinkError("the first message must be hello or data", CloseCode.VIOLATION)
        return first

    def _on_time(self, now: float) -> None:
        if now - self._since > link.FIRST_MESSAGE_SECONDS:
            self.socket.close(CloseCode.TOO_LATE, "no first message")


class HubControl(LinkMachine[HubEvent]):
    """The hub's end, after `Hello`. Call `welcome`, or `close` with the reason."""

    def __init__(self, socket: LinkSocket, now: float) -> None:
        super().__init__(socket, now)
        socket.limit(link.MAX_CONTROL_BYTES, 0)
        self.state = ControlState.GREETING
        self.is_suspect = False
        self._heartbeat_at = now

    def __repr__(self) -> str:
        return f"<HubControl {self.state.value}{' suspect' if self.is_suspect else ''}>"

    def welcome(self, node: str, session: str, links: int, now: float) -> None:
        """Let the node in under its key's name. From now on heartbeats are expected."""
        assert self.state is ControlState.GREETING
        self.state = ControlState.RUNNING
        self._heartbeat_at = now
        self._send(Welcome(node, session, link.HEARTBEAT_SECONDS, link.PING_SECONDS, links))

    def want_links(self, want: int) -> None:
        """Tell the node to keep another number of data sockets."""
        self._send(Links(want))

    def refresh(self, engine: str) -> None:
        """Ask the node to list the models of an engine again. A `Report` follows."""
        self._send(Refresh(engine))

    def say_bye(self, reason: str) -> None:
        """Announce that this session will be closed. The node then dials no more data sockets."""
        self._send(Bye(reason))

    def _send(self, message: messages.FromHub) -> None:
        self.socket.send_text(encode(message))

    def _on_text(self, text: str) -> HubEvent | None:
        message = messages.FROM_NODE.decode(text)
        if self.state is not ControlState.RUNNING:
            raise LinkError("a message before welcome", CloseCode.VIOLATION)
        if type(message) is Heartbeat:
            self._heartbeat_at = self._now
            self.is_suspect = False
            self._send(Beat(message.seq))
        return message

    def _on_time(self, now: float) -> Suspected | None:
        if self.state is not ControlState.RUNNING:
            return None
        silence = now - self._heartbeat_at
        if silence > link.HEARTBEAT_LOST_SECONDS:
            self.socket.close(CloseCode.HEARTBEAT_LOST, "no heartbeat")
        elif silence > link.SUSPECT_SECONDS and not self.is_suspect:
            self.is_suspect = True
            return Suspected()
        return None

    def _on_closed(self) -> None:
        self.state = ControlState.CLOSED


class NodeControl(LinkMachine[NodeEvent]):
    """The node's end. It says hello at once."""

    def __init__(self, socket: LinkSocket, hello: Hello, now: float) -> None:
        super().__init__(socket, now)
        socket.limit(link.MAX_CONTROL_BYTES, 0)
        socket.alive.silence_seconds = link.HUB_SILENT_SECONDS
        self.state = ControlState.GREETING
        self._seq = 0
        self._period = link.HEARTBEAT_SECONDS
        self._heartbeat_at = now
        self._send(hello)

    def __repr__(self) -> str:
        return f"<NodeControl {self.state.value}>"

    def report(self, engines: tuple[ReportedEngine, ...]) -> None:
        """Send a new report of all engines."""
        self._send(Report(engines))

    def heartbeat(self, machine: MachineState, engines: dict[str, EngineBeat]) -> None:
        """Send the heartbeat that `HeartbeatDue` asked for."""
        self._seq += 1
        self._send(Heartbeat(self._seq, machine, engines))

    def say_draining(self) -> None:
        """Ask for no new exchanges."""
        self._send(Draining())

    def _send(self, message: Hello | messages.FromNode) -> None:
        self.socket.send_text(encode(message))

    def _on_text(self, text: str) -> NodeEvent | None:
        message = messages.FROM_HUB.decode(text)
        if message is None:
            return None
        if isinstance(message, Welcome) != (self.state is ControlState.GREETING):
            raise LinkError(f"{type(message).__name__.lower()} while {self.state.value}", CloseCode.VIOLATION)
        if isinstance(message, Beat):
            return None
        if isinstance(message, Welcome):
            self.state = ControlState.RUNNING
            self._period = message.heartbeat_s
            self._heartbeat_at = self._now - self._period
        return message

    def _on_time(self, now: float) -> HeartbeatDue | None:
        if self.state is not ControlState.RUNNING or now - self._heartbeat_at < self._period:
            return None
        self._heartbeat_at = now
        return HeartbeatDue()

    def _on_closed(self) -> None:
        self.state = ControlState.CLOSED
