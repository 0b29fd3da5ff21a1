"""The frames that `LinkSocket` does not read itself: the protocol of `websockets` judges them.

These are fragments, control frames, frames that break a rule, and the closing handshake.
"""

from __future__ import annotations

from collections import deque

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from hive.wire.link_rules import MAX_PINGS


class OddFrames:
    """The frames of one socket that the library judges."""

    def __init__(self, *, is_hub: bool) -> None:
        self._protocol = Protocol(Side.SERVER if is_hub else Side.CLIENT, state=State.OPEN)
        self.frames: deque[object] = deque()
        """The frames that the library has judged and `LinkSocket` has not read."""
        self._text: bytearray | None = None
        """The text of a fragmented message so far."""
        self._pings = 0

    def limit(self, max_bytes: int) -> None:
        """Refuse longer messages from now on."""
        self._protocol.max_message_size = max_bytes

    @property
    def is_open(self) -> bool:
        """Has no closing handshake begun?"""
        return self._protocol.state is State.OPEN

    @property
    def gathered_bytes(self) -> int | None:
        """The number of bytes that have come of a fragmented message; None when no such message is under way."""
        return self._protocol.current_size

    @property
    def sent_close(self) -> Close | None:
        """The code and reason with which this side has closed the socket."""
        return self._protocol.close_sent

    @property
    def received_close(self) -> Close | None:
        """The code and reason with which the other end has closed the socket."""
        return self._protocol.close_rcvd

    def take(self, data: bytes) -> list[bytes]:
        """Judge bytes; return the bytes of the library's answer (pong, close)."""
        self._protocol.receive_data(data)
        self.frames.extend(self._protocol.events_received())
        return self._output()

    def close(self, code: int, reason: str) -> list[bytes]:
        """Start the closing handshake; return the bytes to send."""
        self._protocol.send_close(code, reason)
        return self._output()

    def _output(self) -> list[bytes]:
        return [each for each in self._protocol.data_to_send() if each]

    def next_frame(self) -> tuple[Opcode, bytes, bool]:
        """Return the next frame: its kind, its payload, and whether it is the last of its message."""
        frame = self.frames.popleft()
        assert isinstance(frame, Frame)
        return frame.opcode, bytes(frame.data), frame.fin

    def is_text(self, kind: Opcode) -> bool:
        """Is a frame of this kind a text, or a part of one?"""
        return kind is Opcode.TEXT or (kind is Opcode.CONT and self._text is not None)

    def gather(self, payload: bytes, *, is_last: bool, max_bytes: int) -> bytes | None:
        """Take a part of a text; return the text when it is whole or longer than allowed, otherwise None."""
        text = self._text if self._text is not None else bytearray()
        text += payload
        self._text = None if is_last else text
        return bytes(text) if is_last or len(text) > max_bytes else None

    def has_too_many_pings(self) -> bool:
        """Count a ping. Are there now more pings than allowed between two ticks?"""
        self._pings += 1
        return self._pings > MAX_PINGS

    def tick(self) -> None:
        """Start the count of pings again."""
        self._pings = 0
