"""The part of the hub that joined nodes use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hive.config import Settings
from hive.fleet.engines import Engine, Fleet
from hive.hub.event_log import EventLog
from hive.hub.health_watch import HealthWatch
from hive.hub.queue import Queue
from hive.hub.watcher import Watcher
from hive.net.link import Link
from hive.net.outbox import Outbox


@dataclass(frozen=True, slots=True)
class JoiningPort:
    """The parts of a hub that joined nodes use."""

    settings: Settings
    now: Callable[[], float]
    outbox: Outbox
    fleet: Fleet
    health: HealthWatch
    events: EventLog
    queue: Queue
    add_engine: Callable[[Engine, Link, Watcher], None]
    remove_engine: Callable[[Engine], None]
    on_listing: Callable[[Engine], None]
    """Called when an engine has told its models."""
    is_drained: Callable[[str], bool]
    """Says whether an operator drains the node of this name."""
