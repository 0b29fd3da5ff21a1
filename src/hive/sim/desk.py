"""What every route needs: the engine's state, the models by name, and the making of a speech."""

from __future__ import annotations

from dataclasses import dataclass

from hive.sim.bodies import Body, BodyError, parse_body
from hive.sim.catalogue import Catalogue, SimModel
from hive.sim.machine import SimMachine
from hive.sim.names import full_name
from hive.sim.options import SimKind, SimOptions
from hive.sim.surfaces import SimReply, error_reply
from hive.sim.voices import Clock, Speech
from hive.sim.wire import SimRequest
from hive.sim.words import Vocabulary, count_tokens
from hive.sim.work import Settlement, Utterance, Work

THOUGHTS = 4
"""The tokens of thinking before the answer, for a model that thinks."""


class Refusal(Exception):  # noqa: N818 - becomes an answer
    """A request that the engine answers at once with an error."""

    def __init__(self, reply: SimReply) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(slots=True)
class SimDesk:
    """The state that routes read. They may change the catalogue; of the machine they only call `unload`."""

    options: SimOptions
    catalogue: Catalogue
    machine: SimMachine
    vocabulary: Vocabulary
    clock: Clock
    monotonic_now: float = 0.0
    """The machine's clock, set before each decision."""
    has_wrong_digests: bool = False
    """Does the fault `wrong-digests` strike the present request?"""
    answers: int = 0

    @property
    def kind(self) -> SimKind:
        """Return the kind of server that the engine imitates."""
        return self.options.kind

    def refuse(self, path: str, status: int, text: str) -> Refusal:
        """Return the error in the form of the path's surface."""
        return Refusal(error_reply(self.kind, path, status, text))

    def number(self) -> int:
        """Return the next number for an answer's id."""
        self.answers += 1
        return self.answers

    def model(self, path: str, body: Body) -> SimModel:
        """Return the model that the request names. Raises Refusal when there is none."""
        name = body.wanted_model
        if self.kind is SimKind.LLAMA_CPP:  # it answers with its own model, whatever the name
            return self.catalogue.newest_first()[0]
        if not name:
            raise self.refuse(path, 400, "model is required")
        if full_name(name) is None and self.kind is SimKind.OLLAMA:
            raise self.refuse(path, 400, "invalid model name")
        model = self.catalogue.find(name)
        if model is None:
            raise Refusal(self.missing(path, name))
        return model

    def missing_model(self, request: SimRequest) -> SimReply:
        """Return a 404 for the model of this request, even if the model exists."""
        try:
            name = parse_body(request.body).wanted_model
        except BodyError:
            name = ""
        return self.missing(request.path, name)

    def missing(self, path: str, name: str) -> SimReply:
        """Return a 404 in the words of the route."""
        if self.kind is not SimKind.OLLAMA:
            return error_reply(self.kind, path, 404, f"The model `{name}` does not exist.")
        if path in ("/api/embed", "/api/embeddings", "/v1/embeddings"):
            text = f'model "{name}" not found, try pulling it first'
        elif path == "/api/show" or path.startswith("/v1/models/"):
            text = f"model '{full_name(name) or name}' not found"
        else:
            text = f"model '{name}' not found"
        return error_reply(self.kind, path, 404, text)

    def echo(self, model: SimModel, body: Body) -> str:
        """Return the model's name for the answer: as the client wrote it, or the only name that the server knows."""
        return model.name.removesuffix(":latest") if self.kind is SimKind.LLAMA_CPP else body.wanted_model

    def speech(self, model: SimModel, body: Body, limit: int | None, *, thinks: bool) -> Speech:
        """Return what the model says to this request, at most `limit` tokens."""
        wanted = limit if limit is not None and limit >= 0 else self.options.default_tokens
        reason = "stop" if limit is None or limit < 0 else "length"
        words = self.vocabulary.sentence(model.name, body.asked, wanted)
        tokens = min(count_tokens(body.asked), self.options.context_length)
        if body.tools and self.options.tool_call and "tools" in model.capabilities:
            return Speech(tokens, words, call=self.options.tool_call)
        thoughts = words[:THOUGHTS] if thinks and model.can_think else []
        return Speech(tokens, words[len(thoughts) :], thoughts, reason=reason)

    def work(self, model: SimModel, body: Body, task: Utterance | Settlement) -> Work:
        """Return the task with the values that the scheduler needs."""
        if self.kind is not SimKind.OLLAMA:  # the other kinds load once, at their start
            return Work(model.name, self.options.context_length, None, task)
        num_ctx = body.num_ctx or self.options.context_length
        return Work(model.name, num_ctx, body.keep_alive_seconds, task)
