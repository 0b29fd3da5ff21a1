"""The part of the hub that exchanges and their attempts may use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

from hive.errors import Fault
from hive.fleet.engines import Engine, Fleet
from hive.hub.queue import Queue
from hive.hub.relay import RelayLimits
from hive.net.link import Connection, Link

E = TypeVar("E", contravariant=True)
"""The exchanges that run in a hub."""


class AttemptPort(Protocol):
    """What an attempt asks of the hub."""

    @property
    def now(self) -> Callable[[], float]:
        """Return the hub's clock, in seconds."""

    @property
    def queue(self) -> Queue:
        """Return the queue in which tickets wait for a lease."""

    @property
    def links(self) -> Mapping[Engine, Link]:
        """Return the links to the engines."""

    @property
    def relay_limits(self) -> RelayLimits:
        """Return how much of an answer is held."""

    def dial(self, link: Link) -> asyncio.Task[Connection]:
        """Open a connection to an engine, in a task of its own. Raises `Fault` (node_unreachable)."""

    def note_unreachable(self, engine: Engine, fault: Fault) -> None:
        """Take note that an exchange found no way to an engine."""

    def note_exchange(self, engine: Engine, model: str, *, unloads: bool, changes: bool) -> None:
        """Take note that an attempt ended on an engine: what the engine has loaded may have changed."""


class Register(Protocol[E]):
    """The exchanges that run."""

    def add(self, exchange: E, /) -> None:
        """Add an exchange that begins."""


class ExchangePort(AttemptPort, Protocol[E]):
    """What an exchange asks of the hub."""

    @property
    def fleet(self) -> Fleet:
        """Return the engines, and which of them has which model."""

    @property
    def exchanges(self) -> Register[E]:
        """Return the running exchanges, to which an exchange that begins is added."""

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a coroutine that ends with the hub at the latest."""

    async def first_look(self) -> None:
        """Wait a short time until every node has been asked once."""

    def end_exchange(self, exchange: E) -> None:
        """Account for an exchange that is over."""
