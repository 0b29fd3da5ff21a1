"""Model names as Ollama reads them: `m` is `m:latest`, case does not matter, the default registry is left out.

Grammar and limits: Ollama's types/model/name.go.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from hive.dialects.routes import Route

_DEFAULT_PREFIXES = ("registry.ollama.ai/library/", "registry.ollama.ai/", "library/")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,79}"
_NAME = re.compile(
    r"(?:[a-z]+://)?"
    r"(?:(?:[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,349}/)?"  # a host, which stands only before a namespace
    r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,79}/)?"
    rf"{_PART}(?::{_PART})?"
)
MAX_NAME = 600
"""The most characters of a name. A longer text is no name, and is not looked up."""


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return the key under which a model is known: lower case, with a tag, without the default registry."""
    key = name.casefold()
    if "://" in key:
        key = key.partition("://")[2]
    for prefix in _DEFAULT_PREFIXES:
        if key.startswith(prefix):
            key = key[len(prefix) :]
            break
    if ":" not in key.rpartition("/")[2]:
        key += ":latest"
    return key


def with_tag(name: str) -> str:
    """Return the client's spelling with its tag, as Ollama shows it in some errors."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


def is_valid(name: str) -> bool:
    """Could Ollama have a model of this name?"""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def unknown_model_text(route: Route, name: str) -> str:
    """Return Ollama's words for a model that it does not have; the words differ by route."""
    if route.quotes_model and name:
        return f"model {json.dumps(name, ensure_ascii=False)} not found, try pulling it first"
    if route.reads_name:
        name = with_tag(name)
    return f"model '{name}' not found"
