"""The answers of each kind of engine to probes: its kind and version, and its state."""

from __future__ import annotations

from hive.sim.bodies import Body
from hive.sim.desk import SimDesk
from hive.sim.openai_routes import plain_name
from hive.sim.surfaces import SimReply
from hive.sim.voices import encode
from hive.sim.wire import SimRequest
from hive.sim.work import Decision


def root(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET / of an Ollama."""
    return SimReply(200, b"Ollama is running", "text/plain; charset=utf-8")


def version(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /api/version of an Ollama, /version of a vLLM."""
    return SimReply(200, encode({"version": desk.options.shown_version}))


def status(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /api/status of an Ollama."""
    return SimReply(200, encode({"cloud": {"disabled": True, "source": "config"}}))


def account(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /api/me of an Ollama that is not signed in."""
    return SimReply(401, encode({"error": "unauthorized", "signin_url": "https://ollama.com/connect"}))


def health(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /health of a llama.cpp."""
    return SimReply(200, encode({"status": "ok"}))


def empty_health(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /health and /ping of a vLLM."""
    return SimReply(200, content_type="")


def props(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /props of a llama.cpp."""
    name = plain_name(desk.catalogue.newest_first()[0])
    shown = {
        "default_generation_settings": {"n_ctx": desk.options.context_length},
        "total_slots": desk.options.slots,
        "model_alias": name,
        "model_path": f"models/{name}.gguf",
        "modalities": {"vision": False, "audio": False},
        "build_info": desk.options.shown_version,
    }
    return SimReply(200, encode(shown))


def slots(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /slots of a llama.cpp."""
    busy = desk.machine.running
    shown = [
        {"id": slot, "n_ctx": desk.options.context_length, "is_processing": slot < busy}
        for slot in range(desk.options.slots)
    ]
    return SimReply(200, encode(shown))


def metrics(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /metrics of a vLLM."""
    label = f'{{model_name="{plain_name(desk.catalogue.newest_first()[0])}"}}'
    lines = (
        f"vllm:num_requests_running{label} {float(desk.machine.running)}",
        f"vllm:num_requests_waiting{label} {float(desk.machine.waiting)}",
    )
    return SimReply(200, "".join(f"{line}\n" for line in lines).encode(), "text/plain; version=0.0.4; charset=utf-8")
