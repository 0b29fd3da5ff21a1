"""Which web pages may call the hub: Ollama's rules for the header Origin, and its CORS answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_SCHEMES = (
    "app://",
    "file://",
    "tauri://",
    "vscode-webview://",
    "vscode-file://",
    "chrome-extension://",
    "moz-extension://",
    "safari-web-extension://",
)
_LOCAL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::\d{1,5})?")
_SAFE = re.compile(rb"[\x21-\x7e]{1,512}")

_ALLOWED_HEADERS = (
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,X-Api-Key,Anthropic-Version,Anthropic-Beta,Openai-Beta,"
    "X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,"
    "X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    "X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_PREFLIGHT = (
    f"Access-Control-Allow-Headers: {_ALLOWED_HEADERS}\r\n"
    "Access-Control-Allow-Methods: GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS\r\n"
    "Access-Control-Max-Age: 43200\r\n"
    "Vary: Access-Control-Request-Method\r\nVary: Access-Control-Request-Headers\r\n"
).encode()


class Origins:
    """The origins that are allowed: local pages, applications, and those in the settings (`*` stands for anything)."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        patterns = [re.escape(origin.strip()).replace(r"\*", ".*") for origin in extra if origin.strip()]
        self._extra = re.compile("|".join(patterns)) if patterns else None
        self._judge = lru_cache(maxsize=256)(self._judge_text)

    def allows(self, origin: bytes, host: bytes) -> bool:
        """May a page of this origin call the hub? A page may always call the host that it came from."""
        if not _SAFE.fullmatch(origin):
            return False
        text = origin.decode("ascii")
        return self._judge(text) or (bool(host) and text.partition("://")[2].encode() == host)

    def _judge_text(self, origin: str) -> bool:
        if origin.startswith(_SCHEMES) or _LOCAL.fullmatch(origin):
            return True
        return self._extra is not None and self._extra.fullmatch(origin) is not None


def cors_fields(origin: bytes) -> bytes:
    """Return the header lines that let a page of an allowed origin read an answer."""
    return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin


def preflight_fields(origin: bytes) -> bytes:
    """Return the header lines of the answer to a preflight (204)."""
    return cors_fields(origin) + _PREFLIGHT
