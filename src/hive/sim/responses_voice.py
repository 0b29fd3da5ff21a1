"""The shape of /v1/responses: numbered events around one message or one function call."""

from __future__ import annotations

from hive.sim.options import ToolCall
from hive.sim.voices import EVENT_STREAM, Clock, Speech, Timings, encode, event
from hive.sim.words import Word


class ResponsesVoice:
    """OpenAI's Responses as Ollama serves them: without state and without [DONE]. Thoughts are left out."""

    content_type = EVENT_STREAM
    headers = (("Cache-Control", "no-cache"),)

    def __init__(self, speech: Speech, model: str, limit: int | None, number: int, clock: Clock) -> None:
        self.speech = speech
        self._model = model
        self._limit = limit
        self._ids = (f"resp_{number}", f"msg_{number}", f"fc_{number}")
        self._clock = clock
        self._created = clock() // 1_000_000_000
        self._sequence = 0

    def _event(self, name: str, **fields: object) -> bytes:
        fields |= {"sequence_number": self._sequence, "type": name}
        self._sequence += 1
        return event(dict(sorted(fields.items())), name)

    def opening(self) -> bytes:
        """Return the events for created, in progress, and the first item."""
        begun = self._response("in_progress")
        chunks = self._event("response.created", response=begun)
        chunks += self._event("response.in_progress", response=begun)
        if self.speech.call:
            return chunks
        item = {
            "content": [],
            "id": self._ids[1],
            "role": "assistant",
            "status": "in_progress",
            "type": "message",
        }
        chunks += self._event("response.output_item.added", item=item, output_index=0)
        return chunks + self._event("response.content_part.added", part=_text(""), **self._place())

    def thought(self, word: Word) -> bytes:
        """Return nothing: reasoning items are not simulated."""
        return b""

    def token(self, word: Word) -> bytes:
        """Return a delta of text."""
        return self._event("response.output_text.delta", delta=word.text, logprobs=[], **self._place())

    def call(self, call: ToolCall) -> bytes:
        """Return the events of the whole function call."""
        done = self._call_item(call)
        place: dict[str, object] = {"item_id": self._ids[2], "output_index": 0}
        begun = done | {"arguments": "", "status": "in_progress"}
        return b"".join(
            (
                self._event("response.output_item.added", item=begun, output_index=0),
                self._event("response.function_call_arguments.delta", delta=done["arguments"], **place),
                self._event("response.function_call_arguments.done", arguments=done["arguments"], **place),
                self._event("response.output_item.done", item=done, output_index=0),
            )
        )

    def closing(self, timings: Timings) -> bytes:
        """Return the ends of part, item and response."""
        chunks = b""
        if not self.speech.call:
            text = self.speech.text
            chunks += self._event("response.output_text.done", logprobs=[], text=text, **self._place())
            chunks += self._event("response.content_part.done", part=_text(text), **self._place())
            chunks += self._event("response.output_item.done", item=self._message(), output_index=0)
        return chunks + self._event("response.completed", response=self._response("completed"))

    def error(self, text: str) -> bytes:
        """Return OpenAI's error event."""
        return self._event("error", code="server_error", message=text, param=None)

    def whole(self, timings: Timings) -> bytes:
        """Return one response object."""
        return encode(self._response("completed")) + b"\n"

    def _place(self) -> dict[str, object]:
        return {"content_index": 0, "item_id": self._ids[1], "output_index": 0}

    def _message(self) -> dict[str, object]:
        content = [_text(self.speech.text)]
        return {
            "content": content,
            "id": self._ids[1],
            "role": "assistant",
            "status": "completed",
            "type": "message",
        }

    def _call_item(self, call: ToolCall) -> dict[str, object]:
        arguments = encode(call.arguments).decode()
        named: dict[str, object] = {"call_id": "call_00000001", "name": call.name, "arguments": arguments}
        return named | {"id": self._ids[2], "status": "completed", "type": "function_call"}

    def _response(self, status: str) -> dict[str, object]:
        is_done = status == "completed"
        item = self._call_item(self.speech.call) if self.speech.call else self._message()
        return {
            "background": False,
            "completed_at": self._clock() // 1_000_000_000 if is_done else None,
            "created_at": self._created,
            "error": None,
            "frequency_penalty": 0,
            "id": self._ids[0],
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": self._limit,
            "max_tool_calls": None,
            "metadata": {},
            "model": self._model,
            "object": "response",
            "output": [item] if is_done else [],
            "parallel_tool_calls": True,
            "presence_penalty": 0,
            "previous_response_id": None,
            "prompt_cache_key": None,
            "reasoning": None,
            "safety_identifier": None,
            "service_tier": "default",
            "status": status,
            "store": False,
            "temperature": 1,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1,
            "truncation": "disabled",
            "usage": self._usage() if is_done else None,
        }

    def _usage(self) -> dict[str, object]:
        prompt, completion = self.speech.prompt_tokens, self.speech.tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        }


def _text(text: str) -> dict[str, object]:
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}
