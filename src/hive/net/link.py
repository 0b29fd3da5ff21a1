"""What a way to an engine must offer: the one set of words for dialed and joined links."""

from __future__ import annotations

from typing import Protocol

from hive.errors import Kind
from hive.wire.responses import ResponseHead


class Sink(Protocol):
    """Takes an engine's answer. After `on_complete` or `on_failure` nothing more comes."""

    def on_head(self, head: ResponseHead) -> None:
        """The head is whole; no body byte has come yet. A raw answer has no such call."""

    def on_body(self, data: bytes) -> None:
        """A piece of the body, at least one byte; of a raw answer: its bytes as they came, the head included."""

    def on_complete(self) -> None:
        """The answer is whole."""

    def on_failure(self, kind: Kind, reason: str) -> None:
        """The answer will never be whole."""

    def on_moved(self, connection: Connection) -> None:
        """The connection had died before the engine heard of the request, which goes out on this one now."""


class StreamingSink(Sink, Protocol):
    """Takes an engine's answer while it still sends the request, piece by piece."""

    def on_full(self, is_full: bool) -> None:
        """The connection takes no more of the request for now, or takes it again."""


class Connection(Protocol):
    """Carries one exchange at a time.

    A connection that proves dead before the engine has heard of the request sends it again on a fresh one by itself,
    and tells the sink (`on_moved`). Until then, and at any time, `cancel` gives back all that is held.
    """

    def send(self, head: bytes, body: bytes, sink: Sink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send a whole request; the answer goes to `sink`. `is_bodiless`: the answer has a head alone, as to HEAD."""

    def begin(self, data: bytes, sink: StreamingSink, *, is_bodiless: bool = False, is_raw: bool = False) -> None:
        """Send the first bytes of a request, its whole head among them; `write` the others, then `finish`."""

    def write(self, data: bytes) -> None:
        """Send more bytes of the request; nothing once its answer is whole. Those who write obey `on_full`."""

    def finish(self) -> None:
        """The request is whole."""

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
