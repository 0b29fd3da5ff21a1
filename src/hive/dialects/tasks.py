"""What an engine can be asked to do, and the method and path by which each dialect asks for it.

A client's route names a task in a dialect. An engine has its own route for a task in a dialect, or none. The rows
here are all that the hub ever sends to an engine on a client's behalf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Dialect(Enum):
    """The API whose bodies, streams and errors a route speaks."""

    __hash__ = object.__hash__  # Enum's own is written in Python: every request asks for it

    OLLAMA = "ollama"
    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    HIVE = "hive"


class UsageAt(Enum):
    """The place at which an answer says how many tokens it took."""

    END = "end"
    """It is in the last unit of a stream, or near the end of an answer in one piece."""
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Something that an engine is to do. Two tasks are the same only when they are one object."""

    name: str
    takes_slot: bool = True
    """Does it compute, and so need a slot? `show` does not: it must pass a busy node."""
    streams: bool = False
    """Does its answer come token by token, if the request does not say otherwise?"""
    usage: UsageAt = UsageAt.NOWHERE
    answers_json: bool = True
    """Is an answer in one piece JSON? Audio, and the text that is heard in it, may be in any form."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineRoute:
    """The method and path by which an engine is asked for a task. A path that ends in `/` is followed by a name."""

    method: str
    path: str


CHAT = Task("chat", streams=True, usage=UsageAt.END)
COMPLETE = Task("complete", streams=True, usage=UsageAt.END)
EMBED = Task("embed", usage=UsageAt.END)
EMBED_ONE = Task("embed one", usage=UsageAt.END)
"""One text, by Ollama's older route, whose answer has another shape."""
RERANK = Task("rerank", usage=UsageAt.END)
TRANSCRIBE = Task("transcribe", answers_json=False)
TRANSLATE_SPEECH = Task("translate speech", answers_json=False)
SPEAK = Task("speak", answers_json=False)
SHOW = Task("show", takes_slot=False)
COUNT_TOKENS = Task("count tokens", takes_slot=False)
PULL = Task("pull", takes_slot=False)
PUSH = Task("push", takes_slot=False)
CREATE = Task("create", takes_slot=False)
COPY = Task("copy", takes_slot=False)
DELETE = Task("delete", takes_slot=False)
FIND_BLOB = Task("find blob", takes_slot=False)
STORE_BLOB = Task("store blob", takes_slot=False)

ENGINE_ROUTES: Mapping[tuple[Task, Dialect], EngineRoute] = {
    (COMPLETE, Dialect.OLLAMA): EngineRoute("POST", "/api/generate"),
    (CHAT, Dialect.OLLAMA): EngineRoute("POST", "/api/chat"),
    (SHOW, Dialect.OLLAMA): EngineRoute("POST", "/api/show"),
    (EMBED, Dialect.OLLAMA): EngineRoute("POST", "/api/embed"),
    (EMBED_ONE, Dialect.OLLAMA): EngineRoute("POST", "/api/embeddings"),
    (PULL, Dialect.OLLAMA): EngineRoute("POST", "/api/pull"),
    (PUSH, Dialect.OLLAMA): EngineRoute("POST", "/api/push"),
    (CREATE, Dialect.OLLAMA): EngineRoute("POST", "/api/create"),
    (COPY, Dialect.OLLAMA): EngineRoute("POST", "/api/copy"),
    (DELETE, Dialect.OLLAMA): EngineRoute("DELETE", "/api/delete"),
    (FIND_BLOB, Dialect.OLLAMA): EngineRoute("HEAD", "/api/blobs/"),
    (STORE_BLOB, Dialect.OLLAMA): EngineRoute("POST", "/api/blobs/"),
    (CHAT, Dialect.OPENAI): EngineRoute("POST", "/v1/chat/completions"),
    (COMPLETE, Dialect.OPENAI): EngineRoute("POST", "/v1/completions"),
    (EMBED, Dialect.OPENAI): EngineRoute("POST", "/v1/embeddings"),
    (RERANK, Dialect.OPENAI): EngineRoute("POST", "/v1/rerank"),
    (TRANSCRIBE, Dialect.OPENAI): EngineRoute("POST", "/v1/audio/transcriptions"),
    (TRANSLATE_SPEECH, Dialect.OPENAI): EngineRoute("POST", "/v1/audio/translations"),
    (SPEAK, Dialect.OPENAI): EngineRoute("POST", "/v1/audio/speech"),
    (CHAT, Dialect.RESPONSES): EngineRoute("POST", "/v1/responses"),
    (CHAT, Dialect.ANTHROPIC): EngineRoute("POST", "/v1/messages"),
    (COUNT_TOKENS, Dialect.ANTHROPIC): EngineRoute("POST", "/v1/messages/count_tokens"),
}
