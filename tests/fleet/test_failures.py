"""What the engines' real refusals mean; the words are literal, of three generations of Ollama and two of llama.cpp."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive import errors
from hive.errors import Family, Kind
from hive.fleet.failures import TABLE, Row, Verdict, judge
from hive.fleet.kinds import EngineKind

from ..transcripts import LLAMAS, OLLAMAS, Recorded, recorded

OLLAMA, LLAMA_CPP, VLLM, OPENAI = EngineKind.OLLAMA, EngineKind.LLAMA_CPP, EngineKind.VLLM, EngineKind.OPENAI

BUSY = [
    (OLLAMA, 503, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'),
    (
        OLLAMA,
        503,
        b'{"error":{"message":"server busy, please try again.  maximum pending requests exceeded","type":"api_error",'
        b'"param":null,"code":null}}\n',
    ),
    (
        OLLAMA,
        503,
        b'{"type":"error","error":{"type":"overloaded_error","message":"server busy, please try again.  '
        b'maximum pending requests exceeded"},"request_id":"req_5d91b2b07b0e5a487f3ec13e"}\n',
    ),
    (LLAMA_CPP, 503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'),
    (LLAMA_CPP, 503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'),
    (LLAMA_CPP, 503, b'{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}'),
    (VLLM, 429, b'{"error":{"message":"too many requests","type":"RateLimitError","param":null,"code":429}}'),
    (OPENAI, 429, b""),
    (OLLAMA, 429, b'{"error":"too many concurrent requests"}'),
]


@pytest.mark.parametrize(("kind", "status", "body"), BUSY)
def test_busy_puts_the_ticket_back_and_is_shown_as_busy(kind: EngineKind, status: int, body: bytes) -> None:
    row = judge(kind, status, body)
    assert (row.verdict, row.kind) == (Verdict.BUSY, errors.NODE_BUSY)


LOST_MODEL = [
    (OLLAMA, b"""{"error":"model 'nope' not found"}"""),
    (OLLAMA, b"""{"error":"model 'nope:latest' not found"}"""),
    (OLLAMA, rb'{"error":"model \"nope\" not found, try pulling it first"}'),
    (
        OLLAMA,  # 0.9.3
        rb'{"error":{"message":"model \"nope\" not found, try pulling it first","type":"api_error",'
        b'"param":null,"code":null}}\n',
    ),
    (
        OLLAMA,  # 0.24.0 and 0.33.0
        b"""{"error":{"message":"model 'nope' not found","type":"not_found_error","param":null,"code":null}}\n""",
    ),
    (
        OLLAMA,
        b"""{"type":"error","error":{"type":"not_found_error","message":"model 'nope' not found"},"request_id":"r"}""",
    ),
    (
        VLLM,
        b'{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":"model","code":404}}',
    ),
    (VLLM, b'{"object":"error","message":"The model `nope` does not exist.","type":"NotFoundError","code":404}'),
]
LACKS_ROUTE = [
    (OLLAMA, 404, b"404 page not found"),
    (LLAMA_CPP, 404, b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}'),
    (OPENAI, 404, b'{"detail":"Not Found"}'),
    (OPENAI, 405, b'{"detail":"Method Not Allowed"}'),
    (VLLM, 404, b'{"detail":"Not Found"}'),
    (VLLM, 404, b'{"error":{"message":"Not Found","type":"NotFoundError","param":null,"code":404}}'),
    (VLLM, 405, b'{"detail":"Method Not Allowed"}'),
    (VLLM, 405, b'{"error":{"message":"Method Not Allowed","type":"Method Not Allowed","param":null,"code":405}}'),
    (OLLAMA, 405, b"405 method not allowed"),
    (LLAMA_CPP, 405, b""),
]


@pytest.mark.parametrize(("kind", "body"), LOST_MODEL)
def test_an_engine_that_lost_the_model_sends_the_client_elsewhere(kind: EngineKind, body: bytes) -> None:
    assert judge(kind, 404, body).verdict is Verdict.ELSEWHERE


@pytest.mark.parametrize(("kind", "status", "body"), LACKS_ROUTE)
def test_an_engine_that_lacks_the_route_sends_the_client_elsewhere(kind: EngineKind, status: int, body: bytes) -> None:
    """An old build has no /v1/responses or /v1/messages, and another node may."""
    assert judge(kind, status, body).verdict is Verdict.ELSEWHERE


@pytest.mark.parametrize("status", [401, 403, 407])
@pytest.mark.parametrize("kind", list(EngineKind))
def test_refused_credentials_are_the_hub_s_own_and_never_reach_a_client(kind: EngineKind, status: int) -> None:
    for body in (b'{"error":"unauthorized"}', b""):
        row = judge(kind, status, body)
        assert (row.verdict, row.kind) == (Verdict.ELSEWHERE, errors.NODE_REFUSED_HUB)


PARSING = b"error parsing tool call"
DIED = [
    b'{"error":"model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, '
    b'check ollama server logs for details"}',
    b'{"error":"llama runner process has terminated: exit status 2"}',
    b'{"error":"llama runner process has terminated: signal: killed"}',
    b'{"error":"an error was encountered while running the model: unexpected EOF"}\n',
    b'{"error":"model requires more system memory (12.4 GiB) than is available (3.1 GiB)"}',
    b'{"error":"timed out waiting for llama runner to start - progress 0.00 - "}',
    b'{"error":"llama-server process no longer running: unknown "}',
    b'{"error":"llama-server process has terminated: exit status 1"}',
    b'{"error":"timed out waiting for llama-server to start"}',
    b'{"error":"connection refused"}',
    b'{"error":"do load request: Post \\"http://127.0.0.1:1/load\\": dial tcp 127.0.0.1:1: connection refused"}',
    b'{"error":"Post \\"http://127.0.0.1:1/x\\": read tcp 127.0.0.1:2->127.0.0.1:1: read: connection reset by peer"}',
    b'{"error":{"message":"llama-server process no longer running: -1 ","type":"api_error","param":null,"code":null}}',
    b'{"error":"unable to load model: /root/.ollama/models/blobs/sha256-00"}',
    b'{"error":{"message":"llama runner process has terminated: CUDA error","type":"api_error","param":null}}',
]


@pytest.mark.parametrize("body", DIED)
def test_a_runner_that_died_sends_the_client_elsewhere_or_shows_the_engines_words(body: bytes) -> None:
    row = judge(OLLAMA, 500, body)
    assert (row.verdict, row.kind) == (Verdict.ELSEWHERE, None)


ABOUT_THE_REQUEST = [
    (OLLAMA, 500, rb'{"error":"option \"temperature\" must be of type float32"}'),
    (OLLAMA, 400, rb'{"error":"option \"num_ctx\" must be of type integer"}'),
    (OLLAMA, 400, rb'{"error":"time: invalid duration \"soon\""}'),
    (OLLAMA, 400, rb'{"error":"\"tiny-embed\" does not support generate"}'),
    (OLLAMA, 400, b'{"error":"registry.ollama.ai/library/tiny-babble:latest does not support thinking"}'),
    (OLLAMA, 400, rb'{"error":"\"tiny-babble\" does not support thinking"}'),
    (OLLAMA, 400, b'{"error":"input length exceeds maximum context length"}'),
    (OLLAMA, 400, b'{"error":"the input length exceeds the context length"}'),
    (OLLAMA, 400, b"""{"error":{"message":"[] is too short - 'messages'","type":"invalid_request_error"}}"""),
    (
        OLLAMA,
        400,
        rb'{"error":"{\"error\":{\"code\":400,\"message\":\"request (5025 tokens) exceeds the available context size '
        rb'(2048 tokens), try increasing it\",\"type\":\"exceed_context_size_error\"}}"}',
    ),
    (
        LLAMA_CPP,
        400,
        b'{"error":{"code":400,"message":"request (6025 tokens) exceeds the available context size (2048 tokens), '
        b'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":6025,"n_ctx":2048}}',
    ),
    (
        LLAMA_CPP,
        500,
        b'{"error":{"code":500,"message":"input (3002 tokens) is too large to process. increase the physical batch '
        b'size (current batch size: 512)","type":"server_error"}}',
    ),
    (
        LLAMA_CPP,
        500,
        b'{"error":{"code":500,"message":"the current context does not support logits computation. skipping",'
        b'"type":"server_error"}}',
    ),
    (OPENAI, 500, b'{"error":{"message":"list object has no element 0","type":"internal_server_error"}}'),
    (
        VLLM,
        400,
        b'{"error":{"message":"max_tokens must be at least 1","type":"BadRequestError","code":400}}',
    ),
    (VLLM, 422, b'{"detail":[{"msg":"Field required"}]}'),
]


@pytest.mark.parametrize(("kind", "status", "body"), ABOUT_THE_REQUEST)
def test_an_answer_about_the_request_reaches_the_client_as_it_is(kind: EngineKind, status: int, body: bytes) -> None:
    """A bad option would be refused everywhere: trying on would sicken the whole fleet."""
    assert judge(kind, status, body).verdict is Verdict.PASS


ONLY_SOME_GENERATIONS = [
    # 0.24.0, 0.9.3 and 0.5.4 refuse tools where the template has none; 0.33.0 answers.
    (400, b'{"error":"registry.ollama.ai/library/tiny-babble:latest does not support tools"}', ["0.24.0", "0.5.4", ""]),
]


@pytest.mark.parametrize(("status", "body", "versions"), ONLY_SOME_GENERATIONS)
def test_a_task_of_another_generation_goes_elsewhere(status: int, body: bytes, versions: list[str]) -> None:
    for version in versions:
        row = judge(OLLAMA, status, body, version)
        assert (row.verdict, row.kind, row.blames) == (Verdict.ELSEWHERE, None, False)
    assert judge(OLLAMA, status, body, "0.33.0-rc2").verdict is Verdict.PASS
    assert judge(LLAMA_CPP, status, body).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        # 0.33.0 embeds with embedding models only; 0.24.0 and older with any.
        (OLLAMA, b'{"error":"This server does not support embeddings. Start it with `--embeddings`"}'),
        (
            LLAMA_CPP,
            b'{"error":{"code":501,"message":"This server does not support embeddings. Start it with `--embeddings`",'
            b'"type":"not_supported_error"}}',
        ),
    ],
)
def test_an_engine_that_cannot_embed_sends_the_client_elsewhere(kind: EngineKind, body: bytes) -> None:
    row = judge(kind, 501, body, "0.33.0")
    assert (row.verdict, row.kind, row.blames) == (Verdict.ELSEWHERE, None, False)


@pytest.mark.parametrize(
    ("status", "body", "blames"),
    [
        (500, DIED[0], True),
        (502, b"", True),
        (401, b"", True),
        (499, b"", True),
        (302, b"", True),
        (404, LOST_MODEL[0][1], False),
        (405, b"405 method not allowed", False),
        (503, BUSY[0][2], False),
        (400, b'{"error":"invalid options"}', False),
    ],
)
def test_only_a_fault_of_the_node_blames_it(status: int, body: bytes, blames: bool) -> None:
    assert judge(OLLAMA, status, body).blames is blames


def test_a_row_for_some_versions_has_a_range() -> None:
    row = Row(None, 400, (), Verdict.ELSEWHERE, since=(0, 5), before=(0, 10))
    fits = {numbers: row.fits(OLLAMA, 400, b"", numbers) for numbers in [(0, 4, 9), (0, 5), (0, 9, 9), (0, 10), ()]}
    assert fits == {(0, 4, 9): False, (0, 5): True, (0, 9, 9): True, (0, 10): False, (): True}


def test_a_499_is_shown_to_no_client() -> None:
    row = judge(OLLAMA, 499, b'{"error":"request canceled"}')
    assert (row.verdict, row.kind) == (Verdict.ELSEWHERE, errors.NODE_FAILED)


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("kind", list(EngineKind))
def test_a_proxy_s_error_before_an_engine_sends_the_client_elsewhere(kind: EngineKind, status: int) -> None:
    assert judge(kind, status, b"<html>Bad Gateway</html>").verdict is Verdict.ELSEWHERE


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_a_redirect_is_not_followed_and_not_passed_on(status: int) -> None:
    for kind in EngineKind:
        row = judge(kind, status, b"")
        assert (row.verdict, row.kind) == (Verdict.ELSEWHERE, errors.NODE_FAILED)


@given(st.sampled_from(list(EngineKind)), st.integers(300, 599), st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_answer_has_a_verdict_and_its_replacement_is_the_nodes_fault(
    kind: EngineKind, status: int, body: bytes
) -> None:
    row = judge(kind, status, body)
    assert row.kind is None or (row.kind.family is Family.NODE and row.kind.another_node)
    if status in (401, 403, 407, 429, 499) or status < 400:
        assert isinstance(row.kind, Kind)


def test_no_row_stands_behind_one_that_hides_it() -> None:
    for place, row in enumerate(TABLE):
        earlier = [each for each in TABLE[:place] if each.status == row.status and not each.texts]
        assert all(each.kinds is not None and row.kinds != each.kinds for each in earlier)


PASS, BUSY_, ELSEWHERE = Verdict.PASS, Verdict.BUSY, Verdict.ELSEWHERE
KINDS = {"ollama": OLLAMA, "llama": LLAMA_CPP, "xllam": LLAMA_CPP}
MEANINGS: list[tuple[int, str, Verdict]] = [
    # Status, what stands in the transcript's name, and what it means; the first that fits counts.
    (403, "err-origin", ELSEWHERE),
    (404, "blob", PASS),
    (404, "", ELSEWHERE),
    (405, "wrong-method", ELSEWHERE),
    (400, "tools-unsupported", ELSEWHERE),
    (501, "embed", ELSEWHERE),
    (503, "overload", BUSY_),
    (503, "no-slot", BUSY_),
    (400, "", PASS),
    (415, "", PASS),
    (500, "too-long", PASS),
    (500, "on-embedding-server", PASS),
]


def kind_of(one: Recorded) -> EngineKind:
    return next(kind for start, kind in KINDS.items() if one.engine.startswith(start))


def row_of(one: Recorded) -> Row:
    return judge(kind_of(one), one.status, one.body, one.engine.partition("-")[2])


REFUSALS = [one for one in recorded(*OLLAMAS, *LLAMAS) if one.status >= 300]
BROKEN_STREAMS = [
    one for one in recorded(*OLLAMAS) if "runner-killed-midstream" in one.name and one.path == "/api/chat"
]


@pytest.mark.parametrize("one", REFUSALS, ids=lambda one: one.id)
def test_a_recorded_refusal_means_what_it_says(one: Recorded) -> None:
    meaning = next(verdict for status, part, verdict in MEANINGS if status == one.status and part in one.name)
    row = row_of(one)
    assert row.verdict is meaning
    assert row.blames is (one.status == 403), "of what was recorded only a refused credential speaks against a node"


@pytest.mark.parametrize("one", BROKEN_STREAMS, ids=lambda one: one.id)
def test_a_stream_that_opens_with_a_runners_death_may_move(one: Recorded) -> None:
    """`Relay` asks the table about the error line that stands where the first token should."""
    line = one.lines[-1].encode() + b"\n"
    assert line.startswith(b'{"error":"')
    row = judge(OLLAMA, 500, line, one.engine.partition("-")[2])
    assert (row.verdict, row.blames) == (ELSEWHERE, True)


NEVER_RECORDED = {
    *((status, ()) for status in (401, 405, 407, 429, 499, 502, 503, 504)),
    (503, (b"Loading model",)),
    *((row.status, row.texts) for row in TABLE if row.texts and row.texts[0] in (b"dial tcp 127.0.0.1:", PARSING)),
}
"""Rows without recorded words: of proxies, of credentials, of other engines, of a moment at a start or an end."""


def test_a_models_own_words_blame_no_engine() -> None:
    """An Ollama quotes a tool call that it cannot read."""
    said = b"""{"error":"error parsing tool call: raw='curl: (7) out of memory', err=invalid character"}"""
    assert judge(OLLAMA, 500, said).verdict is Verdict.PASS


@pytest.mark.skipif(not REFUSALS, reason="the transcripts are not beside the checkout")
def test_every_row_is_tested_on_real_words_of_all_generations_that_say_them() -> None:
    seen: dict[Row, set[str]] = {}
    for one in REFUSALS:
        seen.setdefault(row_of(one), set()).add(one.engine)
    for one in BROKEN_STREAMS:
        seen.setdefault(judge(OLLAMA, 500, one.lines[-1].encode()), set()).add(one.engine)
    missed = {(row.status, row.texts) for row in TABLE if row not in seen}
    assert missed == NEVER_RECORDED
    generations = {(row.status, row.kinds): engines for row, engines in seen.items() if row in TABLE}
    ollama = frozenset({OLLAMA})
    assert generations[503, ollama] == {"ollama-0.5.4", "ollama-0.9.3"}
    assert generations[400, ollama] == {"ollama-0.5.4", "ollama-0.9.3", "ollama-0.24.0"}
    assert generations[404, None] == {*OLLAMAS, *LLAMAS}
    assert generations[405, None] == {"ollama-0.9.3", "ollama-0.24.0", "ollama-0.33.0-rc2"}
    assert generations[500, None] == set(OLLAMAS)
    assert generations[501, None] == {"ollama-0.33.0-rc2", *LLAMAS}
    assert generations[503, None] == set(LLAMAS)
