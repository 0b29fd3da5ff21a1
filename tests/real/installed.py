"""Where the real engines and clients are installed, and how each kind of engine is started."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import re
import shutil
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = pathlib.Path(os.environ.get("HIVE_TEST_ENGINES") or pathlib.Path.home() / ".cache/hive-tests")
MODELS = ROOT / "models"
CLIENT_PYTHON = ROOT / "clients/bin/python"
CLIENT_NODE_MODULES = ROOT / "clients/node_modules"
_HARNESS = HERE.parents[2] / "shared/engines/engines.py"
_HOW = "see tests/real/install.sh"
_PACKAGED_OLLAMA = "ollama-0.9.3"
"""What install.sh can fetch."""


def version_of(kind: str) -> tuple[int, ...]:
    """Return the numbers of an Ollama's version: `ollama-0.33.0-rc2` is (0, 33, 0)."""
    found = re.match(r"ollama-([0-9]+(?:\.[0-9]+)*)", kind)
    assert found is not None, kind
    return tuple(map(int, found[1].split(".")))


def _order_of(kind: str) -> tuple[tuple[int, ...], bool, int]:
    """Return what grows with the version; candidates of a release come before it, by their number."""
    candidate = re.search(r"-rc([0-9]+)", kind)
    return version_of(kind), candidate is None, int(candidate[1]) if candidate else 0


def find_ollamas(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the programs of the installed Ollamas by kind, newest first."""
    named = {path.parents[1].name: path for path in root.glob("ollama-[0-9]*/bin/ollama")}
    packaged = root / "ollama/bin/ollama-lib"
    found = {_PACKAGED_OLLAMA: packaged, **named} if packaged.exists() else named
    order = sorted(found, key=_order_of, reverse=True)
    return {kind: found[kind] for kind in order}


OLLAMA_BINARIES = find_ollamas(ROOT) or {_PACKAGED_OLLAMA: ROOT / "ollama/bin/ollama-lib"}
"""Where none is installed, the one that could be: its tests are skipped."""
LLAMA_BINARIES = {
    "llama-server": ROOT / "llama-debian/llama-server",
    "xllamacpp": ROOT / "xllamacpp/bin/python",
}
OLLAMAS = tuple(OLLAMA_BINARIES)
LLAMAS = tuple(LLAMA_BINARIES)
NEWEST_OLLAMA, OLDEST_OLLAMA = OLLAMAS[0], OLLAMAS[-1]
OLLAMA_CLI = OLLAMA_BINARIES[NEWEST_OLLAMA]
CLI_LIBRARIES = {"LD_LIBRARY_PATH": str(OLLAMA_CLI.parent)}
"""The environment with which the command line finds its libraries."""
OLDER_OLLAMAS = tuple(pytest.param(kind, marks=pytest.mark.long) for kind in OLLAMAS[1:])
EACH_OLLAMA = (NEWEST_OLLAMA, *OLDER_OLLAMAS)
EACH_LLAMA = ("llama-server", pytest.param("xllamacpp", marks=pytest.mark.long))
"""For parameters: the last is the same server in another build."""

_ROUTES_SINCE = {"/v1/responses": (0, 13, 3), "/v1/messages": (0, 14, 0)}


def has_route(kind: str, path: str) -> bool:
    """Does this kind of engine know this route? Asked of routes that some Ollama and every llama.cpp have."""
    return kind in LLAMAS or version_of(kind) >= _ROUTES_SINCE.get(path, ())


CHAT_MODELS = ("tiny-babble", "tiny-utf8", "tiny-think", "tiny-tool")
ALL_MODELS = (*CHAT_MODELS, "tiny-embed")

ENGINE_ENVIRONMENT = {
    # One answer at a time in one batch, so that a seed decides the whole text.
    "OLLAMA_NUM_PARALLEL": "1",
    "OLLAMA_MAX_LOADED_MODELS": "8",
    "OLLAMA_KEEP_ALIVE": "30m",
}


def need(*kinds: str) -> None:
    """Skip the test unless these kinds of engine are installed, and say how to get them."""
    if not _HARNESS.exists():
        pytest.skip(f"the harness {_HARNESS} is not there: real engines are only tested beside ../shared")
    for kind in kinds:
        binary = {**OLLAMA_BINARIES, **LLAMA_BINARIES}[kind]
        if not binary.exists() or not (MODELS / "tiny-babble.gguf").exists():
            pytest.skip(f"{kind} is not installed in {ROOT}: {_HOW}")


def need_python_clients() -> None:
    """Skip the test unless the client libraries for Python are installed."""
    if not CLIENT_PYTHON.exists():
        pytest.skip(f"the Python clients are not installed in {ROOT}: {_HOW}")


def need_javascript_clients() -> None:
    """Skip the test unless the JavaScript client and node are installed."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed on this machine")
    if not CLIENT_NODE_MODULES.exists():
        pytest.skip(f"the JavaScript clients are not installed in {ROOT}: {_HOW}")


@functools.cache
def harness() -> types.ModuleType:
    """Return ../shared/engines/engines.py, imported from its path."""
    spec = importlib.util.spec_from_file_location("hive_real_engines", _HARNESS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Fleet:
    """Running servers of one kind that together have the models: one Ollama, or one llama.cpp a model."""

    kind: str
    servers: Mapping[str, Any]
    """By model; the same Ollama stands under each of its models."""

    def url_of(self, model: str) -> str:
        """Return the base URL of the server that has a model; any server for a name that none has."""
        key = model.lower().removesuffix(":latest")
        return str(self.servers.get(key, next(iter(self.servers.values()))).url)

    def nodes(self) -> dict[str, str]:
        """Return what a hub is told with --node: a name and a URL for each server."""
        urls = dict.fromkeys(server.url for server in self.servers.values())
        return {chr(ord("a") + i): url for i, url in enumerate(urls)}

    def stop(self) -> None:
        """Stop every server, each by its own process id."""
        for server in {id(s): s for s in self.servers.values()}.values():
            server.stop()


def start_ollama(kind: str, models: tuple[str, ...], env: Mapping[str, str] | None = None) -> Any:
    """Start an Ollama of this generation on a free port and create the models in it."""
    engine = harness().Ollama(str(OLLAMA_BINARIES[kind]), env={**ENGINE_ENVIRONMENT, **(env or {})}).start()
    try:
        for model in models:
            template = {} if model == "tiny-embed" else {"template": harness().OLLAMA_TEMPLATE}
            engine.create(model, MODELS / f"{model}.gguf", **template)
    except BaseException:
        engine.stop()
        raise
    return engine


def start_llama(kind: str, model: str, *, parallel: int = 1) -> Any:
    """Start a llama.cpp server with this one model on a free port."""
    gguf = MODELS / f"{model}.gguf"
    pooling = {"tiny-embed": "mean", "tiny-rerank": "rank"}.get(model)
    if kind == "xllamacpp":
        parameters: dict[str, object] = {"model": str(gguf), "model_alias": model, "n_parallel": parallel}
        if pooling:
            parameters |= {"embedding": True, "pooling": pooling, "n_ctx": 1024}
        return harness().XLlamaServer(str(LLAMA_BINARIES[kind]), **parameters).start()
    arguments = ["-m", gguf, "--alias", model, "-t", 1, "--no-warmup", "-c", 1024 if pooling else 4096]
    arguments += ["--embedding", "--pooling", pooling] if pooling else ["-np", parallel, "--jinja"]
    return harness().LlamaServer(str(LLAMA_BINARIES[kind]), arguments).start()


def start_fleet(kind: str, models: tuple[str, ...] = ALL_MODELS) -> Fleet:
    """Start what this kind needs to serve the models."""
    if kind in OLLAMA_BINARIES:
        engine = start_ollama(kind, models)
        return Fleet(kind, dict.fromkeys(models, engine))
    servers: dict[str, Any] = {}
    start: Callable[[str], Any] = functools.partial(start_llama, kind)
    try:
        for model in models:
            servers[model] = start(model)
    except BaseException:
        Fleet(kind, servers).stop()
        raise
    return Fleet(kind, servers)
