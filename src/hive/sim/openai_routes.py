"""The OpenAI and Anthropic routes: those that make a model work, and the list of models."""

from __future__ import annotations

import base64
import struct

from hive.sim.anthropic_voice import AnthropicVoice
from hive.sim.bodies import Body, BodyError, as_texts
from hive.sim.catalogue import SimModel
from hive.sim.desk import Refusal, SimDesk
from hive.sim.openai_voice import ChatVoice, Completion, CompletionVoice
from hive.sim.options import SimKind
from hive.sim.responses_voice import ResponsesVoice
from hive.sim.surfaces import JSON, SimReply
from hive.sim.voices import Timings, encode
from hive.sim.wire import SimRequest
from hive.sim.words import count_tokens, embedding
from hive.sim.work import Decision, Settlement, Utterance


def chat_completions(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/chat/completions."""
    if not body.messages:
        raise desk.refuse(request.path, 400, "[] is too short - 'messages'")
    model = _talker(desk, request, body, "chat")
    limit = body.max_tokens
    if desk.kind is not SimKind.OLLAMA and body.max_completion_tokens is not None:
        limit = body.max_completion_tokens
    speech = desk.speech(model, body, limit, thinks=True)
    voice = ChatVoice(speech, _facts(desk, model, body), desk.clock)
    return desk.work(model, body, Utterance(voice, bool(body.stream)))


def completions(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/completions."""
    model = _talker(desk, request, body, "generate")
    speech = desk.speech(model, body, body.max_tokens, thinks=False)
    voice = CompletionVoice(speech, _facts(desk, model, body), desk.clock)
    return desk.work(model, body, Utterance(voice, bool(body.stream)))


def responses(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/responses."""
    model = _talker(desk, request, body, "chat")
    speech = desk.speech(model, body, body.max_output_tokens, thinks=False)
    voice = ResponsesVoice(speech, desk.echo(model, body), body.max_output_tokens, desk.number(), desk.clock)
    return desk.work(model, body, Utterance(voice, bool(body.stream)))


def messages(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/messages."""
    if not body.messages:
        raise desk.refuse(request.path, 400, "messages is required")
    if not body.max_tokens or body.max_tokens < 0:
        raise desk.refuse(request.path, 400, "max_tokens is required and must be positive")
    model = _talker(desk, request, body, "chat")
    asked = bytes(body.thinking)
    thinks = b'"enabled"' in asked or b'"adaptive"' in asked
    speech = desk.speech(model, body, body.max_tokens, thinks=thinks)
    voice = AnthropicVoice(speech, desk.echo(model, body), desk.number())
    return desk.work(model, body, Utterance(voice, bool(body.stream)))


def count_message_tokens(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/messages/count_tokens, which Ollama does not have."""
    desk.model(request.path, body)
    return SimReply(200, encode({"input_tokens": count_tokens(body.asked)}), JSON)


def embeddings(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /v1/embeddings."""
    texts = as_texts(body.input)
    if not texts:
        raise BodyError("invalid input")
    model = desk.model(request.path, body)
    if not model.can_embed:
        text = "This server does not support embeddings. Start it with `--embeddings`"
        raise desk.refuse(request.path, 501, text)
    is_base64 = body.encoding_format == "base64"
    name = desk.echo(model, body)

    def reply(_: Timings) -> SimReply:
        vectors = [embedding(text, body.dimensions) for text in texts]
        data = [
            {"object": "embedding", "embedding": _packed(vector) if is_base64 else vector, "index": index}
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(count_tokens(text.encode()) for text in texts)
        used = {"prompt_tokens": tokens, "total_tokens": tokens}
        return SimReply(200, encode({"object": "list", "data": data, "model": name, "usage": used}) + b"\n", JSON)

    return desk.work(model, body, Settlement(reply, is_instant=False))


def list_models(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /v1/models."""
    shown = [_shown(desk, model, model.name) for model in desk.catalogue.newest_first()]
    return SimReply(200, encode({"object": "list", "data": shown or None}) + b"\n", JSON)


def one_model(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """GET /v1/models/{id}."""
    name = request.path.removeprefix("/v1/models/")
    model = desk.catalogue.find(name)
    if model is None:
        raise Refusal(desk.missing(request.path, name))
    return SimReply(200, encode(_shown(desk, model, name)) + b"\n", JSON)


def plain_name(model: SimModel) -> str:
    """Return the name without its tag, as servers without tags show it."""
    return model.name.removesuffix(":latest")


def _shown(desk: SimDesk, model: SimModel, name: str) -> dict[str, object]:
    owners = {SimKind.OLLAMA: "library", SimKind.VLLM: "vllm", SimKind.LLAMA_CPP: "llamacpp"}
    if desk.kind is not SimKind.OLLAMA:
        name = plain_name(model)
    named: dict[str, object] = {"id": name, "object": "model", "created": int(model.modified)}
    named["owned_by"] = owners.get(desk.kind, "simulated")
    if desk.kind is SimKind.VLLM:
        named |= {
            "root": name,
            "parent": None,
            "max_model_len": desk.options.context_length,
            "permission": [],
        }
    if desk.kind is SimKind.LLAMA_CPP:
        named["meta"] = {"n_ctx": desk.options.context_length, "n_ctx_train": desk.options.context_length}
    return named


def _talker(desk: SimDesk, request: SimRequest, body: Body, verb: str) -> SimModel:
    model = desk.model(request.path, body)
    if not model.can_talk:
        raise desk.refuse(request.path, 400, f'"{body.model}" does not support {verb}')
    return model


def _facts(desk: SimDesk, model: SimModel, body: Body) -> Completion:
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    return Completion(desk.number(), desk.echo(model, body), desk.kind, has_usage)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
