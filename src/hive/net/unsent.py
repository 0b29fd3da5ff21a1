"""The bytes that were written and have not reached the client: in the transport's buffer and in the system's."""

from __future__ import annotations

import asyncio
import sys

if sys.platform != "win32":
    import fcntl
    import termios
else:
    termios = None


class Unsent:
    """The bytes that wait for one client."""

    __slots__ = ("_is_tls", "_stalled_since", "_taken_bytes", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._taken_bytes = 0
        self._stalled_since: float | None = None

    def __bool__(self) -> bool:
        """Do bytes of an answer still wait for the client?"""
        return self._transport.get_write_buffer_size() > 0 or (self._is_tls and _kernel_bytes(self._transport) > 0)

    def waiting_bytes(self) -> int:
        """Return how many bytes wait for the client, as far as they can be seen."""
        waiting = self._transport.get_write_buffer_size()
        if waiting or self._is_tls:  # with TLS further bytes wait unseen between the two buffers
            waiting += _kernel_bytes(self._transport)
        return waiting

    def is_stalled(self, written_bytes: int, now: float, timeout: float) -> bool:
        """Has the client taken no byte for `timeout`, while bytes wait? `written_bytes`: those of all its answers."""
        waiting = self.waiting_bytes()
        taken = written_bytes - waiting
        if waiting == 0 or taken != self._taken_bytes:
            self._taken_bytes = taken
            self._stalled_since = None
            return False
        if self._stalled_since is None:
            self._stalled_since = now
        return now - self._stalled_since >= timeout


def _kernel_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the system holds for a client (SIOCOUTQ). It takes bytes from us in big steps only."""
    sock = transport.get_extra_info("socket")
    if termios is None or sock is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0
