"""Model names as Ollama reads them."""

from __future__ import annotations

import re

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-:]{0,349}")
_DEFAULTS = ("registry.ollama.ai/", "library/")


def full_name(name: str) -> str | None:
    """Return the full name (`llama3:latest` of `llama3`), without default host and namespace; None if it is invalid."""
    short = name
    for default in _DEFAULTS:
        short = short.removeprefix(default)
    *places, last = short.split("/")
    model, colon, tag = last.partition(":")
    if len(places) > 2 or not _PART.fullmatch(model) or (colon and not _PART.fullmatch(tag)):
        return None
    if places and not all(map(_HOST.fullmatch, places)):
        return None
    return "/".join([*places, f"{model}:{tag or 'latest'}"])
