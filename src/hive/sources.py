"""The sources of the hub's settings. Flags win over environment variables, and these win over `hive.toml`."""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from hive.config import (
    NAME,
    NAME_RULE,
    NODE_OPTIONS,
    OPTIONS,
    NodeSettings,
    Option,
    Secret,
    Settings,
    SettingsError,
)

DEFAULT_FILE = Path("hive.toml")
_SHOWN_VALUE_CHARACTERS = 60
_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}
_NODE_TYPES = {field.name: field.type for field in msgspec.structs.fields(NodeSettings)}


@dataclass(frozen=True, slots=True)
class _Origin:
    """The place where a value was found, and how to read the value."""

    text: str
    is_typed: bool = False
    """Does the value have a type of its own (TOML)? Flags and variables are texts."""
    directory: Path = Path()
    """The directory that a relative path starts from."""


def load_settings(
    flags: Mapping[str, object] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings from flags, environment and file; the first source that has a value wins.

    Raises SettingsError.
    `flags` holds what the command line gave for each option: a text, a switch or a list of texts; None if nothing.
    """
    variables = os.environ if environ is None else environ
    file = config or (Path(variables["HIVE_CONFIG"]) if variables.get("HIVE_CONFIG") else None)
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    chosen: dict[str, object] = {}
    for found in (_from_file(file) if file else {}, _from_environment(variables), _from_flags(flags or {})):
        if "admin_key" in found and "admin_key_file" in found:
            raise SettingsError("admin_key and admin_key_file: only one of them can be set")
        if "admin_key" in found or "admin_key_file" in found:
            chosen.pop("admin_key", None)
            chosen.pop("admin_key_file", None)
        chosen.update(found)
    if isinstance(key_file := chosen.get("admin_key_file"), Path):
        chosen["admin_key"] = read_secret("admin_key_file", key_file)
    if ("tls_cert" in chosen) != ("tls_key" in chosen):
        lacking = "tls_key" if "tls_cert" in chosen else "tls_cert"
        raise SettingsError(f"tls_cert and tls_key: HTTPS needs both, and {lacking} is not set")
    return msgspec.convert(chosen, Settings)


def _from_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML ({error})") from error
    _refuse_unknown(str(path), tables, OPTIONS)
    origin = _Origin(f"in {path}", is_typed=True, directory=path.parent)
    return {name: _read(name, raw, origin) for name, raw in tables.items()}


def _from_environment(variables: Mapping[str, str]) -> dict[str, object]:
    """Return the values of HIVE_* variables that are options.

    Other variables are ignored (HIVE_HUB, Kubernetes' own).
    """
    found: dict[str, object] = {}
    for name, option in OPTIONS.items():
        text = variables.get(option.variable, "")
        injected = name == "port" and "://" in text  # Kubernetes sets HIVE_PORT=tcp://10.0.0.1:4483
        if text and not injected:
            found[name] = _read(name, text, _Origin(f"from {option.variable}"))
    return found


def _from_flags(flags: Mapping[str, object]) -> dict[str, object]:
    _refuse_unknown("command line", flags, OPTIONS)
    return {
        name: _read(name, raw, _Origin(f"from {OPTIONS[name].flag}")) for name, raw in flags.items() if raw is not None
    }


def _refuse_unknown(where: str, given: Iterable[str], known: Mapping[str, Option]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise SettingsError(f"{where}: unknown option {_shown(name)}{hint}")


def _read(name: str, raw: object, origin: _Origin) -> object:
    """Return an option's value, read from the raw value of a source."""
    if OPTIONS[name].is_list and not origin.is_typed:
        parts = raw if isinstance(raw, list) else [raw]
        raw = [text.strip() for part in parts for text in str(part).split(",") if text.strip()]
    if name == "nodes":
        return _nodes(raw, origin)
    value = _converted(name, raw, _TYPES[name], OPTIONS[name], origin)
    if name == "trusted_proxies":
        _check_each(name, value, origin, _is_network, "an address or a network such as 10.0.0.0/8")
    if name == "origins":
        _check_each(name, value, origin, _is_origin, "an origin such as https://chat.example.org or '*'")
    return value


def _converted(label: str, raw: object, kind: object, option: Option, origin: _Origin) -> object:
    def custom(wanted: type, value: object) -> object:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("not a text")
        if wanted is Path:
            return origin.directory / os.path.expanduser(value)  # Path.expanduser raises for an unknown user
        return check_secret(label, value)

    try:
        return msgspec.convert(raw, kind, strict=origin.is_typed, dec_hook=custom)
    except msgspec.ValidationError as error:
        is_bound = any(mark in str(error) for mark in (" >", " <", "length", "range"))
        got = "" if option.is_secret else f", got {_shown(raw)}"
        raise SettingsError(f"{label}: expected {_expected(option.type, is_bound)}{got} ({origin.text})") from error


def _expected(kind: inspect.Type, with_bounds: bool) -> str:
    """Return in words what a type accepts."""
    match kind:
        case inspect.IntType(ge=least, le=most):
            return f"an integer from {least} to {most}" if with_bounds else "an integer"
        case inspect.FloatType(ge=least, le=most):
            bounds = f" {'above 0, at most' if least is None else 'from 0 to'} {most:g}" if most else ""
            return "a number of seconds" + (bounds if with_bounds else "")
        case inspect.BoolType():
            return "true or false"
        case inspect.EnumType(cls=choices):
            return " or ".join(str(choice.value) for choice in choices)
        case inspect.VarTupleType():
            return "a list of texts"
        case _:
            return "a text"


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= _SHOWN_VALUE_CHARACTERS else text[: _SHOWN_VALUE_CHARACTERS - 3] + "..."


def _nodes(raw: object, origin: _Origin) -> tuple[NodeSettings, ...]:
    if not isinstance(raw, list):
        raise SettingsError(f"nodes: expected [[nodes]] tables, each with name and url ({origin.text})")
    nodes: dict[str, NodeSettings] = {}
    for entry in raw:
        node = _node(entry, origin)
        if nodes.setdefault(node.name.casefold(), node) is not node:
            raise SettingsError(f"node '{node.name}': the name is given twice ({origin.text})")
    return tuple(nodes.values())


def _table(entry: object, origin: _Origin) -> Mapping[str, object]:
    """Return a node as a table of hive.toml would hold it. NAME=URL is the short form of such a table."""
    if isinstance(entry, str):
        name, equals, url = entry.partition("=")
        if not equals:
            raise SettingsError(f"nodes: expected NAME=URL, but there is no '=' ({origin.text})")
        return {"name": name, "url": url}
    if not isinstance(entry, dict):
        raise SettingsError(f"nodes: expected [[nodes]] tables, each with name and url ({origin.text})")
    for option in ("name", "url"):
        if option not in entry:
            which = f"node '{entry['name']}'" if "name" in entry else "a node"
            raise SettingsError(f"nodes: {which} has no {option} ({origin.text})")
    return entry


def _node(entry: object, origin: _Origin) -> NodeSettings:
    table = _table(entry, origin)
    name = table["name"]
    if not isinstance(name, str) or not NAME.match(name):
        raise SettingsError(f"node {_shown(name)}: expected a name of {NAME_RULE} ({origin.text})")
    label = f"node '{name}'"
    _refuse_unknown(f"{label} {origin.text}", table, NODE_OPTIONS)
    if "api_key" in table and "api_key_file" in table:
        raise SettingsError(f"{label}: api_key and api_key_file: only one of them can be set ({origin.text})")
    values = {
        key: _converted(f"{label}: {key}", raw, _NODE_TYPES[key], NODE_OPTIONS[key], origin)
        for key, raw in table.items()
        if key != "url"
    }
    if isinstance(key_file := values.get("api_key_file"), Path):
        values["api_key"] = read_secret(f"{label}: api_key_file", key_file)
    return msgspec.convert({**values, "url": _engine_url(label, table["url"], origin)}, NodeSettings)


def _engine_url(label: str, raw: object, origin: _Origin) -> str:
    """Return the URL as scheme, host and port, or say what is wrong with it. Credentials are never shown."""
    wanted = "a URL such as http://10.0.0.5:11434"
    if not isinstance(raw, str) or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise SettingsError(f"{label}: url: expected {wanted} ({origin.text})")
    if "@" in raw:
        raise SettingsError(f"{label}: url: holds credentials; use api_key or api_key_file ({origin.text})")
    try:
        url = urlsplit(raw)
        port = url.port
    except ValueError as error:
        raise SettingsError(f"{label}: url: expected {wanted}, got {_shown(raw)} ({error})") from error
    if url.scheme not in ("http", "https"):
        raise SettingsError(f"{label}: url: expected http:// or https://, got {_shown(raw)} ({origin.text})")
    if not url.hostname or port == 0:
        raise SettingsError(f"{label}: url: expected {wanted}, got {_shown(raw)} ({origin.text})")
    if url.path not in ("", "/") or "?" in raw or "#" in raw:
        raise SettingsError(f"{label}: url: expected nothing after host and port, got {_shown(raw)} ({origin.text})")
    return f"{url.scheme}://{url.netloc}"


def check_secret(label: str, text: str) -> Secret:
    """Return the key, which fits a header. Raises SettingsError, which does not show the key."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(f"{label}: a key is printable ASCII without spaces, and this one is not")
    return Secret(text)


def read_secret(label: str, path: Path) -> Secret:
    """Return the key in a file, without white space around it. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fact = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SettingsError(f"{label}: {path} cannot be read ({fact})") from error
    if not text:
        raise SettingsError(f"{label}: {path} is empty")
    return check_secret(label, text)


def _check_each(name: str, value: object, origin: _Origin, is_good: Callable[[str], bool], wanted: str) -> None:
    assert isinstance(value, tuple)
    for text in value:
        if not is_good(text):
            raise SettingsError(f"{name}: expected {wanted}, got {_shown(text)} ({origin.text})")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_origin(text: str) -> bool:
    scheme, separator, host = text.partition("://")
    return text == "*" or bool(scheme and separator and host and text.isascii() and text.isprintable())
