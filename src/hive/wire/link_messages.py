"""The messages of a joined link as types: their fields, `encode`, and a decoder for each direction.

Unknown types and unknown fields are ignored, because a newer version may send them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw

from hive.wire.link_rules import MAX_LINKS, LinkError


class EndCode(StrEnum):
    """Why an exchange has no whole answer: the codes of `Ended.error`. A newer node may send others."""

    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_BROKE_OFF = "engine_broke_off"
    ENGINE_GARBLED = "engine_garbled"
    ENGINE_UNKNOWN = "engine_unknown"
    REQUEST_REFUSED = "request_refused"
    CANCELLED = "cancelled"


MAX_SLOTS: Final = 4096
"""The most slots of an engine."""

_ONE_LINE = r"\A[^\x00-\x1f\x7f-\x9f]*\Z"

Text = Annotated[str, Meta(max_length=128, pattern=_ONE_LINE)]
LongText = Annotated[str, Meta(max_length=1024, pattern=_ONE_LINE)]
EngineId = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,32}\Z")]
ExchangeId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
Instance = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16,64}\Z")]
Session = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{16,128}\Z")]
Count = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
"""A number that every reader of JSON can hold (RFC 8259, 6)."""
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Period = Annotated[float, Meta(ge=0.5, le=60)]
Slots = Annotated[int, Meta(ge=1, le=MAX_SLOTS)]
LinkCount = Annotated[int, Meta(ge=0, le=MAX_LINKS)]
Labels = Annotated[dict[Text, Text], Meta(max_length=64)]

NOTHING: Final = Raw(b"null")


def one_line(text: str, max_chars: int = 1024) -> str:
    """Return an engine's text in the form for messages: without control characters and not too long."""
    return "".join(" " if ord(char) < 32 or 127 <= ord(char) < 160 else char for char in text[:max_chars])


def json_object(body: bytes) -> Raw:
    """Return an engine's answer, byte for byte, if it is one JSON object in UTF-8; otherwise null."""
    try:
        _decode_object(body.decode())
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return NOTHING
    return Raw(body.strip())


_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


class Gpu(msgspec.Struct, frozen=True):
    """One graphics processor. None means unknown."""

    name: Text
    memory_total_bytes: Count
    memory_used_bytes: Count | None = None
    utilization: Fraction | None = None


class MachineState(msgspec.Struct, frozen=True):
    """The present state of the machine. None means unknown."""

    cpu: Fraction | None = None
    memory_total_bytes: Count | None = None
    memory_used_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=64)] = ()


class ReportedEngine(msgspec.Struct, frozen=True):
    """An engine as its node sees it. `tags`, `ps` and `v1_models` are the engine's answers, byte for byte, or null."""

    id: EngineId
    kind: Text
    version: Text = ""
    address: LongText = ""
    """Shown to people. The hub names the engine only by `id`."""
    slots: Slots | None = None
    is_alive: bool = True
    is_silent: bool = False
    """Was the last probe not answered in time?

    Then the lists are from an earlier probe, and no other error is known.
    """
    error: LongText = ""
    tags: Raw = NOTHING
    ps: Raw = NOTHING
    v1_models: Raw = NOTHING

    def __post_init__(self) -> None:
        for name in ("tags", "ps", "v1_models"):
            first = bytes(memoryview(getattr(self, name))[:4])
            if first[:1] != b"{" and first != b"null":
                raise ValueError(f"{name}: expected an object or null")


Engines = Annotated[tuple[ReportedEngine, ...], Meta(max_length=64)]


def _check_ids(engines: tuple[ReportedEngine, ...]) -> None:
    if len({engine.id for engine in engines}) < len(engines):
        raise ValueError("engines: an id stands twice")


class EngineBeat(msgspec.Struct, frozen=True):
    """The signs of life of one engine."""

    alive: bool
    idle_s: Seconds | None = None
    """The seconds for which the engine's processes have used neither CPU nor GPU."""
    stopped: bool = False
    """Is the engine's process stopped (SIGSTOP, a debugger)?"""


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """The first message of a control socket, from the node: its identity."""

    instance: Instance
    """Random for each agent process. It tells a reconnect from a second machine with the same key."""
    agent: Text
    platform: Text = ""
    labels: Labels = msgspec.field(default_factory=dict)
    engines: Engines = ()
    machine: MachineState = MachineState()

    def __post_init__(self) -> None:
        _check_ids(self.engines)


class Report(msgspec.Struct, frozen=True, tag_field="type", tag="report"):
    """Node to hub: a new report of all engines, because something about one of them changed."""

    engines: Engines

    def __post_init__(self) -> None:
        _check_ids(self.engines)


class Heartbeat(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat"):
    """Node to hub: the node lives. The message holds the state of its machine and engines."""

    seq: Count
    machine: MachineState = MachineState()
    engines: Annotated[dict[EngineId, EngineBeat], Meta(max_length=64)] = msgspec.field(default_factory=dict)


class Draining(msgspec.Struct, frozen=True, tag_field="type", tag="draining"):
    """Node to hub: the node wants no new exchange. It leaves when its last exchange has ended."""


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome"):
    """The hub's answer to `Hello`: the node has joined."""

    node: Text
    session: Session
    """The secret that data sockets show; it cannot be guessed."""
    heartbeat_s: Period
    ping_s: Period
    links: LinkCount
    """How many data sockets the node must keep, including busy ones."""


class Links(msgspec.Struct, frozen=True, tag_field="type", tag="links"):
    """Hub to node: keep this number of data sockets from now on."""

    want: LinkCount


class Beat(msgspec.Struct, frozen=True, tag_field="type", tag="beat"):
    """The hub's answer to each heartbeat: the hub lives."""

    seq: Count


class Refresh(msgspec.Struct, frozen=True, tag_field="type", tag="refresh"):
    """Hub to node: ask this engine for its models now, then report."""

    engine: EngineId


class Bye(msgspec.Struct, frozen=True, tag_field="type", tag="bye"):
    """Hub to node: this session will be closed; dial no more data sockets."""

    reason: LongText = ""


class JoinData(msgspec.Struct, frozen=True, tag_field="type", tag="data"):
    """The first message of a data socket, node to hub."""

    session: Session


class Open(msgspec.Struct, frozen=True, tag_field="type", tag="open"):
    """Hub to node: an exchange begins; the bytes of its request follow."""

    id: ExchangeId
    engine: EngineId


class Cancel(msgspec.Struct, frozen=True, tag_field="type", tag="cancel"):
    """Hub to node: end the exchange; its answer is no longer wanted."""

    id: ExchangeId


class Accepted(msgspec.Struct, frozen=True, tag_field="type", tag="accepted"):
    """Node to hub: the exchange has arrived. The bytes of its answer follow."""

    id: ExchangeId


class EndError(msgspec.Struct, frozen=True):
    """Why an answer is not whole. `code` is one of `EndCode`, or newer."""

    code: Text
    message: LongText = ""


class Ended(msgspec.Struct, frozen=True, tag_field="type", tag="ended"):
    """Node to hub: no byte of this exchange follows, and the socket is a spare again."""

    id: ExchangeId
    error: EndError | None = None


FromNode = Report | Heartbeat | Draining
FromHub = Welcome | Links | Beat | Refresh | Bye
FromNodeData = Accepted | Ended
FromHubData = Open | Cancel
First = Hello | JoinData
Message = First | FromNode | FromHub | FromNodeData | FromHubData

_encode = msgspec.json.Encoder().encode
M = TypeVar("M")


def encode(message: Message) -> bytes:
    """Return a message as JSON. The receiver finds forbidden content: see `one_line`, `json_object`."""
    return _encode(message)


class _Tag(msgspec.Struct, frozen=True):
    type: str


_read_tag = msgspec.json.Decoder(_Tag).decode


class MessageDecoder(Generic[M]):
    """Reads the messages that one side of one kind of socket may send: `MessageDecoder(FromNode)`."""

    def __init__(self, union: object) -> None:
        self._decode: Callable[[str], M] = msgspec.json.Decoder(union).decode

    def decode(self, text: str) -> M | None:
        """Return the message; None for a type that a newer version may know. Raises `LinkError`."""
        try:
            return self._decode(text)
        except RecursionError:
            raise LinkError("the message is nested too deeply") from None
        except msgspec.ValidationError as error:
            if self._is_foreign(text):
                return None
            raise LinkError(str(error)[:120]) from None
        except msgspec.DecodeError as error:
            raise LinkError(str(error)[:120]) from None

    def _is_foreign(self, text: str) -> bool:
        """Is the text an object whose type is none of ours?"""
        try:
            return _read_tag(text).type not in _TYPES
        except (msgspec.DecodeError, RecursionError):
            return False


_TYPES = frozenset({
    "hello", "report", "heartbeat", "draining", "welcome", "links", "beat", "refresh", "bye",
    "data", "open", "cancel", "accepted", "ended",
})  # fmt: skip
FIRST: Final = MessageDecoder[First](First)
FROM_NODE: Final = MessageDecoder[FromNode](FromNode)
FROM_HUB: Final = MessageDecoder[FromHub](FromHub)
FROM_NODE_DATA: Final = MessageDecoder[FromNodeData](FromNodeData)
FROM_HUB_DATA: Final = MessageDecoder[FromHubData](FromHubData)
