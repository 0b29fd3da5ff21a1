"""The rules for both ends of a joined link: limits, times, close codes. `docs/link.md` is the protocol.

The modules of the link take bytes and give events. They have no socket and no clock:

* `link_rules` (this one);
* `link_messages`: the messages as types, `encode`, and a decoder for each direction;
* `link_accept` and `link_dial`: the HTTP that makes a connection a WebSocket, the hub's side and the node's;
* `link_socket`: `LinkSocket`, messages to frames and back, the closing handshake; `link_frames`: how a frame looks;
  `link_odd_frames`: the frames that the library judges; `link_keep_alive`: pings and silences;
* `link_control` and `link_data`: the state machines of the two kinds of socket; `link_machine`: their common part.

The hub, once its HTTP server has found an upgrade on `PATH` and judged the key:

    upgrade = accept_upgrade(head)                     # raises Fault: answered as any other
    transport.write(upgrade.head)
    arrival = HubArrival(LinkSocket(Side.HUB, now), now)
    events = arrival.receive(data, now)                # with each read; in the end one Hello, JoinData or Closed
    link = HubControl(arrival.socket, now)             # Hello: judge_arrival, then link.welcome(...) or link.close(...)
    link = HubData(arrival.socket, now)                # JoinData: a known session makes it a spare
    events = link.receive(b"", now)                    # bytes that came with the first message

The node:

    dial = Dial("https://hub.example", key, agent)
    transport.write(dial.request)
    socket = dial.receive(data, now)                   # None: not yet; raises Refused
    link = NodeControl(socket, hello, now)             # or NodeData(socket, session, now)
    events = link.receive(b"", now)

From then on all are driven in the same way. Call `receive(data, now)` with each read, `receive_eof(now)` at the end,
and `tick(now)` about twice a second; each returns events. After every call write `link.socket.take_output()`. Once
`link.socket.is_finished`, close the connection. The event `Closed` comes once, but not if the caller called `close`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

PATH: Final = "/hive/link"
SUBPROTOCOLS: Final = ("hive-link-1",)
"""The versions of the protocol, the best first.

The hub takes the first that the node offers too. RFC 6455 forbids `/`.
"""
MARK_OF_HUB: Final = "x-hive-request-id"
"""A header field of each answer of a hub, refusals included. An answer without it comes from something else."""

MAX_CONTROL_BYTES: Final = 8 << 20
"""The most bytes of a message on the control socket: enough for a report with all lists of 64 engines."""
MAX_TEXT_BYTES: Final = 4096
"""The most bytes of any other text message."""
MAX_BINARY_BYTES: Final = 1 << 20
"""The most bytes of a binary message that is received."""
SENT_BINARY_BYTES: Final = 64 << 10
"""The most bytes of a binary message that is sent."""
MAX_PINGS: Final = 16
"""The most pings between two ticks. Each must be answered."""

FIRST_MESSAGE_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 2.0
SUSPECT_SECONDS: Final = 5.0
HEARTBEAT_LOST_SECONDS: Final = 10.0
HUB_SILENT_SECONDS: Final = 10.0
PING_SECONDS: Final = 15.0
PONG_SECONDS: Final = 10.0
BUSY_PONG_SECONDS: Final = 30.0
"""Seconds for an answer to a ping during an exchange: the ping may wait behind a request on a slow line."""
ACCEPT_SECONDS: Final = 2.0
ACCEPT_HOLD_SECONDS: Final = 0.05
"""How long a node may hold `accepted`, so that it leaves in one write with the first bytes of the answer."""
CANCEL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 2.0
STALL_SECONDS: Final = 2.0
"""If two ticks are further apart than this, the program itself was stopped. Then silence proves nothing."""
MAX_LINKS: Final = 4096
SPARE_LINKS: Final = 4
"""Data sockets beyond the slots, so that `show`, `pull` and `ps` pass a busy node."""


class CloseCode(IntEnum):
    """Why a socket was closed. Codes below 4000 are those of RFC 6455, 7.4.1."""

    NORMAL = 1000
    GOING_AWAY = 1001
    BAD_FRAME = 1002
    BROKE_OFF = 1006
    NOT_TEXT = 1007
    TOO_BIG = 1009
    MALFORMED = 4000
    VIOLATION = 4001
    TOO_LATE = 4002
    SILENT = 4003
    HEARTBEAT_LOST = 4004
    NOT_ACCEPTED = 4005
    NOT_CANCELLED = 4006
    REPLACED = 4007
    NAME_TAKEN = 4008
    KEY_REVOKED = 4009
    SESSION_OVER = 4010
    TOO_MANY = 4011


class LinkError(Exception):
    """A message breaks this protocol. The error says which part and why; the socket is closed with `code`."""

    def __init__(self, message: str, code: CloseCode = CloseCode.MALFORMED) -> None:
        super().__init__(message)
        self.code = code


def links_for(slots: int) -> int:
    """Return how many data sockets a node with `slots` slots keeps."""
    return min(slots + SPARE_LINKS, MAX_LINKS)


class ArrivalVerdict(StrEnum):
    """The hub's decision about a node that says hello."""

    WELCOME = "welcome"
    REPLACES = "replaces"
    """The same agent has come back. Its old sockets are closed with `CloseCode.REPLACED`."""
    NAME_TAKEN = "name_taken"
    """Another machine uses the same key. The new socket is closed with `CloseCode.NAME_TAKEN`."""


def judge_arrival(living: str | None, arriving: str) -> ArrivalVerdict:
    """Compare the instance that is connected under a name, if any, with the arriving instance."""
    if living is None:
        return ArrivalVerdict.WELCOME
    return ArrivalVerdict.REPLACES if living == arriving else ArrivalVerdict.NAME_TAKEN
