"""A hub over newer Ollamas, replayed byte for byte: what `tests/real` asks only where such an Ollama is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hive.testing.hub import ThreadedHub, run_hub

from .real.answers import described, described_error
from .real.endings import check_broken_off
from .real.wire import Answer, Stream, ask
from .replaying import GENERATIONS, Recording, ReplayingEngine, recordings_of, replaying

RELAYED = ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/v1/chat/completions", "/v1/completions",
           "/v1/embeddings", "/v1/messages", "/v1/responses")  # fmt: skip
BROKEN_OFF = ("87-runner-killed-midstream", "90-runner-killed-midstream-v1")
REFUSED_BY_THE_HUB = [
    each
    for each in recordings_of("ollama-0.33.0-rc2").values()
    if each.name.startswith(("52-", "53-", "54-", "55-", "57-", "58-", "59-", "6")) and not each.name.startswith("66-")
]
TOO_LONG = {"model": "tiny-babble", "messages": [{"role": "user", "content": "water " * 5000}]}
RUNNER_KILLED = {
    "/api/chat": b'{"error":"an error was encountered while running the model: unexpected EOF"}\n',
    "/v1/chat/completions": (
        b'data: {"id":"chatcmpl-30","object":"chat.completion.chunk","created":1795208167,"model":"",'
        b'"system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
    ),
}
"""What 0.33 sends last when its runner is killed, before a clean end of the body."""


def relayed(is_stream: bool | None = None) -> list[object]:
    """Return each generation with the name of each recorded answer that came from the engine, as parameters."""
    return [
        pytest.param(generation, each.name, id=f"{generation}-{each.name}")
        for generation in GENERATIONS
        for each in recordings_of(generation).values()
        if (each.method, each.path in RELAYED) == ("POST", True)
        and each not in REFUSED_BY_THE_HUB
        and each.name not in BROKEN_OFF
        and is_stream in (None, each.is_stream)
    ]


Pair = tuple[ThreadedHub, ReplayingEngine]


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Pair]]:
    """A hub over an engine of each generation, by generation."""
    with (
        replaying(GENERATIONS[0]) as older,
        replaying(GENERATIONS[1]) as newer,
        run_hub({"a": older.url}) as over_older,
        run_hub({"a": newer.url}) as over_newer,
    ):
        yield {GENERATIONS[0]: (over_older, older), GENERATIONS[1]: (over_newer, newer)}


@pytest.fixture
def newest(pairs: dict[str, Pair]) -> Pair:
    """The hub over the newest generation, and the engine."""
    return pairs[GENERATIONS[-1]]


def body_of(recording: Recording) -> bytes:
    """Return what is asked: a model that is listed, and the long prompt that recordings leave out."""
    whole = recording.body or json.dumps(TOO_LONG).encode()
    return whole.replace(b'"slow-endless"', b'"tiny-babble"')


def as_answer(recording: Recording) -> Answer:
    """Return a recorded answer as a client would have read it."""
    lines = recording.head.decode("latin-1").split("\r\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines if line)]
    framing = "chunked" if ("Transfer-Encoding", "chunked") in headers else "length"
    return Answer(recording.status, headers, recording.answer_body, framing, True)


@pytest.mark.parametrize(("generation", "name"), relayed())
def test_answer_through_the_hub_is_the_engines_answer(generation: str, name: str, pairs: dict[str, Pair]) -> None:
    hub, engine = pairs[generation]
    recording = engine.recordings[name]
    engine.will_answer(recording)
    asked = body_of(recording)
    through = ask(hub.url, recording.method, recording.path, asked)
    assert described(through) == described(as_answer(recording))
    assert through.body == recording.answer_body
    assert engine.calls[-1].body == asked
    assert engine.calls[-1].path == recording.path


@pytest.mark.parametrize(("generation", "name"), relayed(is_stream=True))
def test_stream_of_an_engine_that_goes_away_ends_with_the_dialects_error(
    generation: str, name: str, pairs: dict[str, Pair]
) -> None:
    hub, engine = pairs[generation]
    recording = engine.recordings[name]
    engine.will_answer(recording.answering(pieces=1))
    with Stream(hub.url, recording.method, recording.path, recording.body) as stream:
        assert stream.read_head()[0] == 200
        check_broken_off(recording.path, b"", stream, is_direct=False)


@pytest.mark.parametrize("path", RUNNER_KILLED)
def test_stream_whose_runner_was_killed_ends_with_the_dialects_error(path: str, newest: Pair) -> None:
    hub, engine = newest
    recording = engine.recordings["19-chat-stream" if path == "/api/chat" else "39-v1-chat-stream"]
    engine.will_answer(recording.answering(RUNNER_KILLED[path], b"", pieces=5))
    with Stream(hub.url, recording.method, path, recording.body) as stream:
        assert stream.read_head()[0] == 200
        check_broken_off(path, b"", stream, is_direct=False)


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_recorded_death_of_a_runner_ends_with_the_dialects_error(name: str, pairs: dict[str, Pair]) -> None:
    hub, engine = pairs["ollama-0.24.0"]
    recording = engine.recordings[name]
    engine.will_answer(recording)
    with Stream(hub.url, recording.method, recording.path, body_of(recording)) as stream:
        assert stream.read_head()[0] == 200
        check_broken_off(recording.path, b"", stream, is_direct=False)


@pytest.mark.parametrize("recording", REFUSED_BY_THE_HUB, ids=lambda recording: recording.name)
def test_the_hub_refuses_in_the_newest_ones_words(recording: Recording, newest: Pair) -> None:
    hub, engine = newest
    calls = len(engine.calls)
    through = ask(hub.url, recording.method, recording.path, recording.body if recording.method == "POST" else None)
    assert described_error(through) == described_error(as_answer(recording))
    assert len(engine.calls) == calls


@pytest.mark.parametrize("generation", GENERATIONS)
def test_listings_have_the_engines_entries_whole(generation: str, pairs: dict[str, Pair]) -> None:
    """0.33 says more of each model: its capabilities, its context, the length of its vectors."""
    hub, engine = pairs[generation]
    for name, key in (("09-tags", "models"), ("37-v1-models", "data")):
        recording = engine.recordings[name]
        through = ask(hub.url, "GET", recording.path)
        listed, recorded = through.json()[key], json.loads(recording.answer_body)[key]
        assert sorted(listed, key=str) == sorted(recorded, key=str)
        assert ("capabilities" in listed[0]) is (generation == "ollama-0.33.0-rc2" and key == "models")
    recording = engine.recordings["38-v1-model"]
    assert ask(hub.url, "GET", recording.path).body == recording.answer_body
