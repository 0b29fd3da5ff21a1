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
from hive.fleet.engines import Engine
from hive.fleet.health import NOT_BACK
from hive.hub.events import EventKind, NodeDrain, NodeGone, NodeJoined
from hive.hub.health_watch import BY_OPERATOR
from hive.hub.joined_engines import JoinedEngine
from hive.hub.joining_port import JoiningPort
from hive.net.joined import ControlSocket, JoinedSocket, JoinedSockets, TurnedAway
from hive.net.joined_data import JoinedConnection
from hive.net.joined_link import JoinedLink, JoinedPool
from hive.store.known_nodes import Profile
from hive.wire import link_messages as messages
from hive.wire import link_rules as link
from hive.wire.link_control import HubEvent, Suspected
from hive.wire.link_messages import Draining, Heartbeat, Hello, JoinData, MachineState, Report, one_line
from hive.wire.link_rules import ArrivalVerdict, CloseCode, judge_arrival
from hive.wire.link_socket import Closed, LinkSocket

_log = logging.getLogger(__name__)

MAX_COMPLAINTS = 10
COMPLAINTS_SECONDS = 60.0
LEARN_SHARE = 20
"""If a report took one second to read, the next report of the same node waits so many seconds."""
LONGEST_LEARN_WAIT = 60.0
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
        self.engines: dict[str, JoinedEngine] = {}
        self.pool = JoinedPool(key.name, port.settings.connect_timeout, self._note)
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
        self._pending: tuple[messages.ReportedEngine, ...] | None = None
        self._may_learn_at = 0.0

    def __repr__(self) -> str:
        return f"<JoinedNode {self.name} {'here' if self.control else 'gone'} {self.pool!r}>"

    @property
    def instance(self) -> str | None:
        """Return the instance of the connected agent; None if no agent is connected."""
        return self._instance if self.control is not None else None

    @property
    def absence(self) -> str:
        """Return why the node is not here; "" if it is here."""
        if self.control is not None:
            return ""
        return NOT_BACK if self._instance is None else "its node has left"

    # --- its session ---

    def begin(self, control: ControlSocket, hello: Hello) -> None:
        """Welcome the node, and close the sockets of an earlier session."""
        ghost, self.control = self.control, control
        control.owner = self
        self._instance, self.machine = hello.instance, hello.machine
        self.agent, self.platform, self.labels = hello.agent, hello.platform, hello.labels
        self.token = secrets.token_urlsafe(32)
        self.heartbeat_at = self._port.now()
        self.is_leaving = False
        self.apply_drain()
        self._may_learn_at = 0.0
        if ghost is not None:
            ghost.owner = None
            ghost.shut(CloseCode.REPLACED, "the same agent has connected again")
        ghosts = self.pool.open(control.want_links)
        control.welcome(self.name, self.token, self.pool.want)
        self._take_report(hello.engines)
        self._note_change(self.name)
        for connection in ghosts:
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
        self._pending = None
        self._note_change(self.name)
        self._port.events.append(EventKind.NODE_LEFT, self.name, NodeGone(reason))
        for joined in self.engines.values():
            joined.engine.signs.has_left = self.is_leaving
            joined.fail("its agent has stopped" if self.is_leaving else f"its node has left: {reason}")
        self.pool.drop(code, reason)  # last of all: a request that fails here looks for another engine at once

    # --- what it says ---

    def on_control(self, event: HubEvent) -> None:
        """Act on a message of the node."""
        if isinstance(event, Heartbeat):
            self.heartbeat_at = self._port.now()
            self.machine = event.machine
            for engine_id, joined in list(self.engines.items()):
                joined.take_beat(event.engines.get(engine_id))
        elif isinstance(event, Report):
            self._take_report(event.engines)
        elif isinstance(event, Draining):
            _log.info("node %s drains", self.name)
            self.is_leaving = True
            self._port.events.append(EventKind.NODE_DRAINED, self.name, NodeDrain(by=""))
            self.apply_drain()
        elif isinstance(event, Suspected):
            _log.warning("node %s: no heartbeat for %g s", self.name, link.SUSPECT_SECONDS)

    def _take_report(self, engines: tuple[messages.ReportedEngine, ...]) -> None:
        """Learn from a report, now or later.

        Reading reports must not keep the hub busy; only the newest one is kept.
        """
        self._pending = engines
        began = self._port.now()
        if began < self._may_learn_at:
            return
        self._pending = None
        self._learn(engines)
        now = self._port.now()
        self._may_learn_at = now + min(LEARN_SHARE * (now - began), LONGEST_LEARN_WAIT)

    def _learn(self, engines: tuple[messages.ReportedEngine, ...]) -> None:
        """Learn from a report. Only after all of it the queue is served and the fleet indexed, once."""
        before = self._lasting()
        with self._port.queue.held():
            for reported in engines:
                joined = self.engines.get(reported.id) or self._add(reported)
                try:
                    joined.learn(reported)
                except Exception:
                    _log.exception("node %s: the report of its engine %s", self.name, reported.id)
                    joined.fail("its node reports what cannot be read")
            for engine_id in self.engines.keys() - {reported.id for reported in engines}:
                self._remove(engine_id)
        if self._lasting() != before:
            self._note_change(self.name)

    def _lasting(self) -> dict[str, tuple[object, ...]]:
        return {engine_id: joined.lasting for engine_id, joined in self.engines.items()}

    def _add(self, reported: messages.ReportedEngine) -> JoinedEngine:
        port = self._port
        engine = Engine(self.name, reported.address, id=reported.id)
        joined = JoinedEngine(engine, port.fleet, port.health, self._refresh, port.on_listing, port.now)
        self.engines[reported.id] = joined
        port.add_engine(engine, JoinedLink(self.pool, reported.id), joined)
        self.apply_drain()
        return joined

    def _remove(self, engine_id: str) -> None:
        joined = self.engines.pop(engine_id)
        joined.fail("its node has it no more")
        self._port.remove_engine(joined.engine)

    def remove_all(self) -> None:
        """Remove the node's engines from the fleet."""
        self._learn(())

    def recall(self, profile: Profile) -> None:
        """Begin with what the hub remembers of a node that has not joined yet."""
        self.agent, self.platform, self.labels = profile.agent, profile.platform, profile.labels
        for each in profile.engines:
            joined = self._add(each)
            try:
                joined.recall(each)
            except Exception:
                _log.exception("node %s: what is remembered of its engine %s", self.name, each.id)
                self._remove(each.id)

    def _refresh(self, engine_id: str) -> None:
        if self.control is not None:
            self.control.refresh(engine_id)

    def apply_drain(self) -> None:
        """Drain its engines if the operator or its agent wants that; otherwise let them serve."""
        by = "its agent stops" if self.is_leaving else BY_OPERATOR if self._port.is_drained(self.name) else ""
        for joined in self.engines.values():
            self._port.health.drain(joined.engine, by)

    def _note(self, closed: Closed) -> None:
        if closed.is_ours and closed.code not in _QUIET:
            self._complain(self.name, f"data socket closed: {closed.reason} ({closed.code})")

    def _gpu_bytes(self) -> int | None:
        """Return the memory for models; None unless all of it is known and belongs to one engine."""
        gpus = self.machine.gpus
        return sum(gpu.memory_total_bytes for gpu in gpus) if gpus and len(self.engines) == 1 else None

    def tick(self, now: float) -> None:
        """Do the work that is due."""
        if self._pending is not None:
            self._take_report(self._pending)
        memory = self._gpu_bytes()
        for joined in list(self.engines.values()):
            joined.tick(now)
            joined.engine.known.round_trip = self.pool.round_trip
            joined.engine.known.memory_bytes = memory
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

    # --- the desk ---

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
        """Return a function that makes the data socket from the arrival's socket. Raises `TurnedAway`."""
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

    # --- time and the end ---

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
        node.remove_all()
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
