"""Ollama's routes that make a model work: generate, chat and the two embeddings."""

from __future__ import annotations

from hive.sim.bodies import Body, as_texts
from hive.sim.catalogue import SimModel
from hive.sim.desk import SimDesk
from hive.sim.ollama_voice import OllamaVoice
from hive.sim.surfaces import SimReply
from hive.sim.voices import Speech, Timings, encode
from hive.sim.wire import SimRequest
from hive.sim.words import count_tokens, embedding
from hive.sim.work import Decision, Settlement, Utterance


def generate(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /api/generate."""
    return _talk(desk, request, body, is_chat=False, is_empty=not body.prompt_text)


def chat(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /api/chat."""
    return _talk(desk, request, body, is_chat=True, is_empty=not body.messages)


def _talk(desk: SimDesk, request: SimRequest, body: Body, *, is_chat: bool, is_empty: bool) -> Decision:
    model = desk.model(request.path, body)
    if not model.can_talk:
        verb = "chat" if is_chat else "generate"
        raise desk.refuse(request.path, 400, f'"{body.model}" does not support {verb}')
    if body.think and not model.can_think:
        raise desk.refuse(request.path, 400, f'"{body.model}" does not support thinking')
    if is_empty:
        return _lifecycle(desk, model, body, is_chat=is_chat)
    limit = body.options.num_predict if body.options else None
    speech = desk.speech(model, body, limit, thinks=body.think is not False)
    voice = OllamaVoice(speech, body.model, desk.clock, is_chat=is_chat, is_raw=body.raw)
    return desk.work(model, body, Utterance(voice, body.stream is not False))


def _lifecycle(desk: SimDesk, model: SimModel, body: Body, *, is_chat: bool) -> Decision:
    voice = OllamaVoice(Speech(0), body.model, desk.clock, is_chat=is_chat)
    if body.keep_alive_seconds == 0:
        desk.machine.unload(model.name, desk.monotonic_now)
        return SimReply(200, voice.lifecycle("unload"))
    return desk.work(model, body, Settlement(lambda _: SimReply(200, voice.lifecycle("load")), is_instant=True))


def embed(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /api/embed."""
    model = desk.model(request.path, body)
    texts = as_texts(body.input)
    if texts:  # a request to embed nothing only loads the model, of any kind
        _demand_embedding(desk, request, model)

    def reply(timings: Timings) -> SimReply:
        vectors = [embedding(text, body.dimensions) for text in texts]
        durations = {"total_duration": timings.total, "load_duration": timings.load}
        counted = {"prompt_eval_count": sum(count_tokens(text.encode()) for text in texts)}
        return SimReply(200, encode({"model": body.model, "embeddings": vectors} | durations | counted))

    return desk.work(model, body, Settlement(reply, is_instant=not texts))


def embeddings(desk: SimDesk, request: SimRequest, body: Body) -> Decision:
    """POST /api/embeddings, the older route."""
    model = desk.model(request.path, body)
    text = body.prompt_text
    _demand_embedding(desk, request, model)

    def reply(_: Timings) -> SimReply:
        return SimReply(200, encode({"embedding": embedding(text) if text else []}))

    return desk.work(model, body, Settlement(reply, is_instant=not text))


def _demand_embedding(desk: SimDesk, request: SimRequest, model: SimModel) -> None:
    if not model.can_embed:
        text = "This server does not support embeddings. Start it with `--embeddings`"
        raise desk.refuse(request.path, 501, text)
