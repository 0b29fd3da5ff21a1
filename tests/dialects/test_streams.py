"""Streams as clients read them: whole lines and events, what is none, and the real endings of real engines."""

from __future__ import annotations

import pytest

from hive.dialects.streams import Ending, Stream, stream_of
from hive.dialects.tasks import Dialect

NDJSON = b"application/x-ndjson"
SSE = b"text/event-stream"


def framing(dialect: Dialect, content_type: bytes = b"") -> Stream:
    found = stream_of(dialect, content_type or (NDJSON if dialect is Dialect.OLLAMA else SSE))
    assert found is not None
    return found


LINES = framing(Dialect.OLLAMA)
EVENTS = framing(Dialect.OPENAI)

# Literal ends of streams, from the transcripts: Ollama 0.9.3, 0.24.0, 0.33.0-rc2, llama-server b11434 and xllamacpp.
OLLAMA_TOKEN = (
    b'{"model":"slow-endless","created_at":"2026-11-20T20:56:09.670038653Z",'
    b'"message":{"role":"assistant","content":" sometimes"},"done":false}\n'
)
OLLAMA_DONE_0_9 = (
    b'{"model":"tiny-babble","created_at":"2026-11-20T16:39:47.645487177Z","message":{"role":"assistant","content":""},'
    b'"done_reason":"length","done":true,"total_duration":6049849,"load_duration":790819,"prompt_eval_count":26,'
    b'"prompt_eval_duration":1092929,"eval_count":24,"eval_duration":3327721}\n'
)
OLLAMA_DONE_0_33 = (
    b'{"model":"tiny-babble","created_at":"2026-11-20T20:55:57.249350676Z","message":{"role":"assistant","content":""},'
    b'"done":true,"done_reason":"length","total_duration":6796990,"load_duration":748062,"prompt_eval_count":26,'
    b'"prompt_eval_duration":714000,"eval_count":24,"eval_duration":3878000}\n'
)
OLLAMA_GENERATED = (
    b'{"model":"tiny-babble","created_at":"2026-11-20T20:55:57.199697796Z","response":"","done":true,'
    b'"done_reason":"length","context":[259,345,343],"total_duration":9809086}\n'
)
OLLAMA_LOADED = (
    b'{"model":"slow-endless","created_at":"2026-11-20T20:56:08.869247205Z","response":"","done":true,'
    b'"done_reason":"load"}\n'
)
OLLAMA_ERROR = b'{"error":"an error was encountered while running the model: unexpected EOF"}\n'
OPENAI_USAGE = (
    b'data: {"id":"chatcmpl-14","object":"chat.completion.chunk","created":1795208159,"model":"tiny-babble",'
    b'"system_fingerprint":"fp_ollama","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":12,'
    b'"total_tokens":38}}\n\n'
)
OPENAI_FINISHED = (
    b'data: {"id":"chatcmpl-14","object":"chat.completion.chunk","created":1795208159,"model":"tiny-babble",'
    b'"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
)
OPENAI_EMPTY = (
    b'data: {"id":"chatcmpl-30","object":"chat.completion.chunk","created":1795208167,"model":"",'
    b'"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
)
OPENAI_DONE = b"data: [DONE]\n\n"
LLAMA_CPP_ERROR = (
    b'data: {"error":{"code":500,"message":"the current context does not support logits computation. skipping",'
    b'"type":"server_error"}}\n\n'
)
VLLM_ERROR = b'data: {"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}\n\n'
ANTHROPIC_DELTA = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},'
    b'"usage":{"input_tokens":26,"output_tokens":8}}\n\n'
)
ANTHROPIC_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
ANTHROPIC_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
ANTHROPIC_ERROR = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"injected failure"}}\n\n'
)
LLAMA_CPP_ANTHROPIC_ERROR = b'event: error\ndata: {"code":500,"message":"boom","type":"server_error"}\n\n'
RESPONSES_ITEM = (
    b'event: response.output_item.done\ndata: {"item":{"content":[],"id":"msg_445966","role":"assistant",'
    b'"status":"completed","type":"message"},"output_index":0,'
    b'"sequence_number":14,"type":"response.output_item.done"}\n\n'
)
RESPONSES_COMPLETED = (
    b'event: response.completed\ndata: {"response":{"error":null,"id":"resp_185094","incomplete_details":null,'
    b'"object":"response","output":[],"status":"completed"},"sequence_number":15,"type":"response.completed"}\n\n'
)
LLAMA_CPP_COMPLETED = (
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_ZSZuIk2ho7la7QRD3a4CIQtN",'
    b'"object":"response","status":"completed","output":[]},"timings":{"cache_n":12}}\n\n'
)
RESPONSES_FAILED = (
    b'event: response.failed\ndata: {"response":{"error":{"code":"api_error","message":"model \'m\' not found"},'
    b'"id":"resp_336925","object":"response","output":[],"status":"failed"},'
    b'"sequence_number":2,"type":"response.failed"}\n\n'
)
RESPONSES_INCOMPLETE = (
    b'event: response.incomplete\ndata: {"type":"response.incomplete","sequence_number":9,"response":{'
    b'"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}\n\n'
)
RESPONSES_ERROR = b'event: error\ndata: {"type":"error","code":"server_error","message":"boom","param":null}\n\n'

ENDINGS = [
    (Dialect.OLLAMA, OLLAMA_DONE_0_9, Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_DONE_0_33, Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_GENERATED, Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_LOADED, Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_TOKEN + OLLAMA_DONE_0_33, Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_DONE_0_33[:-1], Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_DONE_0_33[:-1] + b"\r\n", Ending.WHOLE),
    (Dialect.OLLAMA, OLLAMA_ERROR, Ending.ERROR),
    (Dialect.OLLAMA, OLLAMA_TOKEN + OLLAMA_ERROR, Ending.ERROR),
    (Dialect.OLLAMA, OLLAMA_TOKEN, Ending.MISSING),
    (Dialect.OLLAMA, OLLAMA_DONE_0_33 + OLLAMA_TOKEN, Ending.MISSING),
    (Dialect.OPENAI, OPENAI_DONE, Ending.WHOLE),
    (Dialect.OPENAI, OPENAI_USAGE + OPENAI_DONE, Ending.WHOLE),
    (Dialect.OPENAI, b"data:[DONE]\r\n\r\n", Ending.WHOLE),
    (Dialect.OPENAI, OPENAI_EMPTY, Ending.MISSING),
    (Dialect.OPENAI, OPENAI_FINISHED, Ending.MISSING),
    (Dialect.OPENAI, OPENAI_USAGE, Ending.MISSING),
    (Dialect.OPENAI, LLAMA_CPP_ERROR, Ending.ERROR),
    (Dialect.OPENAI, VLLM_ERROR, Ending.ERROR),
    (Dialect.OPENAI, ANTHROPIC_STOP, Ending.MISSING),
    (Dialect.OPENAI, RESPONSES_COMPLETED, Ending.MISSING),
    (Dialect.ANTHROPIC, ANTHROPIC_STOP, Ending.WHOLE),
    (Dialect.ANTHROPIC, ANTHROPIC_DELTA + ANTHROPIC_STOP, Ending.WHOLE),
    (Dialect.ANTHROPIC, ANTHROPIC_STOP.replace(b"\n", b"\r\n"), Ending.WHOLE),
    (Dialect.ANTHROPIC, ANTHROPIC_DELTA, Ending.MISSING),
    (Dialect.ANTHROPIC, ANTHROPIC_PING, Ending.MISSING),
    (Dialect.ANTHROPIC, ANTHROPIC_ERROR, Ending.ERROR),
    (Dialect.ANTHROPIC, LLAMA_CPP_ANTHROPIC_ERROR, Ending.ERROR),
    (Dialect.RESPONSES, RESPONSES_COMPLETED, Ending.WHOLE),
    (Dialect.RESPONSES, LLAMA_CPP_COMPLETED, Ending.WHOLE),
    (Dialect.RESPONSES, RESPONSES_ITEM + RESPONSES_COMPLETED, Ending.WHOLE),
    (Dialect.RESPONSES, RESPONSES_INCOMPLETE, Ending.WHOLE),
    (Dialect.RESPONSES, RESPONSES_FAILED, Ending.ERROR),
    (Dialect.RESPONSES, RESPONSES_ERROR, Ending.ERROR),
    (Dialect.RESPONSES, RESPONSES_ITEM, Ending.MISSING),
]
COMMENTS = [b": keep-alive\n\n", b":\n\n", b": 1\n: 2\n\n", b":\r\n\r\n"]


@pytest.mark.parametrize(("dialect", "units", "ending"), ENDINGS)
def test_the_end_of_a_real_stream(dialect: Dialect, units: bytes, ending: Ending) -> None:
    stream = framing(dialect)
    assert stream.whole_bytes(units) in (len(units), 0)
    if units.endswith(b"\n"):
        assert stream.check(units)[0] == units
    assert stream.ending(units) is ending


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize(
    ("dialect", "units"),
    [(Dialect.OPENAI, OPENAI_DONE), (Dialect.ANTHROPIC, ANTHROPIC_STOP), (Dialect.RESPONSES, RESPONSES_COMPLETED)],
)
def test_comments_after_the_end_change_nothing(dialect: Dialect, units: bytes, comment: bytes) -> None:
    assert framing(dialect).ending(units + comment) is Ending.WHOLE
    assert framing(dialect).ending(units + comment * 3) is Ending.WHOLE
    assert framing(dialect).ending(comment) is Ending.MISSING


@pytest.mark.parametrize(
    "text", [rb"\ud83d", b"\xff", rb"\u0000", "é🌍".encode()], ids=["surrogate", "byte", "NUL", "text"]
)
def test_any_text_may_stand_in_the_last_unit(text: bytes) -> None:
    """A token may end inside a character; what the check lets pass, the ending must read too."""
    line = b'{"message":{"role":"assistant","content":"%b"},"done":true}\n' % text
    assert LINES.check(line) == (line, Ending.WHOLE)
    error = b'{"error":"%b"}\n' % text
    assert LINES.check(error) == (error, Ending.ERROR)
    completed = RESPONSES_COMPLETED.replace(b'"output":[]', b'"output":[{"text":"%b"}]' % text)
    assert framing(Dialect.RESPONSES).ending(completed) is Ending.WHOLE


def test_a_deep_value_is_no_way_out() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    assert LINES.ending(b'{"a":%b,"done":true}\n' % deep) in Ending
    assert EVENTS.ending(b'data: {"a":%b}\n\n' % deep) in Ending
    assert framing(Dialect.RESPONSES).ending(b'data: {"a":%b}\n\n' % deep) in Ending


@pytest.mark.parametrize("value", [b"null", b'""'])
def test_an_empty_error_is_none(value: bytes) -> None:
    assert LINES.ending(b'{"error":%b,"done":true}\n' % value) is Ending.WHOLE
    assert LINES.ending(b'{"error":%b}\n' % value) is Ending.MISSING
    assert EVENTS.ending(b'data: {"choices":[],"error":%b}\n\n' % value) is Ending.MISSING


def test_data_over_several_lines_is_one_event() -> None:
    event = b'event: message_stop\ndata: {"type":\ndata:  "message_stop"}\nid: 7\n\n'
    assert framing(Dialect.ANTHROPIC).ending(event) is Ending.WHOLE


def test_the_end_of_a_unit_too_long_to_be_kept_shows_in_its_start() -> None:
    generated = OLLAMA_GENERATED.replace(b"[259,", b"[" + b"259," * 50_000)
    assert LINES.ending_of_start(generated[:65536]) is Ending.WHOLE
    told = b'{"model":"m","response":"' + rb"\"done\":true,\"" * 9
    assert LINES.ending_of_start(told) is Ending.MISSING
    responses = framing(Dialect.RESPONSES)
    assert responses.ending_of_start(RESPONSES_COMPLETED[:60]) is Ending.WHOLE
    assert responses.ending_of_start(b"\r\n" + LLAMA_CPP_COMPLETED[:60]) is Ending.WHOLE
    assert responses.ending_of_start(RESPONSES_ITEM[:60]) is Ending.MISSING
    assert EVENTS.ending_of_start(OPENAI_FINISHED[:60]) is Ending.MISSING


@pytest.mark.parametrize(
    ("dialect", "content_type", "streams"),
    [
        (Dialect.OLLAMA, b"application/x-ndjson", True),
        (Dialect.OLLAMA, b"Application/X-NDJSON; charset=utf-8", True),
        (Dialect.OLLAMA, b"application/json; charset=utf-8", False),
        (Dialect.OLLAMA, b"text/event-stream", False),
        (Dialect.OLLAMA, b"", False),
        (Dialect.OPENAI, b"text/event-stream", True),
        (Dialect.OPENAI, b"text/event-stream; charset=utf-8", True),
        (Dialect.OPENAI, b"application/json", False),
        (Dialect.OPENAI, b"text/plain", False),
        (Dialect.OPENAI, b"audio/mpeg", False),
        (Dialect.ANTHROPIC, b"text/event-stream", True),
        (Dialect.RESPONSES, b"text/event-stream", True),
        (Dialect.RESPONSES, b"application/x-ndjson", True),
        (Dialect.HIVE, b"text/event-stream", False),
    ],
)
def test_the_content_type_tells_a_stream(dialect: Dialect, content_type: bytes, streams: bool) -> None:
    assert (stream_of(dialect, content_type) is not None) is streams
