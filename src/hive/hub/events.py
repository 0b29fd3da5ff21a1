"""What can happen in a hub, as types: the kinds of event, and what each of them tells.

No event holds a word of a prompt or an answer. A key stands in an event by its name only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from hive.auth.keys import Role
from hive.fleet.engines import Health
from hive.hub.records import Record
from hive.scheduling.tickets import LoadEnd


class EventKind(StrEnum):
    """What happened. The subject of an event is what it happened to."""

    HUB_STARTED = "hub_started"
    NODE_JOINED = "node_joined"
    NODE_LEFT = "node_left"
    NODE_FORGOTTEN = "node_forgotten"
    """The hub has forgotten the node, because its key has ended."""
    NODE_DRAINED = "node_drained"
    NODE_RESUMED = "node_resumed"
    ENGINE_ADDED = "engine_added"
    ENGINE_REMOVED = "engine_removed"
    ENGINE_HEALTH = "engine_health"
    ENGINE_LISTING = "engine_listing"
    """The engine lists other models than before, or has other models in its memory."""
    LOAD_ORDERED = "load_ordered"
    LOAD_ENDED = "load_ended"
    REQUEST_ENDED = "request_ended"
    KEY_MADE = "key_made"
    KEY_REVOKED = "key_revoked"


class HubStarted(msgspec.Struct, frozen=True):
    """The first event of each start."""

    version: str
    settings: Mapping[str, str]
    """The options that differ from their defaults; for a secret, only that it is set."""


class NodeJoined(msgspec.Struct, frozen=True):
    """A node's agent has dialed in."""

    agent: str
    platform: str


class NodeGone(msgspec.Struct, frozen=True):
    """A node's session is over, or the node is forgotten."""

    reason: str


class NodeDrain(msgspec.Struct, frozen=True):
    """A node gets no new work, or gets work again."""

    by: str
    """The name of the administrator's key; empty when the node's own agent asked for it."""


class EngineSeen(msgspec.Struct, frozen=True):
    """An engine was added to the fleet, or removed from it."""

    node: str
    engine: str
    """The node's own name for the engine; empty for a dialed node, which is one engine."""
    url: str


class EngineHealth(msgspec.Struct, frozen=True):
    """An engine went from one state of health to another."""

    node: str
    engine: str
    before: Health
    after: Health
    cause: str


class EngineListing(msgspec.Struct, frozen=True):
    """The models that an engine has."""

    node: str
    engine: str
    models: int
    """How many models the engine lists."""
    loaded: int
    """How many models are in its memory."""
    names: tuple[str, ...]
    """The names of the first few models in its memory."""


class LoadOrdered(msgspec.Struct, frozen=True):
    """An engine is to load a model; the model is the subject."""

    node: str
    engine: str
    reason: str
    unload: tuple[str, ...]
    """Models that the engine unloads first, to make room."""


class LoadEnded(msgspec.Struct, frozen=True):
    """A load is over."""

    node: str
    engine: str
    end: LoadEnd
    seconds: float


class KeyChange(msgspec.Struct, frozen=True):
    """A key was made or has ended."""

    role: Role
    manage: bool


Details = (
    HubStarted
    | NodeJoined
    | NodeGone
    | NodeDrain
    | EngineSeen
    | EngineHealth
    | EngineListing
    | LoadOrdered
    | LoadEnded
    | KeyChange
    | Record
)

DETAILS: Mapping[EventKind, type[Details]] = {
    EventKind.HUB_STARTED: HubStarted,
    EventKind.NODE_JOINED: NodeJoined,
    EventKind.NODE_LEFT: NodeGone,
    EventKind.NODE_FORGOTTEN: NodeGone,
    EventKind.NODE_DRAINED: NodeDrain,
    EventKind.NODE_RESUMED: NodeDrain,
    EventKind.ENGINE_ADDED: EngineSeen,
    EventKind.ENGINE_REMOVED: EngineSeen,
    EventKind.ENGINE_HEALTH: EngineHealth,
    EventKind.ENGINE_LISTING: EngineListing,
    EventKind.LOAD_ORDERED: LoadOrdered,
    EventKind.LOAD_ENDED: LoadEnded,
    EventKind.REQUEST_ENDED: Record,
    EventKind.KEY_MADE: KeyChange,
    EventKind.KEY_REVOKED: KeyChange,
}
"""The type of the details of each kind. For a request it is the record, as in the log."""


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. `epoch` and `number` say where it stands in the log."""

    time: str
    """RFC 3339."""
    epoch: str
    number: int
    kind: EventKind
    subject: str
    details: Details


def engine_subject(node: str, engine: str) -> str:
    """Return the name of an engine in events: its node's name, and its own name if it has one."""
    return f"{node}/{engine}" if engine else node
