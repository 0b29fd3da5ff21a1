"""Every option of the hub, declared once: its name, type, default and help. `hive.sources` reads the values.

The declarations use msgspec, which the hub loads in any case. pydantic-settings would take 36 ms and 5 MB more, and
does not say which source a wrong value came from.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, inspect

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
"""The form of a name of a node or key. Such a name fits a header, a URL's path, a label and a file name."""
NAME_RULE = "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
NO_NODES = "none yet: --node NAME=URL for machines that the hub can reach, hive node for others"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """One sentence for the operator who starts the hub: it names the option and says what is wrong."""


class LocalAccess(StrEnum):
    """What a request from this machine may do without a key."""

    OFF = "off"
    INFER = "infer"
    MANAGE = "manage"


class PolicyName(StrEnum):
    """How the hub chooses among several engines that could serve a request (`hive.scheduling.policies`)."""

    BEST = "best"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    LEAST_BUSY = "least_busy"


class LogFormat(StrEnum):
    """The form of log lines."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The lowest level of log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Secret:
    """A text that no repr, log line or message shows. `value` holds it."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)


def default_data_dir() -> Path:
    """Return the directory for the hub's data that belongs to this user."""
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hive"
        xdg = os.environ.get("XDG_DATA_HOME", "")
        return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".local" / "share") / "hive"
    except RuntimeError as error:  # the user id has no account
        raise SettingsError("data_dir: this user has no home directory, so it must be set") from error


Port = Annotated[int, Meta(ge=0, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Size = Annotated[int, Meta(ge=1_024, le=1 << 40)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A dialed node: a machine that the hub connects to."""

    name: str
    url: str
    slots: Count | None = None
    api_key: Secret | None = None
    """The key that the engine asks for. It comes from `api_key_file` if that was given."""
    api_key_file: Path | None = None


# large because: it lists every option of the hub, once, and does nothing with them
class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the hub. An object that is built directly holds the defaults and reads no source."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="Port to listen on; 0 takes a free one.")] = 4483
    data_dir: Annotated[Path, Meta(description="Directory of the hub's database, mode 0700, for one hub.")] = (
        msgspec.field(default_factory=default_data_dir)
    )
    nodes: Annotated[
        tuple[NodeSettings, ...],
        Meta(description="Nodes to dial: [[nodes]] tables with name, url, slots, api_key or api_key_file."),
    ] = ()
    slots: Annotated[
        Count | None,
        Meta(description="Concurrent requests on each engine of a dialed node; by its kind if not set."),
    ] = None
    open: Annotated[bool, Meta(description="Let everybody infer without a key.")] = False
    local_access: Annotated[
        LocalAccess | None,
        Meta(
            description="What requests from this machine may do without a key. Default: infer; off if the host "
            "is not loopback or trusted_proxies is set."
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="Addresses or networks whose forwarding headers are believed.")
    ] = ()
    origins: Annotated[
        tuple[str, ...], Meta(description="More origins that browsers may come from, as in OLLAMA_ORIGINS.")
    ] = ()
    admin_key: Annotated[Secret | None, Meta(description="The admin key, instead of a made one.")] = None
    admin_key_file: Annotated[Path | None, Meta(description="File that holds the admin key.")] = None
    tls_cert: Annotated[
        Path | None, Meta(description="File with the certificate for HTTPS, and its chain, in PEM.")
    ] = None
    tls_key: Annotated[Path | None, Meta(description="File with the certificate's key, in PEM.")] = None
    log_format: Annotated[LogFormat, Meta(description="auto is text on a terminal, else json.")] = LogFormat.AUTO
    log_level: Annotated[LogLevel, Meta(description="Least serious log line to write.")] = LogLevel.INFO

    policy: Annotated[
        PolicyName,
        Meta(description="How one of several possible engines is chosen: best, round_robin, random, least_busy."),
    ] = PolicyName.BEST
    queue_limit: Annotated[Count, Meta(description="Requests that may wait; more are refused.")] = 1_000
    queue_timeout: Annotated[Seconds, Meta(description="Seconds a request may wait for a slot.")] = 600
    first_byte_timeout: Annotated[Seconds, Meta(description="Seconds until an answer's first byte.")] = 600
    stream_gap_timeout: Annotated[Seconds, Meta(description="Seconds a begun stream may be silent.")] = 60
    tools_gap_timeout: Annotated[
        Seconds, Meta(description="Seconds a begun stream may be silent if the request has tools.")
    ] = 600
    connect_timeout: Annotated[Seconds, Meta(description="Seconds to connect to a node.")] = 3
    drain_timeout: Annotated[SecondsOrNone, Meta(description="Seconds for running requests at the end.")] = 30

    head_timeout: Annotated[Seconds, Meta(description="Seconds for a request's head to arrive.")] = 10
    body_timeout: Annotated[Seconds, Meta(description="Seconds without a byte of a request's body.")] = 60
    keep_alive_timeout: Annotated[Seconds, Meta(description="Seconds a client connection may idle.")] = 75
    send_timeout: Annotated[Seconds, Meta(description="Seconds a client may take no byte.")] = 60
    linger_timeout: Annotated[
        SecondsOrNone, Meta(description="Seconds to discard what a client sends after an early answer.")
    ] = 2
    max_head_bytes: Annotated[Size, Meta(description="Longest head of a request.")] = 32 * 1024
    max_body_bytes: Annotated[Size, Meta(description="Longest body of a request.")] = 64_000_000
    max_bodies_bytes: Annotated[Size, Meta(description="All bodies held at once.")] = 512_000_000
    held_answer_bytes: Annotated[
        Size, Meta(description="Longest unstreamed answer that is held until it is whole.")
    ] = 1024 * 1024
    held_line_bytes: Annotated[
        Size, Meta(description="Longest line or event of a stream that is held until it is whole.")
    ] = 64 * 1024

    probe_interval: Annotated[Seconds, Meta(description="Seconds between two probes of an engine.")] = 2
    probe_timeout: Annotated[Seconds, Meta(description="Seconds for the answer to a probe.")] = 2
    models_interval: Annotated[Seconds, Meta(description="Seconds between two looks at the models.")] = 30

    def local_access_at(self, host: str) -> LocalAccess:
        """Return what a local request may do without a key at a listener with this host."""
        if self.local_access is not None:
            return self.local_access
        return LocalAccess.INFER if is_loopback(host) and not self.trusted_proxies else LocalAccess.OFF

    @property
    def trusted_networks(self) -> tuple[Network, ...]:
        """Return `trusted_proxies` as networks."""
        return tuple(ipaddress.ip_network(text) for text in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class Option:
    """One option as the command line and the documentation show it."""

    name: str
    help: str
    type: inspect.Type
    default: object = None
    """The default value. It is also None if the hub works the value out at its start."""

    @property
    def flag(self) -> str:
        """Return the option's flag on the command line."""
        return "--node" if self.name == "nodes" else f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Return the option's environment variable."""
        return "HIVE_NODE" if self.name == "nodes" else f"HIVE_{self.name.upper()}"

    @property
    def is_switch(self) -> bool:
        """Is the option either true or false?"""
        return isinstance(self.type, inspect.BoolType)

    @property
    def is_list(self) -> bool:
        """May the option be given several times?"""
        return isinstance(self.type, inspect.VarTupleType)

    @property
    def is_secret(self) -> bool:
        """Must the option stay out of argument lists? Every user of a machine can read those."""
        return isinstance(self.type, inspect.CustomType) and self.type.cls is Secret


def _option(field: inspect.Field) -> Option:
    kind = field.type
    help_text = ""
    if isinstance(kind, inspect.Metadata):
        help_text = str((kind.extra_json_schema or {}).get("description", ""))
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        kind = next(part for part in kind.types if not isinstance(part, inspect.NoneType))
    default = None if field.default is msgspec.NODEFAULT else field.default
    return Option(field.name, help_text, kind, default)


def _options(declared: type[msgspec.Struct]) -> dict[str, Option]:
    described = inspect.type_info(declared)
    assert isinstance(described, inspect.StructType)
    return {field.name: _option(field) for field in described.fields}


def is_loopback(host: str) -> bool:
    """Is a listener on `host` reachable from this machine only?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def changed_options(settings: Settings) -> dict[str, str]:
    """Return the options that differ from their defaults, as texts to be shown: of a secret only that it is set."""
    return {
        name: "(secret)" if option.is_secret else _as_text(value)
        for name, option in OPTIONS.items()
        if (value := getattr(settings, name)) != (_usual_data_dir() if name == "data_dir" else option.default)
    }


def _usual_data_dir() -> Path | None:
    try:
        return default_data_dir()
    except SettingsError:
        return None


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_as_text(each) for each in value)
    if isinstance(value, NodeSettings):
        return f"{value.name}={value.url}"
    return str(value).lower() if isinstance(value, bool) else str(value)


OPTIONS: Mapping[str, Option] = _options(Settings)
NODE_OPTIONS: Mapping[str, Option] = _options(NodeSettings)
