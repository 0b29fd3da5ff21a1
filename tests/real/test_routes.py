"""Each inference route, asked through the hub and directly: the same answer, on each engine, over each link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from .answers import described, dialect_of, is_error_of
from .hub import Direct, Hub, over_each_link
from .installed import EACH_LLAMA, EACH_OLLAMA, OLLAMAS, Fleet, has_route, version_of
from .wire import Answer, ask

pytestmark = pytest.mark.engines

HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
    "required": ["city"],
}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "w", "parameters": WEATHER}}]
MESSAGES_TOOLS = [{"name": "get_weather", "description": "w", "input_schema": WEATHER}]
RESPONSES_TOOLS = [{"type": "function", "name": "get_weather", "description": "w", "parameters": WEATHER}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["ok", "n"],
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
FEW = {"seed": 7, "num_predict": 12}
LONG_TEXT = "water " * 5000


@dataclass(frozen=True)
class Case:
    """One request. `hub_path` is what the hub is asked when that differs."""

    name: str
    path: str
    body: dict[str, object]
    hub_path: str = ""


def _case(name: str, path: str, model: str, hub_path: str = "", /, **body: object) -> Case:
    return Case(name, path, {"model": model, **body}, hub_path or path)


def _generate(name: str, model: str = "tiny-babble", hub_path: str = "", /, **body: object) -> Case:
    return _case(f"generate-{name}", "/api/generate", model, hub_path, **{"options": FEW, **body})


def _chat(name: str, model: str = "tiny-babble", hub_path: str = "", /, **body: object) -> Case:
    whole = {"messages": HELLO, "options": FEW, **body}
    return _case(f"chat-{name}", "/api/chat", model, hub_path, **whole)


def _v1_chat(name: str, model: str = "tiny-babble", /, **body: object) -> Case:
    whole = {"messages": HELLO, "seed": 7, "max_tokens": 12, **body}
    return _case(f"v1-chat-{name}", "/v1/chat/completions", model, **whole)


def _messages(name: str, model: str = "tiny-babble", /, **body: object) -> Case:
    whole = {"messages": HELLO, "max_tokens": 64, "temperature": 0, **body}
    return _case(f"v1-messages-{name}", "/v1/messages", model, **whole)


def _responses(name: str, model: str = "tiny-babble", /, **body: object) -> Case:
    whole = {"input": "hello", "max_output_tokens": 64, "temperature": 0, **body}
    return _case(f"v1-responses-{name}", "/v1/responses", model, **whole)


CASES = [
    _generate("stream", prompt="hello there"),
    _generate("whole", prompt="hello there", stream=False),
    _generate("raw", prompt="hello", raw=True, stream=False),
    _generate("json", prompt="hello", format="json", stream=False),
    _generate("utf8", "tiny-utf8", prompt="Grüße, 世界 🌍"),
    _generate("without-api", "tiny-babble", "/generate", prompt="hello there"),
    _generate("null-options", "tiny-utf8", prompt="x", options=None, suffix="", system="", template=""),
    _generate("other-spelling", "Tiny-UTF8", prompt="hello"),
    _generate("with-tag", "tiny-utf8:latest", prompt="hello", stream=False),
    _generate("load-only"),
    _generate("load-only-empty-prompt", prompt="", keep_alive="2m"),
    _generate("bad-keep-alive", prompt="hello", keep_alive="soon"),
    _generate("by-embedding-model", "tiny-embed", prompt="hello"),
    _chat("stream"),
    _chat("whole", stream=False),
    _chat("without-api", "tiny-babble", "/chat"),
    _chat("utf8-stream", "tiny-utf8", options={}),
    _chat("utf8-whole", "tiny-utf8", options={}, stream=False),
    _chat("empty-images", "tiny-utf8", messages=[{"role": "user", "content": "é\u2028\x7f", "images": []}]),
    _chat("schema", format=SCHEMA, stream=False, options={"seed": 7, "num_predict": 60}),
    _chat("schema-stream", format=SCHEMA, options={"seed": 7, "num_predict": 60}),
    _chat("tools-stream", "tiny-tool", tools=TOOLS, options={}),
    _chat("tools-whole", "tiny-tool", tools=TOOLS, options={}, stream=False),
    _chat("tools-unsupported", tools=TOOLS, stream=False),
    _chat("think-stream", "tiny-think", think=True, options={}),
    _chat("think-whole", "tiny-think", think=True, options={}, stream=False),
    _chat("think-off", "tiny-think", think=False, options={}, stream=False),
    _chat("logprobs", logprobs=True, top_logprobs=2, options={"seed": 7, "num_predict": 3}),
    _chat("load-only", messages=[]),
    _case("embed-list", "/api/embed", "tiny-embed", input=["hello world", "the water of life"]),
    _case("embed-single", "/api/embed", "tiny-embed", input="hello world"),
    _case("embed-dimensions", "/api/embed", "tiny-embed", input="hello world", dimensions=8),
    _case("embed-too-long", "/api/embed", "tiny-embed", input=LONG_TEXT, truncate=False),
    _case("embed-by-chat-model", "/api/embed", "tiny-babble", input="hello"),
    _case("embeddings", "/api/embeddings", "tiny-embed", prompt="hello world"),
    _case("show", "/api/show", "tiny-babble"),
    _case("show-verbose", "/api/show", "tiny-tool", verbose=True),
    _case("show-by-name", "/api/show", "", name="tiny-utf8"),
    _v1_chat("stream", stream=True),
    _v1_chat("stream-usage", stream=True, stream_options={"include_usage": True}),
    _v1_chat("stream-no-usage", stream=True, stream_options={"include_usage": False}),
    _v1_chat("whole"),
    _v1_chat("utf8-stream", "tiny-utf8", max_tokens=200, stream=True),
    _v1_chat("tools-stream", "tiny-tool", tools=TOOLS, max_tokens=200, stream=True),
    _v1_chat("tools-whole", "tiny-tool", tools=TOOLS, max_tokens=200),
    _v1_chat("think-stream", "tiny-think", max_tokens=200, stream=True, reasoning_effort="low"),
    _v1_chat("think-whole", "tiny-think", max_tokens=200),
    _v1_chat("schema", response_format=JSON_SCHEMA, max_tokens=60),
    _v1_chat("logprobs", logprobs=True, top_logprobs=2, max_tokens=3),
    _v1_chat("no-messages", messages=[]),
    _case("v1-completions-stream", "/v1/completions", "tiny-babble", prompt="hello", seed=7, max_tokens=6,
          stream=True),
    _case("v1-completions-whole", "/v1/completions", "tiny-babble", prompt="hello", seed=7, max_tokens=6),
    _case("v1-embeddings", "/v1/embeddings", "tiny-embed", input=["hello world", "b"]),
    _case("v1-embeddings-base64", "/v1/embeddings", "tiny-embed", input="hello", encoding_format="base64"),
    _case("v1-embeddings-by-chat-model", "/v1/embeddings", "tiny-babble", input="hello"),
    _responses("stream", stream=True),
    _responses("whole"),
    _responses("tools-stream", "tiny-tool", tools=RESPONSES_TOOLS, stream=True),
    _responses("think-stream", "tiny-think", stream=True),
    _messages("stream", stream=True),
    _messages("whole"),
    _messages("tools-stream", "tiny-tool", tools=MESSAGES_TOOLS, stream=True),
    _messages("tools-whole", "tiny-tool", tools=MESSAGES_TOOLS),
    _messages("think-stream", "tiny-think", thinking={"type": "enabled", "budget_tokens": 32}, stream=True),
    _case("v1-count-tokens", "/v1/messages/count_tokens", "tiny-babble", messages=HELLO),
    _case("v1-rerank", "/v1/rerank", "tiny-rerank", query="water", top_n=2,
          documents=["the water of life", "a city", "hello"]),
    # Last, because a model must be loaded again after them.
    _generate("unload", keep_alive=0),
    _generate("unload-by-text", prompt="", keep_alive="0s"),
    _chat("unload", messages=[], keep_alive=0),
]  # fmt: skip

TOO_LONG = [
    _chat("too-long", messages=[{"role": "user", "content": LONG_TEXT}]),
    _v1_chat("too-long", messages=[{"role": "user", "content": LONG_TEXT}]),
    _v1_chat("too-long-stream", messages=[{"role": "user", "content": LONG_TEXT}], stream=True),
]


def _has_no_such_route(answer: Answer) -> bool:
    return answer.status == 404 and (
        answer.body == b"404 page not found" or b'"message":"File Not Found"' in answer.body
    )


def _check(case: Case, fleet: Fleet, hub: Hub | Direct) -> None:
    url = fleet.url_of(str(case.body["model"]) or "tiny-utf8")
    # An engine answers some things differently the first time (its prompt cache): both sides come later.
    ask(url, "POST", case.path, case.body)
    direct = ask(url, "POST", case.path, case.body)
    if _has_no_such_route(direct):
        through = ask(hub.url, "POST", case.hub_path, case.body)
        if isinstance(hub, Hub):
            assert is_error_of(dialect_of(case.hub_path), through), described(through)
        return
    path = case.hub_path if isinstance(hub, Hub) else case.path
    through = ask(hub.url_of(str(case.body["model"])), "POST", path, case.body)
    assert described(through) == described(direct)
    if isinstance(hub, Hub):
        assert through.header("X-Hive-Node") in fleet.nodes()
        assert through.header("X-Hive-Request-Id")
        assert through.header("Access-Control-Allow-Origin") is None
        if through.framing == "chunked":
            assert through.header("X-Accel-Buffering") == "no"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answer_through_the_hub_is_the_engines_answer(case: Case, fleet: Fleet, hub: Hub | Direct) -> None:
    _check(case, fleet, hub)


# Ollamas before 0.30 cut such a prompt and then answer at random; 0.9.3's runner sometimes dies of it.
@pytest.mark.parametrize(
    ("kind", "link"), over_each_link(*(kind for kind in OLLAMAS if version_of(kind) >= (0, 30)), *EACH_LLAMA)
)
@pytest.mark.parametrize("case", TOO_LONG, ids=lambda case: case.name)
def test_prompt_longer_than_the_context_is_refused_in_the_engines_words(
    case: Case, kind: str, link: str, fleets: Callable[[str], Fleet], hub_over: Callable[..., Hub | Direct]
) -> None:
    fleet = fleets(kind)
    _check(case, fleet, hub_over(fleet, link=link))


@pytest.mark.parametrize("kind", [*EACH_OLLAMA, *EACH_LLAMA])
def test_the_cases_reach_streams_and_whole_answers_of_every_dialect(kind: str, fleets: Callable[[str], Fleet]) -> None:
    fleet = fleets(kind)
    wanted = {"/v1/chat/completions", "/v1/completions"}
    if fleet.kind in OLLAMAS:
        wanted |= {"/api/generate", "/api/chat"}
    wanted |= {path for path in ("/v1/responses", "/v1/messages") if has_route(kind, path)}
    for path in wanted:
        seen = {
            answer.framing
            for case in CASES
            if case.path == path and case.name.endswith(("stream", "whole"))
            for answer in [ask(fleet.url_of(str(case.body["model"])), "POST", path, case.body)]
            if answer.status == 200
        }
        assert seen == {"chunked", "length"}
