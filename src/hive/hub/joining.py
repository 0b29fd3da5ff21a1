"""The joined nodes: which node is let in, what is known of each, and what happens when a node leaves.

A node is known from its first hello until its key ends, also over restarts of the hub (`hub.recall`). During a session
it has a control socket, a token for its data sockets, and a pool of data sockets. When it leaves, its engines are down,
with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping

from hive.auth.key_ring import KeyRing
from hive.auth.keys import Key, Right
from hive.errors import DRAINING, TOO_MANY_LINKS, Fault
from hive.fleet.health import NOT_BACK
from hive.hub.events import EventKind, NodeDrain, NodeGone, NodeJoined
from hive.hub.health_watch import BY_OPERATOR
from hive.hub.joined_engines import JoinedEngine
from hive.hub.joining_port import JoiningPort
from hive.hub.node_reports import NodeReports
from hive.net.joined import ControlSocket, JoinedSocket, JoinedSockets, TurnedAway
from hive.net.joined_data import JoinedConnection
from hive.net.joined_link import JoinedPool
from hive.store.known_nodes import Profile
from hive.wire import link_rules as link
from hive.wire.link_control import HubEvent, Suspected
from hive.wire.link_messages import Draining, Heartbeat, Hello, JoinData, MachineState, Report, one_line
from hive.wire.link_rules import ArrivalVerdict, CloseCode, judge_arrival
from hive.wire.link_socket import Closed, LinkSocket

_log = logging.getLogger(__name__)

MAX_COMPLAINTS = 10
COMPLAINTS_SECONDS = 60.0
FAREWELL_STEP = 0.02
_QUIET = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.BROKE_OFF})


class JoinedNode:
    """One node: its session, if it is here, and its engines."""

    def __init__(
        self, port: JoiningPort, key: Key, complain: Callable[[str, str], None], note_change: Callable[[str], None]
    ) -> None:
        """Make a node without a session.

        `note_change` is called with its name when something to be remembered has changed.
        """
        self._port = port
        self.key = key
        self.name = key.name
        self.pool = JoinedPool(key.name, port.settings.connect_timeout, self._note)
        self.reports = NodeReports(
            port, self.pool, refresh=self._refresh, drained_by=self._drained_by, note_change=note_change
        )
        self.control: ControlSocket | None = None
        self.token = ""
        self.agent = self.platform = ""
        self.labels: Mapping[str, str] = {}
        self.machine = MachineState()
        self.heartbeat_at = 0.0
        self.is_leaving = False
        """Has the node itself asked for no new work?"""
        self._instance: str | None = None
        self._complain = complain
        self._note_change = note_change

    def __repr__(self) -> str:
        return f"<JoinedNode {self.name} {'here' if self.control else 'gone'} {self.pool!r}>"

    @property
    def instance(self) -> str | None:
        """Return the instance of the connected agent; None if no agent is connected."""
        return self._instance if self.control is not None else None

    @property
    def engines(self) -> Mapping[str, JoinedEngine]:
        """Return its engines by their ids."""
        return self.reports.engines

    @property
    def absence(self) -> str:
        """Return why the node is not here; "" if it is here."""
        if self.control is not None:
            return ""
        return NOT_BACK if self._instance is None else "its node has left"

    def begin(self, control: ControlSocket, hello: Hello) -> None:
        """Welcome the node, and close the sockets of an earlier session."""
        old_control, self.control = self.control, control
        control.owner = self
        self._instance, self.machine = hello.instance, hello.machine
        self.agent, self.platform, self.labels = hello.agent, hello.platform, hello.labels
        self.token = secrets.token_urlsafe(32)
        self.heartbeat_at = self._port.now()
        self.is_leaving = False
        self.reports.apply_drain()
        if old_control is not None:
            old_control.owner = None
            old_control.shut(CloseCode.REPLACED, "the same agent has connected again")
        old_connections = self.pool.open(control.want_links)
        control.welcome(self.name, self.token, self.pool.want)
        self.reports.begin(hello.engines)
        self._note_change(self.name)
        for connection in old_connections:
            connection.shut(CloseCode.REPLACED, "the same agent has connected again")

    def end(self, code: CloseCode, reason: str) -> None:
        """Close the session from the hub's side."""
        control = self.control
        if control is not None:
            control.owner = None
            control.shut(code, reason)
            self._leave(code, reason)

    def say_bye(self, reason: str) -> None:
        """Announce the end of the session to the node."""
        if self.control is not None:
            self.control.say_bye(reason)

    def on_control_closed(self, closed: Closed) -> None:
        """End the session: its control socket is closed."""
        reason = one_line(closed.reason, 120) or f"closed with {closed.code}"
        _log.warning("node %s has left: %s (%d)", self.name, reason, closed.code)
        self._leave(CloseCode.SESSION_OVER, reason)

    def _leave(self, code: CloseCode, reason: str) -> None:
        self.control = None
        self.token = ""
        self._note_change(self.name)
        self._port.events.append(EventKind.NODE_LEFT, self.name, NodeGone(reason))
        why = "its agent has stopped" if self.is_leaving else f"its node has left: {reason}"
        self.reports.end(why, has_left=self.is_leaving)
        self.pool.drop(code, reason)  # last of all: a request that fails here looks for another engine at once

    def on_control(self, event: HubEvent) -> None:
        """Act on a message of the node."""
        if isinstance(event, Heartbeat):
            self.heartbeat_at = self._port.now()
            self.machine = event.machine
            self.reports.take_beats(event.engines)
        elif isinstance(event, Report):
            self.reports.take(event.engines)
        elif isinstance(event, Draining):
            _log.info("node %s drains", self.name)
            self.is_leaving = True
            self._port.events.append(EventKind.NODE_DRAINED, self.name, NodeDrain(by=""))
            self.reports.apply_drain()
        elif isinstance(event, Suspected):
            _log.warning("node %s: no heartbeat for %g s", self.name, link.SUSPECT_SECONDS)

    def recall(self, profile: Profile) -> None:
        """Begin with what the hub remembers of a node that has not come back since the hub's start."""
        self.agent, self.platform, self.labels = profile.agent, profile.platform, profile.labels
        self.reports.recall(profile.engines)

    def _refresh(self, engine_id: str) -> None:
        if self.control is not None:
            self.control.refresh(engine_id)

    def _drained_by(self) -> str:
        """Return why the node is drained; "" if it may serve."""
        return "its agent stops" if self.is_leaving else BY_OPERATOR if self._port.is_drained(self.name) else ""

    def _note(self, closed: Closed) -> None:
        if closed.is_ours and closed.code not in _QUIET:
            self._complain(self.name, f"data socket closed: {closed.reason} ({closed.code})")

    def _gpu_bytes(self) -> int | None:
        """Return the memory of its GPUs; None when none is known."""
        gpus = self.machine.gpus
        return sum(gpu.memory_total_bytes for gpu in gpus) if gpus else None

    def tick(self, now: float) -> None:
        """Do the work that is due."""
        self.reports.tick(now, self._gpu_bytes())
        if self.control is not None:
            self.pool.tick(now)


class Joining:
    """All joined nodes, by name. Their sockets arrive here."""

    def __init__(self, port: JoiningPort, ring: KeyRing) -> None:
        self._port = port
        self._ring = ring
        self.sockets = JoinedSockets(port.outbox, port.now)
        self.nodes: dict[str, JoinedNode] = {}
        self.changed: set[str] = set()
        """The names of nodes that must be written or deleted in the store. `hub.recall` empties it."""
        self._dialed = {node.name.casefold() for node in port.settings.nodes}
        self._is_leaving = False
        self._complaints: dict[str, tuple[float, int]] = {}

    def arrive(self, key: Key) -> asyncio.Protocol:
        """Return the protocol of a connection that becomes a link. Raises `Fault`: draining, too_many_links."""
        if self._is_leaving:
            raise Fault(DRAINING, "the hub is shutting down")
        if not self.sockets.has_room(key):
            raise Fault(TOO_MANY_LINKS, f"too many connections of the key {key.name!r} have not said what they are")
        return self.sockets.arrive(key, self)

    def may_stay(self, key: Key) -> bool:
        """Does a key still let its node in?"""
        return self._ring.allows(key, Right.WORK)

    def take_control(self, control: ControlSocket, hello: Hello) -> None:
        """Let a node in, or close its socket with the reason."""
        try:
            node = self._admit(control.key, hello)
        except TurnedAway as away:
            self._complain(control.key.name, f"not let in: {away.reason}")
            control.shut(away.code, away.reason)
            return
        _log.info("node %s joined (%s, %s)", node.name, hello.agent, hello.platform)
        self._port.events.append(EventKind.NODE_JOINED, node.name, NodeJoined(hello.agent, hello.platform))
        node.begin(control, hello)

    def _admit(self, key: Key, hello: Hello) -> JoinedNode:
        if not self.may_stay(key):
            raise TurnedAway(CloseCode.KEY_REVOKED, "the key was revoked")
        if self._is_leaving:
            raise TurnedAway(CloseCode.GOING_AWAY, "the hub stops")
        if self.is_dialed(key.name):
            raise TurnedAway(CloseCode.NAME_TAKEN, f"the hub's settings have a node {key.name!r} that the hub dials")
        node = self.nodes.get(key.name)
        if node is not None and node.key.digest != key.digest:
            self._forget(node)
            node = None
        if node is None:
            node = self._make(key)
        if judge_arrival(node.instance, hello.instance) is ArrivalVerdict.NAME_TAKEN:
            raise TurnedAway(CloseCode.NAME_TAKEN, f"another agent is connected with the key {key.name!r}")
        return node

    def _make(self, key: Key) -> JoinedNode:
        node = self.nodes[key.name] = JoinedNode(self._port, key, self._complain, self.changed.add)
        return node

    def is_dialed(self, name: str) -> bool:
        """Do the hub's settings have a node of this name?"""
        return name.casefold() in self._dialed

    def recall(self, key: Key, profile: Profile) -> None:
        """Add a node that the hub remembers from before its start."""
        self._make(key).recall(profile)

    def take_data(self, arrival: JoinData, key: Key) -> Callable[[LinkSocket], JoinedSocket]:
        """Check an arriving data socket; return the function that makes its connection. Raises `TurnedAway`."""
        node = self.nodes.get(key.name)
        if node is None or not node.token or node.key.digest != key.digest:
            raise TurnedAway(CloseCode.SESSION_OVER, "this key has no session")
        if not secrets.compare_digest(arrival.session, node.token):
            raise TurnedAway(CloseCode.SESSION_OVER, "the session is unknown or over")
        if node.pool.is_full:
            raise TurnedAway(CloseCode.TOO_MANY, f"{node.pool.want} data sockets are wanted")

        def make(socket: LinkSocket) -> JoinedSocket:
            return JoinedConnection(self.sockets, key, socket, node.pool, self._port.settings.max_head_bytes)

        return make

    def note(self, key: Key, closed: Closed) -> None:
        """Note that a socket was closed before its first message was accepted."""
        if closed.is_ours:
            self._complain(key.name, f"connection closed: {closed.reason} ({closed.code})")

    def _complain(self, name: str, text: str) -> None:
        """Log what a node did wrong, but not too often."""
        now = self._port.now()
        since, count = self._complaints.get(name, (now, 0))
        if now - since > COMPLAINTS_SECONDS:
            since, count = now, 0
        self._complaints[name] = since, count + 1
        if count < MAX_COMPLAINTS:
            _log.warning("node %s: %s", name, one_line(text, 300))
        elif count == MAX_COMPLAINTS:
            _log.warning("node %s: more of the same is not logged for a minute", name)

    def tick(self, now: float) -> None:
        """Do the work that is due, and drop the links of keys that ended."""
        for node in list(self.nodes.values()):
            if self.may_stay(node.key):
                node.tick(now)
            else:
                _log.warning("node %s: its key was revoked", node.name)
                self._forget(node)

    def _forget(self, node: JoinedNode) -> None:
        reason = "the key was revoked"
        node.end(CloseCode.KEY_REVOKED, reason)
        node.reports.remove_all()
        del self.nodes[node.name]
        self.changed.add(node.name)
        self._port.events.append(EventKind.NODE_FORGOTTEN, node.name, NodeGone(reason))

    def say_bye(self) -> None:
        """Tell every node that the hub stops, and let no node in any more. The links work until `leave`."""
        self._is_leaving = True
        for node in self.nodes.values():
            node.say_bye("the hub stops")

    async def leave(self, timeout: float) -> None:
        """Close every link in good order, within `timeout` seconds."""
        for node in self.nodes.values():
            node.end(CloseCode.GOING_AWAY, "the hub stops")
        self._port.outbox.flush()
        deadline = self._port.now() + timeout
        while len(self.sockets) and self._port.now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(FAREWELL_STEP)

    def close(self) -> None:
        """Drop every socket."""
        self.sockets.abort()
