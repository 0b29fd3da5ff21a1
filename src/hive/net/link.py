"""The interface of a way to an engine. Dialed and joined links both have it."""

from __future__ import annotations

from typing import Protocol

from hive.errors import Kind
from hive.wire.responses import ResponseHead


class Sink(Protocol):
    """Takes an engine's answer. After `on_complete` or `on_failure` nothing more comes."""

    def on_head(self, head: ResponseHead) -> None:
        """Take the head, which is whole; no byte of the body has come yet. Not called for a raw answer."""

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body, at least one byte. A raw answer comes as its bytes came, with the head."""

    def on_complete(self) -> None:
        """Note that the answer is whole."""

    def on_failure(self, kind: Kind, reason: str) -> None:
        """Note that the answer will never be whole, and why."""

    def on_moved(self, connection: Connection) -> None:
        """Note that the request goes out on this connection: the one before died before the engine got the request."""


class StreamingSink(Sink, Protocol):
    """Takes an engine's answer while it still sends the request, piece by piece."""

    def on_full(self, is_full: bool) -> None:
        """Note that the connection takes no more of the request for now, or takes it again."""


class Connection(Protocol):
    """Carries one exchange at a time.

    A connection may prove dead before the engine has got the request. Then it sends the request again by itself, on a
    fresh connection, and tells the sink (`on_moved`). `cancel` may be called at any time, and gives everything back.
    """

    def send(self, head: bytes, body: bytes, sink: Sink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send a whole request; the answer goes to `sink`. `is_bodiless`: the answer is a head alone, as for HEAD."""

    def begin(self, data: bytes, sink: StreamingSink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send the first bytes of a request, with its whole head; then `write` the other bytes, then `finish`."""

    def write(self, data: bytes) -> None:
        """Send more bytes of the request; nothing once its answer is whole. The caller must obey `on_full`."""

    def finish(self) -> None:
        """Note that the request is whole."""

    def cancel(self) -> None:
        """Leave the exchange: the engine stops, and the sink gets no further call."""

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
        """The prefix of every path."""

    @property
    def host_field(self) -> bytes:
        """The value of the field Host."""

    @property
    def credential(self) -> bytes:
        """The engine's own credential as a header line, or nothing."""

    def take_idle(self) -> Connection | None:
        """Return an idle connection that still looks alive, if there is one."""

    async def dial(self) -> Connection:
        """Return a new connection. Raises `Fault` (node_unreachable)."""

    def expect(self, slots: int) -> None:
        """Be ready for as many exchanges at the same time, and a few more."""

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
