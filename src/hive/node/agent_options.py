"""The options of `hive node`, read and checked: the hub, the key, the engines, labels, certificates."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from hive.config import Secret, SettingsError
from hive.sources import check_secret, read_secret
from hive.wire.link_dial import Dial
from hive.wire.link_messages import MAX_SLOTS, one_line

MAX_ENGINES = 64
MAX_LABELS = 64
MAX_LABEL_CHARACTERS = 128
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """The address of an engine, and the header line with its credential."""

    host: str
    port: int
    is_tls: bool = False
    credential: bytes = field(default=b"", repr=False)

    @property
    def url(self) -> str:
        """Return the URL for people, without the credential."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """The settings of an agent."""

    hub: str
    key: Secret
    engines: tuple[EngineAddress, ...] = ()
    """The engines; None: the agent looks for engines."""
    slots: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    engine_credential: bytes = field(default=b"", repr=False)
    """The credential for engines whose address has none."""


@dataclass(frozen=True, slots=True)
class Given:
    """The values of flags. The environment gives the missing ones."""

    hub: str | None = None
    key: str | None = None
    key_file: Path | None = None
    engines: Sequence[str] = ()
    slots: str | None = None
    labels: Sequence[str] = ()
    ca_file: Path | None = None


def read_options(given: Given, environ: Mapping[str, str]) -> NodeOptions:
    """Return the options from flags, and from HIVE_* variables where a flag is missing. Raises `SettingsError`."""
    shared = environ.get("HIVE_ENGINE_KEY", "").strip()
    credential = _bearer(check_secret("HIVE_ENGINE_KEY", shared).value) if shared else b""
    engines = given.engines or _listed(environ, "HIVE_ENGINE")
    if len(engines) > MAX_ENGINES:
        raise SettingsError(f"--engine: {len(engines)} engines, {MAX_ENGINES} at most")
    addresses = tuple(dict.fromkeys(read_engine(text, credential) for text in engines))
    ca_file = given.ca_file or _path(environ, "HIVE_CA_FILE")
    slots = given.slots or environ.get("HIVE_SLOTS") or None
    return NodeOptions(
        hub=_hub(given.hub or environ.get("HIVE_HUB", "")),
        key=_key(given, environ),
        engines=addresses,
        slots=None if slots is None else _slots(slots),
        labels=_labels(given.labels or _listed(environ, "HIVE_LABEL")),
        ca_file=ca_file,
        engine_credential=credential,
    )


def _listed(environ: Mapping[str, str], name: str) -> list[str]:
    return [text.strip() for text in environ.get(name, "").split(",") if text.strip()]


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _hub(text: str) -> str:
    if not text:
        raise SettingsError("--hub: the hub's URL is needed, here or in HIVE_HUB")
    try:
        Dial(text, "-", "-")
    except (ValueError, UnicodeError) as error:
        raise SettingsError(f"--{error}" if str(error).startswith("hub: ") else "--hub: not a URL") from None
    return text if "://" in text else f"http://{text}"


def _key(given: Given, environ: Mapping[str, str]) -> Secret:
    if given.key and given.key_file:
        raise SettingsError("--key and --key-file: only one of them can be given")
    if given.key:
        return check_secret("--key", given.key)
    if given.key_file:
        return read_secret("--key-file", given.key_file)
    if environ.get("HIVE_KEY", "").strip():
        return check_secret("HIVE_KEY", environ["HIVE_KEY"].strip())
    if environ.get("HIVE_KEY_FILE"):
        return read_secret("HIVE_KEY_FILE", Path(environ["HIVE_KEY_FILE"]))
    is_client = bool(environ.get("HIVE_API_KEY", "").strip())
    hint = " (HIVE_API_KEY is for the client commands; it is HIVE_KEY here)" if is_client else ""
    raise SettingsError(
        f"--key-file: a worker key is needed, here, in HIVE_KEY or by --key{hint};"
        " 'hive keys create NAME --role worker' makes one"
    )


def _slots(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_SLOTS:
        raise SettingsError(f"--slots: expected an integer from 1 to {MAX_SLOTS}, got {text!r}")
    return int(text)


def _labels(texts: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        is_short = max(len(name), len(value)) <= MAX_LABEL_CHARACTERS
        if not equals or not name or not is_short or one_line(text) != text:
            shown = one_line(text, 60)
            raise SettingsError(f"--label: expected NAME=VALUE, {MAX_LABEL_CHARACTERS} characters each, got {shown!r}")
        labels[name] = value
    if len(labels) > MAX_LABELS:
        raise SettingsError(f"--label: {len(labels)} labels, {MAX_LABELS} at most")
    return labels


def read_engine(text: str, credential: bytes = b"") -> EngineAddress:
    """Return the address in an engine's URL. `credential` is for a URL without a user. Raises `SettingsError`."""
    shown = text.rpartition("@")[2]
    wanted = f"--engine: expected a URL such as http://127.0.0.1:11434, got {shown!r}"
    if not text.isascii() or not text.isprintable() or " " in text or "?" in text or "#" in text:
        raise SettingsError(wanted)
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port = url.port
    except ValueError:
        raise SettingsError(wanted) from None
    if url.scheme not in _PORTS or not url.hostname or port == 0:
        raise SettingsError(wanted)
    if url.path not in ("", "/"):
        raise SettingsError(f"--engine: only scheme, host and port: expected nothing after them, got {shown!r}")
    own = _credential_of(url)
    return EngineAddress(url.hostname, port or _PORTS[url.scheme], url.scheme == "https", own or credential)


def _credential_of(url: SplitResult) -> bytes:
    """Return the header line for a URL's user: `KEY@` is a bearer token, `USER:PASSWORD@` is Basic."""
    if url.username is None:
        return b""
    user = unquote(url.username)
    if url.password is None:
        return _bearer(check_secret("--engine", user).value)
    pair = f"{user}:{unquote(url.password)}".encode()
    return b"Authorization: Basic " + base64.b64encode(pair) + b"\r\n"


def _bearer(key: str) -> bytes:
    return b"Authorization: Bearer " + key.encode() + b"\r\n"
