"""The shape of /v1/messages: named events for one content block after another."""

from __future__ import annotations

from hive.sim.options import ToolCall
from hive.sim.voices import EVENT_STREAM, Speech, Timings, encode, event
from hive.sim.words import Word

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class AnthropicVoice:
    """Anthropic's Messages as Ollama serves them."""

    content_type = EVENT_STREAM
    headers = (("Cache-Control", "no-cache"),)

    def __init__(self, speech: Speech, model: str, number: int) -> None:
        self.speech = speech
        self._message: dict[str, object] = {
            "id": f"msg_{number:024x}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._index = -1
        self._open = ""

    def opening(self) -> bytes:
        """Return the start of the message."""
        usage = {"input_tokens": self.speech.prompt_tokens, "output_tokens": 0}
        message = self._message | {"content": [], "usage": usage}
        return event({"type": "message_start", "message": message}, "message_start")

    def thought(self, word: Word) -> bytes:
        """Return a delta of the thinking block; the first one also begins the block."""
        begun = self._begin("thinking", {"type": "thinking", "thinking": ""})
        return begun + self._delta(b'"thinking_delta","thinking":' + word.json)

    def token(self, word: Word) -> bytes:
        """Return a delta of the text block; the first one also begins the block."""
        begun = self._begin("text", {"type": "text", "text": ""})
        return begun + self._delta(b'"text_delta","text":' + word.json)

    def call(self, call: ToolCall) -> bytes:
        """Return a tool block with its whole input."""
        block: dict[str, object] = {"type": "tool_use", "id": "call_00000001", "name": call.name, "input": {}}
        partial = encode(encode(call.arguments).decode())
        return self._begin("tool_use", block) + self._delta(b'"input_json_delta","partial_json":' + partial)

    def closing(self, timings: Timings) -> bytes:
        """Return the end of the open block, the stop reason, and the end of the message."""
        delta = {"type": "message_delta", "delta": {"stop_reason": self._reason}, "usage": self._usage()}
        return self._end_block() + event(delta, "message_delta") + event({"type": "message_stop"}, "message_stop")

    def error(self, text: str) -> bytes:
        """Return Anthropic's error event."""
        return event({"type": "error", "error": {"type": "api_error", "message": text}}, "error")

    def whole(self, timings: Timings) -> bytes:
        """Return one message."""
        speech = self.speech
        blocks: list[dict[str, object]] = []
        if speech.thoughts:
            blocks.append({"type": "thinking", "thinking": speech.thinking})
        if speech.call:
            call = speech.call
            blocks.append({"type": "tool_use", "id": "call_00000001", "name": call.name, "input": call.arguments})
        else:
            blocks.append({"type": "text", "text": speech.text})
        end = {"content": blocks, "stop_reason": self._reason, "usage": self._usage()}
        return encode(self._message | end) + b"\n"

    def _begin(self, name: str, block: dict[str, object]) -> bytes:
        if self._open == name:
            return b""
        ended = self._end_block()
        self._index += 1
        self._open = name
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return ended + event(start, "content_block_start")

    def _end_block(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return event({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _delta(self, delta: bytes) -> bytes:
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
        return head % self._index + delta + b"}}\n\n"

    def _usage(self) -> dict[str, object]:
        return {"input_tokens": self.speech.prompt_tokens, "output_tokens": self.speech.tokens}

    @property
    def _reason(self) -> str:
        return "tool_use" if self.speech.call else _STOP_REASONS[self.speech.reason]
