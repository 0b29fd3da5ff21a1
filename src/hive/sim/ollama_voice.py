"""The shapes of /api/generate and /api/chat."""

from __future__ import annotations

from hive.sim.options import ToolCall
from hive.sim.voices import NDJSON, Clock, Speech, Timings, encode, timestamp
from hive.sim.words import Word


class OllamaVoice:
    """NDJSON lines. The text field is `message` in a chat and `response` in a generation."""

    content_type = NDJSON
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, speech: Speech, model: str, clock: Clock, *, is_chat: bool, is_raw: bool = False) -> None:
        self.speech = speech
        self._clock = clock
        self._is_chat = is_chat
        self._is_raw = is_raw
        self._head = b'{"model":%b,"created_at":"' % encode(model)

    def _line(self, middle: bytes, end: bytes) -> bytes:
        return b'%b%b",%b%b' % (self._head, timestamp(self._clock()), middle, end)

    def _said(self, text: bytes, *more: bytes) -> bytes:
        if self._is_chat:
            return b'"message":{"role":"assistant","content":%b%b}' % (text, b"".join(more))
        return b'"response":%b%b' % (text, b"".join(more))

    def opening(self) -> bytes:
        """Return nothing."""
        return b""

    def token(self, word: Word) -> bytes:
        """Return a line with one word."""
        return self._line(self._said(word.json), b',"done":false}\n')

    def thought(self, word: Word) -> bytes:
        """Return a line with one word of thinking."""
        return self._line(self._said(b'""', b',"thinking":', word.json), b',"done":false}\n')

    def call(self, call: ToolCall) -> bytes:
        """Return a line with the whole call."""
        return self._line(self._said(b'""', _calls(call)), b',"done":false}\n')

    def closing(self, timings: Timings) -> bytes:
        """Return the line with `done`."""
        return self._line(self._said(b'""'), self._end(timings) + b"\n")

    def error(self, text: str) -> bytes:
        """Return an error line."""
        return encode({"error": text}) + b"\n"

    def whole(self, timings: Timings) -> bytes:
        """Return the whole answer as one object."""
        return self._line(self._all_said(), self._end(timings))

    def unfinished(self) -> bytes:
        """Return the whole answer without its end, as Ollama does when its runner stops too early."""
        return self._line(self._all_said(), b',"done":false}')

    def lifecycle(self, reason: str) -> bytes:
        """Return an object that says that the model was loaded or unloaded."""
        return self._line(self._said(b'""'), b',"done":true,"done_reason":%b}' % encode(reason))

    def _all_said(self) -> bytes:
        speech = self.speech
        thinking = b',"thinking":' + encode(speech.thinking) if speech.thoughts else b""
        return self._said(encode(speech.text), thinking, _calls(speech.call) if speech.call else b"")

    def _end(self, timings: Timings) -> bytes:
        end: dict[str, object] = {"done": True, "done_reason": self.speech.reason}
        if not self._is_chat and not self._is_raw:
            end["context"] = list(range(1, self.speech.prompt_tokens + self.speech.tokens + 1))
        counts = {
            "total_duration": timings.total,
            "load_duration": timings.load,
            "prompt_eval_count": self.speech.prompt_tokens,
            "prompt_eval_duration": timings.prompt,
            "eval_count": self.speech.tokens,
            "eval_duration": timings.eval,
        }
        end.update((name, count) for name, count in counts.items() if count)
        return b"," + encode(end)[1:]


def _calls(call: ToolCall) -> bytes:
    function = {"index": 0, "name": call.name, "arguments": call.arguments}
    return b',"tool_calls":' + encode([{"id": "call_00000001", "function": function}])
