"""What the hub asks of a way to an engine, whoever dialed: the one set of words for dialed and joined links."""

from __future__ import annotations

from typing import Protocol

from hive.errors import Kind
from hive.wire.responses import ResponseHead


class Sink(Protocol):
    """Takes an engine's answer. After `on_complete` or `on_failure` nothing more comes."""

    def on_head(self, head: ResponseHead) -> None:
        """The head is whole; no body byte has come yet."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, at least one byte."""

    def on_complete(self) -> None:
        """The answer is whole."""

    def on_failure(self, kind: Kind, reason: str) -> None:
        """The answer will never be whole."""


class Connection(Protocol):
    """Carries one exchange at a time."""

    @property
    def has_answered(self) -> bool:
        """Has a byte of an answer to the current request come?"""

    def send(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send a request; the answer goes to `sink`."""

    def cancel(self) -> None:
        """Leave the exchange: the engine stops, the sink hears nothing more."""

    def pause(self) -> None:
        """Read no more until `resume`."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Close an idle connection."""


class Link(Protocol):
    """The way to one engine."""

    @property
    def base_path(self) -> bytes:
        """What stands before every path."""

    @property
    def host_field(self) -> bytes:
        """The value of the field Host."""

    @property
    def credential(self) -> bytes:
        """The engine's own credential as a header line, or nothing."""

    def take_idle(self) -> Connection | None:
        """Return a connection that waits and still looks alive, if there is one."""

    async def dial(self) -> Connection:
        """Return a new connection. Raises `Fault` (node_unreachable)."""

    def expect(self, slots: int) -> None:
        """Be ready for as many exchanges at the same time, and a few more."""

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
