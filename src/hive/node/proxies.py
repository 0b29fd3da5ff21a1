"""The HTTP proxy before the hub, as the environment names it, and the request that gets through it (CONNECT)."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hive.config import SettingsError, is_loopback

MAX_ANSWER_BYTES = 32 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `credential` is the header line for it."""

    host: str
    port: int
    is_tls: bool = False
    credential: bytes = field(default=b"", repr=False)

    def connect(self, host: str, port: int) -> bytes:
        """Return the request that opens a tunnel (RFC 9110, 9.3.6)."""
        shown = f"[{host}]" if ":" in host else host
        target = f"{shown}:{port}".encode()
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, self.credential)


def find_proxy(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a hub's URL, if the environment names one. Raises `SettingsError`."""
    hub = urlsplit(url)
    is_tls = hub.scheme == "https"
    host, port = hub.hostname or "", hub.port or (443 if is_tls else 80)
    for name in ("https_proxy" if is_tls else "http_proxy", "all_proxy"):
        text = environ.get(name) or environ.get(name.upper()) or ""
        if text:
            is_direct = is_loopback(host) or is_excepted(host, port, environ)
            return None if is_direct else _read(text, name.upper())
    return None


def is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Does NO_PROXY name this host: by name, domain, address or network, each with or without a port?"""
    host = host.lower().rstrip(".")
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").lower().split(","):
        name = entry.strip()
        if name == "*":
            return True
        name, wanted_port = _split_port(name)
        if not name or (wanted_port is not None and wanted_port != port):
            continue
        domain = name.removeprefix("*").strip(".")
        if host == domain or host.endswith(f".{domain}") or _is_in(host, name):
            return True
    return False


def _split_port(name: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([0-9a-f:.]+)\](?::(\d{1,5}))?", name)
    if bracketed:
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    plain = re.fullmatch(r"([^:]+):(\d{1,5})", name)
    return (plain[1], int(plain[2])) if plain else (name, None)


def _is_in(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _read(text: str, name: str) -> Proxy:
    wanted = f"{name}: expected a URL such as http://proxy.example:3128"
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port = url.port
    except ValueError:
        raise SettingsError(wanted) from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(f"{wanted}; other kinds of proxies are not spoken")
    credential = b""
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        credential = b"Proxy-Authorization: Basic " + base64.b64encode(pair) + b"\r\n"
    is_tls = url.scheme == "https"
    return Proxy(url.hostname, port or (443 if is_tls else 80), is_tls, credential)


def read_answer(answer: bytes) -> str | None:
    """Return why a proxy's whole answer opens no tunnel; None if it opens one."""
    line = _STATUS.match(answer)
    if line is None:
        return "the proxy does not answer as an HTTP proxy does"
    if line[1].startswith(b"2"):
        return None
    if line[1] == b"407":
        return "the proxy wants other credentials (407)"
    reason = (line[2] or b"").decode("ascii", "replace")[:100]
    return f"the proxy refuses: {line[1].decode()} {reason}".rstrip()
