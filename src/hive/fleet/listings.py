"""Reads the lists of models that engines give, and writes the hub's lists of all models of the fleet.

An engine's own entry is kept as it is, so that fields which a newer engine adds come through. For engines that list
less (llama.cpp, vLLM) an entry in Ollama's form is made up, with a digest of full length, because clients slice it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from hive.fleet.engines import Fleet, Health
from hive.fleet.kinds import EngineKind, version_numbers
from hive.fleet.known import LoadedModel, Model
from hive.fleet.model_names import MAX_NAME, canonical

MAX_MODELS = 10_000
MAX_ENTRY_BYTES = 64 << 10
"""The size limit of one model's entry: every list has the entries of all models."""
_FOREVER = "2318-11-21T00:00:00Z"
"""The expiry that Ollama shows for a model that is never unloaded."""


class _Entry(msgspec.Struct):
    name: str = ""
    model: str = ""
    digest: str = ""
    size: int = 0
    modified_at: str = ""
    expires_at: str = ""
    remote_host: str = ""


class _Models(msgspec.Struct):
    models: list[msgspec.Raw] | None = None


class _Listed(msgspec.Struct):
    id: str = ""
    created: int = 0
    owned_by: str = ""


class _Data(msgspec.Struct):
    data: list[msgspec.Raw] | None = None


_decode_models = msgspec.json.Decoder(_Models).decode
_decode_entry = msgspec.json.Decoder(_Entry, strict=False).decode
_decode_data = msgspec.json.Decoder(_Data).decode
_decode_listed = msgspec.json.Decoder(_Listed, strict=False).decode
_encode = msgspec.json.encode


class UnreadableListing(ValueError):  # noqa: N818 - it names what arrived
    """The answer of an engine is no list of models."""


def read_tags(body: bytes) -> tuple[Model, ...]:
    """Return the models in an Ollama's answer to /api/tags. Raises `UnreadableListing`."""
    models = []
    for raw, entry in _entries(body):
        name = entry.name or entry.model
        listed = {"id": name, "object": "model", "created": int(_instant(entry.modified_at)), "owned_by": _owner(name)}
        key, is_remote = canonical(name), bool(entry.remote_host)
        models.append(Model(key, name, entry.digest, entry.size, entry.modified_at, raw, _encode(listed), is_remote))
    return tuple(models)


def read_ps(body: bytes) -> tuple[LoadedModel, ...]:
    """Return the loaded models in an Ollama's answer to /api/ps. Raises `UnreadableListing`."""
    return tuple(LoadedModel(canonical(e.name or e.model), e.expires_at, raw) for raw, e in _entries(body))


def read_v1_models(body: bytes, kind: EngineKind) -> tuple[tuple[Model, ...], tuple[LoadedModel, ...]]:
    """Return the models in an answer to /v1/models, all of them loaded. Raises `UnreadableListing`."""
    models, loaded = [], []
    for raw in _list(body, _decode_data, "data"):
        try:
            entry = _decode_listed(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if not _is_name(entry.id):
            continue
        key = canonical(entry.id)
        tags = _made_up_entry(entry.id, kind, entry.created)
        ps = tags | {"expires_at": _FOREVER, "size_vram": 0}
        modified_at = str(tags["modified_at"])
        models.append(Model(key, entry.id, str(tags["digest"]), 0, modified_at, _encode(tags), bytes(raw)))
        loaded.append(LoadedModel(key, _FOREVER, _encode(ps)))
    return tuple(models), tuple(loaded)


def _entries(body: bytes) -> Iterable[tuple[bytes, _Entry]]:
    for raw in _list(body, _decode_models, "models"):
        try:
            entry = _decode_entry(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if _is_name(entry.name or entry.model):
            yield bytes(raw), entry


def _list(body: bytes, decode: object, key: str) -> list[msgspec.Raw]:
    try:
        answer = decode(body)  # type: ignore[operator]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableListing(f"a list of models that cannot be read ({error})") from None
    return [raw for raw in (getattr(answer, key) or [])[:MAX_MODELS] if len(memoryview(raw)) <= MAX_ENTRY_BYTES]


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _made_up_entry(name: str, kind: EngineKind, created: int) -> dict[str, object]:
    digest = hashlib.sha256(f"{kind}:{name}".encode()).hexdigest()
    modified = datetime.fromtimestamp(min(max(created, 0), 4_000_000_000), UTC)
    is_gguf = kind is EngineKind.LLAMA_CPP
    details: dict[str, object] = {
        "parent_model": "",
        "format": "gguf" if is_gguf else "",
        "family": "",
        "families": None,
        "parameter_size": "",
        "quantization_level": "",
    }
    return {
        "name": name,
        "model": name,
        "modified_at": modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "size": 0,
        "digest": digest,
        "details": details,
    }


def _instant(time: str) -> float:
    """Return an RFC 3339 time as seconds since 1970; 0 for any other text. Ollamas write local time."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _owner(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else "library"


class Catalog:
    """The fleet's listings as the JSON that clients get; made anew only when something changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._revision = -1
        self._tags = self._ps = self._v1_models = b""
        self._models: dict[str, Model] = {}

    def tags(self) -> bytes:
        """Return the answer to /api/tags: one entry a model, the newest first."""
        self._refresh()
        return self._tags

    def ps(self) -> bytes:
        """Return the answer to /api/ps: one entry a model, the longest expiry first."""
        self._refresh()
        return self._ps

    def v1_models(self) -> bytes:
        """Return the answer to /v1/models."""
        self._refresh()
        return self._v1_models

    def v1_model(self, name: str) -> bytes | None:
        """Return the answer to /v1/models/{id}, with the id as it was asked; None for a model that no engine has."""
        self._refresh()
        model = self._models.get(canonical(name))
        if model is None:
            return None
        listed = msgspec.json.decode(model.listed, type=dict[str, msgspec.Raw])
        return _encode({**listed, "id": name})

    def _refresh(self) -> None:
        if self._revision == self._fleet.revision:
            return
        self._revision = self._fleet.revision
        models: dict[str, Model] = {}
        loaded: dict[str, LoadedModel] = {}
        # Newer engines list more of a model, so clients get the entry of the newest.
        for engine in sorted(
            self._fleet.engines, key=lambda engine: version_numbers(engine.known.version), reverse=True
        ):
            if engine.health is Health.DOWN:
                continue
            for key, model in engine.known.models.items():
                models.setdefault(key, model)
            for key, entry in engine.known.loaded.items():
                if key not in loaded or _instant(loaded[key].expires_at) < _instant(entry.expires_at):
                    loaded[key] = entry
        newest = sorted(models.values(), key=lambda model: (_instant(model.modified_at), model.key), reverse=True)
        longest = sorted(loaded.values(), key=lambda entry: (_instant(entry.expires_at), entry.key), reverse=True)
        self._models = models
        self._tags = b'{"models":[%b]}' % b",".join(model.tags for model in newest)
        self._ps = b'{"models":[%b]}' % b",".join(entry.ps for entry in longest)
        self._v1_models = b'{"object":"list","data":[%b]}\n' % b",".join(model.listed for model in newest)
