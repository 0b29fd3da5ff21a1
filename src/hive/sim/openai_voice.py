"""The shapes of /v1/chat/completions and /v1/completions, as Ollama and the other servers write them."""

from __future__ import annotations

from dataclasses import dataclass

from hive.sim.options import SimKind, ToolCall
from hive.sim.voices import EVENT_STREAM, Clock, Speech, Timings, encode, event
from hive.sim.words import Word

DONE = b"data: [DONE]\n\n"
_FINGERPRINTS = {SimKind.OLLAMA: "fp_ollama", SimKind.LLAMA_CPP: "b0-unknown"}


@dataclass(frozen=True, slots=True)
class Completion:
    """The fields of an OpenAI answer besides its text."""

    number: int
    """The engine's own count of answers. It is part of the id."""
    model: str
    kind: SimKind
    include_usage: bool

    @property
    def fingerprint(self) -> dict[str, object]:
        """Return `system_fingerprint`, if the server has one."""
        text = _FINGERPRINTS.get(self.kind)
        return {"system_fingerprint": text} if text else {}


def usage(speech: Speech) -> dict[str, object]:
    """Return OpenAI's usage object."""
    prompt, completion = speech.prompt_tokens, speech.tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class ChatVoice:
    """Chat completions. Ollama's first chunk holds role and word; other servers send the role in a chunk of its own."""

    content_type = EVENT_STREAM
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, speech: Speech, facts: Completion, clock: Clock) -> None:
        self.speech = speech
        self._facts = facts
        self._created = clock() // 1_000_000_000
        self._has_role = False
        self._reasoning = "reasoning_content" if facts.kind is SimKind.LLAMA_CPP else "reasoning"
        head = self._object("chat.completion.chunk")
        self._head = b'data: %b,"choices":[{"index":0,"delta":{' % encode(head)[:-1]

    def _object(self, name: str) -> dict[str, object]:
        facts = self._facts
        named = {
            "id": f"chatcmpl-{facts.number % 999}",
            "object": name,
            "created": self._created,
            "model": facts.model,
        }
        return named | facts.fingerprint

    def _delta(self, delta: bytes) -> bytes:
        role = b"" if self._has_role else b'"role":"assistant",'
        self._has_role = True
        return b'%b%b%b},"finish_reason":null}]}\n\n' % (self._head, role, delta)

    def opening(self) -> bytes:
        """Return the chunk with the role, if the server sends it alone."""
        return b"" if self._facts.kind is SimKind.OLLAMA else self._delta(b'"content":""')

    def token(self, word: Word) -> bytes:
        """Return a chunk with one word."""
        return self._delta(b'"content":' + word.json)

    def thought(self, word: Word) -> bytes:
        """Return a chunk with one word of reasoning."""
        empty = b'"content":"",' if self._facts.kind is SimKind.OLLAMA else b""
        return self._delta(b'%b"%b":%b' % (empty, self._reasoning.encode(), word.json))

    def call(self, call: ToolCall) -> bytes:
        """Return a chunk with the whole call."""
        return self._delta(b'"content":"","tool_calls":' + encode(_calls(call, in_stream=True)))

    def closing(self, timings: Timings) -> bytes:
        """Return finish reason, usage if it was asked for, and [DONE]."""
        choice: dict[str, object] = {"index": 0, "delta": {}, "finish_reason": self._reason}
        chunks = event(self._object("chat.completion.chunk") | {"choices": [choice]})
        if self._facts.include_usage:
            chunks += event(self._object("chat.completion.chunk") | {"choices": [], "usage": usage(self.speech)})
        return chunks + DONE

    def error(self, text: str) -> bytes:
        """Return an error event, and [DONE] after it, as vLLM sends them."""
        return openai_error_event(text)

    def whole(self, timings: Timings) -> bytes:
        """Return the whole answer as one object."""
        speech = self.speech
        message: dict[str, object] = {"role": "assistant", "content": speech.text}
        if speech.thoughts:
            message[self._reasoning] = speech.thinking
        if speech.call:
            message["tool_calls"] = _calls(speech.call, in_stream=False)
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return encode(self._object("chat.completion") | {"choices": [choice], "usage": usage(speech)}) + b"\n"

    @property
    def _reason(self) -> str:
        return "tool_calls" if self.speech.call else self.speech.reason


class CompletionVoice:
    """Text completions. This shape has no thoughts and no tool calls."""

    content_type = EVENT_STREAM
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, speech: Speech, facts: Completion, clock: Clock) -> None:
        self.speech = speech
        self._facts = facts
        self._created = clock() // 1_000_000_000

    def _object(self, choices: list[object], *, is_chunk: bool = True) -> dict[str, object]:
        facts = self._facts
        named = {"id": f"cmpl-{facts.number % 999}", "object": "text_completion", "created": self._created}
        zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        has_zero = is_chunk and facts.include_usage and facts.kind is SimKind.OLLAMA
        return (
            named
            | {"choices": choices, "model": facts.model}
            | facts.fingerprint
            | ({"usage": zero} if has_zero else {})
        )

    def opening(self) -> bytes:
        """Return nothing."""
        return b""

    def token(self, word: Word) -> bytes:
        """Return a chunk with one word."""
        return event(self._object([{"text": word.text, "index": 0, "finish_reason": None}]))

    def thought(self, word: Word) -> bytes:
        """Return nothing: the shape has no thoughts."""
        return b""

    def call(self, call: ToolCall) -> bytes:
        """Return nothing: the shape has no tool calls."""
        return b""

    def closing(self, timings: Timings) -> bytes:
        """Return an empty chunk with the finish reason, usage if it was asked for, and [DONE]."""
        chunks = event(self._object([{"text": "", "index": 0, "finish_reason": self.speech.reason}]))
        if self._facts.include_usage:
            chunks += event(self._object([]) | {"usage": usage(self.speech)})
        return chunks + DONE

    def error(self, text: str) -> bytes:
        """Return an error event, and [DONE] after it, as vLLM sends them."""
        return openai_error_event(text)

    def whole(self, timings: Timings) -> bytes:
        """Return the whole answer as one object."""
        choice: object = {"text": self.speech.text, "index": 0, "finish_reason": self.speech.reason}
        return encode(self._object([choice], is_chunk=False) | {"usage": usage(self.speech)}) + b"\n"


def openai_error_event(text: str) -> bytes:
    """Return an error inside an OpenAI stream."""
    return event({"error": {"message": text, "type": "api_error", "param": None, "code": None}}) + DONE


def _calls(call: ToolCall, *, in_stream: bool) -> list[dict[str, object]]:
    place: dict[str, object] = {"index": 0} if in_stream else {}
    function = {"name": call.name, "arguments": encode(call.arguments).decode()}
    return [{"id": "call_00000001"} | place | {"type": "function", "function": function}]
