"""The addresses on this machine where engines usually listen, and a probe that recognises an engine there."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from hive import errors
from hive.config import is_loopback
from hive.errors import Fault
from hive.fleet.identity import identify
from hive.fleet.kinds import EngineKind
from hive.fleet.listings import UnreadableListing, read_v1_models
from hive.net.outbox import Outbox
from hive.node.agent_options import EngineAddress
from hive.node.engine_server import EngineServer
from hive.node.engine_watcher import LISTING_TIMEOUT, ask_steps

OLLAMA_PORT = 11434
OTHER_PORTS = (8000, 8080, 1234)
"""The usual ports of vLLM, llama.cpp and LM Studio."""


def candidates(environ: Mapping[str, str], own_addresses: frozenset[str], credential: bytes) -> list[EngineAddress]:
    """Return the addresses to look at. OLLAMA_HOST says where Ollama listens, if that is on this machine."""
    found = [EngineAddress("127.0.0.1", port, credential=credential) for port in (OLLAMA_PORT, *OTHER_PORTS)]
    named = read_ollama_host(environ.get("OLLAMA_HOST", ""))
    if named is not None and (is_loopback(named[0]) or named[0] in own_addresses):
        found[0] = EngineAddress(*named, credential=credential)
    return list(dict.fromkeys(found))


def read_ollama_host(text: str) -> tuple[str, int] | None:
    """Return host and port as Ollama reads OLLAMA_HOST (envconfig/config.go); None if it is not plain HTTP."""
    text = text.strip().strip("'\"")
    scheme, separator, rest = text.rpartition("://")
    if not text or scheme not in ("", "http"):
        return None
    try:
        url = urlsplit(f"//{rest}")
        port = url.port or (80 if separator else OLLAMA_PORT)
        host = url.hostname or "127.0.0.1"
    except ValueError:
        return None
    try:
        is_any = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_any = False
    return ("127.0.0.1" if is_any else host), port


async def probe(address: EngineAddress, outbox: Outbox, tls: ssl.SSLContext | None) -> EngineKind:
    """Return the kind of engine at an address. Raises `Fault` when no engine answers there."""
    server = EngineServer(address, "candidate", outbox, tls)
    try:
        found = await ask_steps(server, identify())
        if found.kind is EngineKind.OPENAI:  # a web application that is no engine may answer every path
            listed = await server.ask("/v1/models", LISTING_TIMEOUT)
            read_v1_models(listed.body, found.kind)
    except UnreadableListing as unreadable:
        raise Fault(errors.NODE_GARBLED, str(unreadable)) from None
    finally:
        server.close()
    return found.kind
