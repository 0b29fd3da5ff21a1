"""What the ends of real answers tell of an engine's pace, and that no end whatever raises or is believed too much."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive.dialects.measures import TAIL_BYTES, Measured, read_measured
from hive.dialects.tasks import Dialect

from ..transcripts import LLAMAS, OLLAMAS, Recorded, recorded

WORK = {
    "/api/generate", "/api/chat", "/api/embed", "/v1/chat/completions", "/v1/completions", "/v1/messages",
    "/v1/responses", "/v1/embeddings",
}  # fmt: skip
DIALECTS = {"/v1/messages": Dialect.ANTHROPIC, "/v1/responses": Dialect.RESPONSES}
OF_OLLAMA, OF_OPENAI, OF_ANTHROPIC = Dialect.OLLAMA, Dialect.OPENAI, Dialect.ANTHROPIC
NOTHING = Measured()


def whole(engines: tuple[str, ...], wanted: str) -> list[Recorded]:
    """Return the recorded answers of these engines that tell this."""
    found = (one for one in recorded(*engines) if one.status == 200 and one.path in WORK)
    return [one for one in found if any(told(each, wanted) is not None for each in one.objects()[-2:])]


def dialect_of(one: Recorded) -> Dialect:
    return OF_OLLAMA if one.path.startswith("/api/") else DIALECTS.get(one.path, OF_OPENAI)


def told(value: object, key: str) -> dict[str, float] | None:
    """Return the object in which this key stands, or which stands under it, at any depth."""
    if not isinstance(value, dict):
        return None
    if key in value:
        return value[key] if isinstance(value[key], dict) else value
    return next((found for each in value.values() if (found := told(each, key)) is not None), None)


def last_told(one: Recorded, key: str) -> dict[str, float]:
    return [found for each in one.objects() if (found := told(each, key)) is not None][-1]


def tails(one: Recorded) -> Iterator[bytes]:
    """Yield what may have come in the last piece of an answer: all of it, or its last lines."""
    ends = range(len(one.lines))
    for start in {0, *(end for end in ends if any(mark in one.lines[end] for mark in MARKS))}:
        yield "\n".join(one.lines[start:]).encode() + b"\n\n"


MARKS = ('"total_duration"', '"timings"', '"usage":{')


# --- the words of real engines ---


@pytest.mark.parametrize("one", whole(OLLAMAS, "total_duration"), ids=lambda one: one.id)
def test_durations_of_an_ollama(one: Recorded) -> None:
    said = last_told(one, "total_duration")
    load, total = said.get("load_duration", 0), said["total_duration"]
    is_embedding = one.path == "/api/embed"
    prompt = total - load if is_embedding else said.get("prompt_eval_duration")
    decode = said.get("eval_duration")
    for tail in tails(one):
        seen = read_measured(dialect_of(one), tail)
        assert (seen.prompt_tokens, seen.output_tokens) == (said["prompt_eval_count"], said.get("eval_count"))
        assert (seen.load_seconds, seen.total_seconds) == pytest.approx((load / 1e9, total / 1e9))
        assert seen.prompt_seconds == (None if prompt is None else pytest.approx(prompt / 1e9))
        assert seen.decode_seconds == (None if decode is None else pytest.approx(decode / 1e9))
        assert (seen.waited_inside is None) is (prompt is None or decode is None)


@pytest.mark.parametrize("one", whole(LLAMAS, "timings"), ids=lambda one: one.id)
def test_timings_of_a_llama_cpp_whether_it_streams_or_not(one: Recorded) -> None:
    said = last_told(one, "timings")
    for tail in tails(one):
        seen = read_measured(dialect_of(one), tail, 0.5)
        assert (seen.first_byte, seen.prompt_tokens, seen.output_tokens) == (0.5, said["prompt_n"], said["predicted_n"])
        assert seen.prompt_seconds == pytest.approx(said["prompt_ms"] / 1000)
        assert seen.decode_seconds == pytest.approx(said["predicted_ms"] / 1000)
        assert (seen.load_seconds, seen.total_seconds, seen.waited_inside) == (None, None, None)


def only_counted() -> list[Recorded]:
    """Return the answers that end with `usage` alone: a llama.cpp tells it before the numbers of an embedding."""
    durations = {one.id for one in (*whole(OLLAMAS, "total_duration"), *whole(LLAMAS, "timings"))}
    found = [one for one in whole((*OLLAMAS, *LLAMAS), "usage") if one.id not in durations]
    return [one for one in found if b'"usage"' in one.body[-TAIL_BYTES:]]


@pytest.mark.parametrize("one", only_counted(), ids=lambda one: one.id)
def test_usage_in_three_dialects_is_counts_and_no_seconds(one: Recorded) -> None:
    said = last_told(one, "usage")
    for tail in tails(one):
        seen = read_measured(dialect_of(one), tail)
        assert seen.prompt_tokens == said.get("prompt_tokens", said.get("input_tokens"))
        assert seen.output_tokens == said.get("completion_tokens", said.get("output_tokens"))
        assert (seen.prompt_seconds, seen.decode_seconds, seen.total_seconds) == (None, None, None)


@pytest.mark.skipif(not recorded(*OLLAMAS), reason="the transcripts are not beside the checkout")
def test_the_transcripts_are_of_all_generations_and_dialects() -> None:
    seen = {(one.engine, one.path) for one in (*whole(OLLAMAS, "total_duration"), *whole(LLAMAS, "timings"))}
    assert {(engine, path) for engine in OLLAMAS for path in ("/api/generate", "/api/chat", "/api/embed")} <= seen
    assert {(engine, "/v1/chat/completions") for engine in LLAMAS} <= seen
    assert {one.path for one in only_counted()} >= {"/v1/chat/completions", "/v1/messages", "/v1/responses"}


# --- literal bytes ---

OLLAMA = (
    b'{"model":"m","created_at":"2026-11-20T16:39:47.6Z","message":{"role":"assistant","content":""},"done":true,'
    b'"done_reason":"stop","total_duration":4000000000,"load_duration":500000000,"prompt_eval_count":26,'
    b'"prompt_eval_duration":250000000,"eval_count":24,"eval_duration":3000000000}\n'
)
OLLAMA_SAYS = Measured(None, 26, 0.25, 24, 3.0, 0.5, 4.0)
LLAMA_CPP = (
    b'data: {"choices":[],"usage":{"completion_tokens":12,"prompt_tokens":26,"prompt_tokens_details":'
    b'{"cached_tokens":0}},"timings":{"cache_n":1,"prompt_n":25,"prompt_ms":250.0,"predicted_n":12,'
    b'"predicted_ms":1500.0,"predicted_per_second":8}}\n\ndata: [DONE]\n\n'
)
LLAMA_CPP_SAYS = Measured(None, 25, 0.25, 12, 1.5)
USAGES = [
    (b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n', 5, 2),
    (b'{"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2,"prompt_tokens_details":null}}', 5, 2),
    (b'{"usage":{"prompt_tokens":14,"total_tokens":14}}', 14, None),
    (b'{"type":"message_delta","delta":{},"usage":{"input_tokens":26,"output_tokens":8}}', 26, 8),
    (b'{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}', None, 8),
    (
        b'{"usage":{"input_tokens":25,"input_tokens_details":{"cached_tokens":0},"output_tokens":8,'
        b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":33}}',
        25,
        8,
    ),
    (b'{"usage":{"prompt_tokens_details":{"cached_tokens":9},"prompt_tokens":25,"completion_tokens":8}}', 25, 8),
]  # fmt: skip


def test_each_engine_s_own_words() -> None:
    assert read_measured(OF_OLLAMA, OLLAMA) == OLLAMA_SAYS
    assert read_measured(OF_OPENAI, LLAMA_CPP) == LLAMA_CPP_SAYS


@pytest.mark.parametrize(("tail", "prompt", "output"), USAGES)
def test_usage_counts(tail: bytes, prompt: int | None, output: int | None) -> None:
    for dialect in (OF_OPENAI, OF_ANTHROPIC, Dialect.RESPONSES):
        assert read_measured(dialect, tail, 0.1) == Measured(0.1, prompt, None, output)


@pytest.mark.parametrize(("tail", "prompt", "output"), USAGES)
def test_so_do_those_with_spaces_and_the_time_of_an_answer_in_one_piece(
    tail: bytes, prompt: int | None, output: int | None
) -> None:
    spaced = tail.replace(b'":', b'": ')
    assert read_measured(OF_OPENAI, spaced, whole=2.0) == Measured(None, prompt, None, output, whole_seconds=2.0)
    assert read_measured(OF_OPENAI, LLAMA_CPP.replace(b'":', b'": '), whole=2.0) == LLAMA_CPP_SAYS, (
        "its own clock is better"
    )


def test_each_dialect_is_read_for_its_own_words_alone() -> None:
    assert read_measured(OF_OLLAMA, LLAMA_CPP) == read_measured(OF_OPENAI, OLLAMA) == NOTHING


def test_what_waited_inside_is_the_rest_of_the_whole() -> None:
    assert OLLAMA_SAYS.waited_inside == pytest.approx(0.25)
    assert LLAMA_CPP_SAYS.waited_inside is None
    assert Measured(None, 1, 3.0, 1, 3.0, 0.0, 5.0).waited_inside == 0.0, "clocks that disagree are no wait"


def test_what_an_ollama_leaves_out_nobody_measured() -> None:
    """0.5.4 tells no time for a prompt that it had read before, nor for one token; a load alone tells nothing."""
    cached = b'{"done":true,"total_duration":36037041,"prompt_eval_count":26,"eval_count":133,"eval_duration":31000000}'
    seen = read_measured(OF_OLLAMA, cached)
    assert (seen.prompt_tokens, seen.prompt_seconds, seen.output_tokens) == (26, None, 133)
    assert (seen.decode_seconds, seen.waited_inside) == (pytest.approx(0.031), None)
    short = read_measured(
        OF_OLLAMA, b'{"total_duration":9,"prompt_eval_count":25,"prompt_eval_duration":5,"eval_count":1}'
    )
    assert (short.prompt_seconds, short.output_tokens, short.decode_seconds) == (5e-9, 1, None)
    assert (
        read_measured(OF_OLLAMA, b'{"model":"m","created_at":"t","response":"","done":true,"done_reason":"load"}\n')
        == NOTHING
    )


def test_an_embedding_is_all_prompt_and_nothing_of_it_is_a_wait() -> None:
    tail = b'[0.1,0.2]],"total_duration":2000000000,"load_duration":500000000,"prompt_eval_count":900}'
    seen = read_measured(OF_OLLAMA, tail)
    assert seen == Measured(None, 900, 1.5, None, None, 0.5, 2.0)
    assert seen.waited_inside is None


LOOK_ALIKES = [
    '"total_duration":1,"load_duration":1',
    '"timings":{"prompt_n":1,"prompt_ms":1,"predicted_n":1,"predicted_ms":1}',
    '"usage":{"prompt_tokens":1,"completion_tokens":1}',
    "}{}}{",
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_a_model_writes_is_no_measurement(text: str) -> None:
    quoted = json.dumps(text).encode()
    assert read_measured(OF_OLLAMA, b'{"response":%b,"done":true}\n' % quoted) == NOTHING
    assert read_measured(OF_OLLAMA, b'{"response":%b,%b' % (quoted, OLLAMA[1:])) == OLLAMA_SAYS
    assert read_measured(OF_OPENAI, b'data: {"choices":[{"text":%b}]}\n\n%b' % (quoted, LLAMA_CPP)) == LLAMA_CPP_SAYS
    assert read_measured(OF_OPENAI, b'{"choices":[{"text":%b}],%b' % (quoted, USAGES[0][0][7:])) == Measured(
        None, 5, None, 2
    )


def test_of_several_the_last_counts() -> None:
    """Each event of an Anthropic stream may count; an Ollama's tool may be called with anything."""
    early = b'data: {"type":"message_start","message":{"usage":{"input_tokens":1,"output_tokens":0}}}\n\n'
    assert read_measured(OF_ANTHROPIC, early + b"data: " + USAGES[3][0] + b"\n\n") == Measured(None, 26, None, 8)
    called = b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"total_duration":1}}}]},'
    assert read_measured(OF_OLLAMA, called + OLLAMA[1:]) == OLLAMA_SAYS


def test_only_the_end_is_read() -> None:
    assert read_measured(OF_OLLAMA, OLLAMA + b" " * TAIL_BYTES) == NOTHING
    assert read_measured(OF_OLLAMA, b"x" * 2_000_000 + OLLAMA) == OLLAMA_SAYS


DAMAGED = [
    b"",
    b'"total_duration":',
    b'"total_duration":12',
    b'{"total_duration":}',
    b'{"total_duration":"1s"}',
    b'{"total_duration":-1,"eval_count":1}',
    b'{"total_duration":1,"prompt_eval_duration":-1,"eval_count":1}',
    b'{"total_duration":1e400}',
    b'{"total_duration":' + b"9" * 400 + b"}",
    b'{"total_duration":1,"x":' + b"[" * 1000 + b"}",
    b'{"total_duration":\xff\xfe}',
    b'{"timings":{"prompt_n":1}}',
    b'{"timings":{"prompt_n":1,"prompt_ms":1e999,"predicted_n":1,"predicted_ms":1}}',
    b'{"timings":{"prompt_n":1,"prompt_ms":-5,"predicted_n":1,"predicted_ms":1}}',
    b'{"timings":{"prompt_n":' + b"9" * 400 + b',"prompt_ms":1,"predicted_n":1,"predicted_ms":1}}',
    b'{"usage":{"prompt_tokens":' + b"9" * 400 + b"}}",
    b'{"usage":{"prompt_tokens":-1}}',
    b'{"usage":{}',
    b'{"usage":{"input_tokens":[{"a":{}}',
]


@pytest.mark.parametrize("tail", DAMAGED)
def test_what_cannot_be_is_not_believed(tail: bytes) -> None:
    for dialect in Dialect:
        assert read_measured(dialect, tail, 0.5) == Measured(0.5)


# --- anything at all ---

PIECES = st.sampled_from([
    b'"total_duration":', b'"load_duration":', b'"prompt_eval_count":', b'"prompt_eval_duration":', b'"eval_count":',
    b'"eval_duration":', b'"timings":{', b'"prompt_n":', b'"prompt_ms":', b'"predicted_n":', b'"predicted_ms":',
    b'"usage":{', b'"prompt_tokens":', b'"completion_tokens":', b'"input_tokens":', b'"output_tokens":', b"null",
    b"true", b"0", b"1", b"-1", b"1.5", b"1e308", b"9007199254740991", b"9007199254740992", b"9" * 350, b"{", b"}",
    b"[", b"]", b",", b'"', b"\\", b'\\"', b"[" * 1100, b"\xff", b"\x00", b"\n", b"data: ",
])  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=8), max_size=24).map(b"".join), st.sampled_from(Dialect))
@example(b'{"total_duration":0,"load_duration":9007199254740991,"eval_count":0}', OF_OLLAMA)
@settings(deadline=None, max_examples=400)
def test_no_tail_raises_and_what_is_told_can_be_reckoned_with(tail: bytes, dialect: Dialect) -> None:
    seen = read_measured(dialect, tail)
    for value in (seen.prompt_seconds, seen.decode_seconds, seen.load_seconds, seen.total_seconds, seen.waited_inside):
        assert value is None or 0 <= value < 1e15
    for count in (seen.prompt_tokens, seen.output_tokens):
        assert count is None or 0 <= count < 1e16


NUMBERS = st.integers(0, (1 << 53) - 1)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.text(max_size=30))
@settings(deadline=None, max_examples=60)
def test_any_durations_are_read_back_whatever_the_model_wrote(
    total: int, load: int, prompt: int, reading: int, output: int, writing: int, text: str
) -> None:
    line = {
        "response": text, "done": True, "total_duration": total, "load_duration": load, "prompt_eval_count": prompt,
        "prompt_eval_duration": reading, "eval_count": output, "eval_duration": writing,
    }  # fmt: skip
    seen = read_measured(OF_OLLAMA, json.dumps(line, separators=(",", ":")).encode() + b"\n")
    expected = Measured(None, prompt, reading * 1e-9, output, writing * 1e-9, load * 1e-9, total * 1e-9)
    assert seen == expected
