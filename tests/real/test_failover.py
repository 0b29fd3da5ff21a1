"""What a fleet of real engines loses when one dies, is busy, refuses a request or loses a model: no request.

Every Ollama that is installed, dialed and joined; what is asked of the newest alone stands in `test_engine_truth.py`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import installed
from .answers import normal
from .endings import check_broken_off
from .hub import DIALED, IS_DIRECT, JOINED, Hub, over_each_link, wait_for
from .installed import EACH_OLLAMA
from .test_engine_truth import STREAMS, begin, is_computing
from .wire import Answer, Stream, ask

pytestmark = [pytest.mark.engines, pytest.mark.skipif(IS_DIRECT, reason="there is no other engine without a hub")]

EACH = over_each_link(*EACH_OLLAMA, links=(DIALED, JOINED), is_quick=False)
EACH_LONG = [pytest.param(*each.values, marks=pytest.mark.long) for each in EACH]

HELLO = [{"role": "user", "content": "hello there"}]
LENGTHY: dict[str, object] = {
    "model": "tiny-endless", "messages": HELLO, "stream": False, "options": {"seed": 3, "num_predict": 2000},
}  # fmt: skip
"""Takes long enough to be killed in the middle, and its answer is always the same."""
SHORT: dict[str, object] = {
    "model": "tiny-babble", "prompt": "hello", "stream": False, "options": {"seed": 3, "num_predict": 4},
}  # fmt: skip


def kill(engine: Any) -> None:
    """Kill an engine and its runners, which are a group of their own."""
    os.killpg(engine.proc.pid, signal.SIGKILL)
    engine.proc.wait(10)


def computing(engines: dict[str, Any]) -> str:
    """Return the node whose engine computes, once one does."""
    return wait_for(
        lambda: next((name for name, engine in engines.items() if is_computing(engine)), ""),
        what="an engine to compute",
    )


def warm(engine: Any, *models: str) -> None:
    """Load models, so that no wait for a load decides who serves."""
    for model in models:
        assert ask(engine.url, "POST", "/api/embed", {"model": model}).status == 200


def generate(url: str, **more: object) -> Answer:
    return ask(url, "POST", "/api/generate", SHORT | more, timeout=50)


def tried(answer: Answer) -> tuple[int, str | None, str | None]:
    return answer.status, answer.header("X-Hive-Node"), answer.header("X-Hive-Attempts")


# --- an engine is killed ---


@pytest.mark.parametrize(("kind", "link"), EACH_LONG)
def test_engine_killed_before_the_first_byte_costs_the_client_nothing(
    kind: str, link: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub]
) -> None:
    engines = {name: fresh(kind, "tiny-endless") for name in ("a", "b")}
    for engine in engines.values():
        warm(engine, "tiny-endless")
    hub = hub_at(*engines.values(), link=link)
    with Stream(hub.url, "POST", "/api/chat", LENGTHY) as stream:
        victim = computing(engines)
        kill(engines[victim])
        status, headers, _ = stream.read_head()
        whole = b"".join(stream)
    (other,) = engines.keys() - {victim}
    assert (status, stream.is_whole) == (200, True)
    assert dict(headers)["X-Hive-Node"] == other
    assert normal(whole) == normal(ask(engines[other].url, "POST", "/api/chat", LENGTHY).body)
    wait_for(lambda: hub.nodes()[victim]["status"] == "down", what="the dead node to be down")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize(("kind", "link"), EACH_LONG)
def test_engine_killed_inside_its_answer_ends_it_with_the_dialects_error(
    kind: str, link: str, path: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub]
) -> None:
    """Within seconds: a stream that is silent for longer than that fails the test."""
    engine = fresh(kind, "tiny-endless")
    hub = hub_at(engine, fresh(kind, "tiny-babble"), link=link)
    with Stream(hub.url, "POST", path, {"model": "tiny-endless", "stream": True, **STREAMS[path]}, timeout=5) as stream:
        begun = begin(stream)
        kill(engine)
        check_broken_off(path, begun, stream, is_direct=False)


@pytest.mark.parametrize(("kind", "link"), EACH_LONG)
def test_the_only_engine_killed_before_the_first_byte_and_started_again_answers(
    kind: str, link: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub]
) -> None:
    engine = fresh(kind, "tiny-endless")
    warm(engine, "tiny-endless")
    hub = hub_at(engine, link=link)
    with Stream(hub.url, "POST", "/api/chat", LENGTHY, timeout=50) as stream:
        computing({"a": engine})
        kill(engine)
        wait_for(lambda: hub.waiting() == 1, what="the request to wait")
        engine.start()
        status, headers, _ = stream.read_head()
        whole = b"".join(stream)
    assert (status, stream.is_whole, dict(headers)["X-Hive-Node"]) == (200, True, "a")
    assert normal(whole) == normal(ask(engine.url, "POST", "/api/chat", LENGTHY).body)


# --- an engine is busy ---


@pytest.mark.parametrize(("kind", "link"), EACH_LONG)
def test_a_busy_engine_loses_no_request(
    kind: str, link: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub]
) -> None:
    """Somebody else has the engine load one model after the other: each generation says busy then."""
    engine = fresh(kind, "tiny-endless", "tiny-babble", OLLAMA_MAX_QUEUE="1", OLLAMA_MAX_LOADED_MODELS="1")
    hub = hub_at(engine, slots=4, link=link)

    def disturb(number: int) -> None:
        for place in range(6):
            model = ("tiny-endless", "tiny-babble")[(number + place) % 2]
            ask(engine.url, "POST", "/api/generate", SHORT | {"model": model}, timeout=50)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        disturbing = [pool.submit(disturb, number) for number in range(4)]
        answers = list(pool.map(lambda _: generate(hub.url), range(8)))
        for each in disturbing:
            each.result()
    assert "| 503 |" in Path(engine.log).read_text(), "else nothing was tested"
    assert [tried(answer) for answer in answers] == [(200, "a", "1")] * 8
    assert all(answer.json()["done"] for answer in answers)
    assert hub.nodes()["a"]["status"] == "ready"


# --- what may not sicken a fleet ---

Pair = tuple[Hub, dict[str, Any]]
MODELS = ("tiny-babble", "tiny-utf8", "tiny-think")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Pair]]:
    """Return a function from kind and link to a hub over two such engines, which nobody may kill."""
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, str], Pair] = {}

        def pair(kind: str, link: str) -> Pair:
            installed.need(kind)
            if (kind, link) not in running:
                engines = {name: installed.start_ollama(kind, MODELS) for name in ("a", "b")}
                for engine in engines.values():
                    stack.callback(engine.stop)
                urls = {name: engine.url for name, engine in engines.items()}
                hub = stack.enter_context(Hub(tmp_path_factory.mktemp("hub"), urls, slots=4, link=link))
                running[kind, link] = hub, engines
            return running[kind, link]

        yield pair


@pytest.mark.parametrize("options", [{"num_ctx": "many"}, {"temperature": "x"}], ids=["num_ctx", "temperature"])
@pytest.mark.parametrize(("kind", "link"), EACH)
def test_a_bad_option_sent_a_hundred_times_is_each_clients_own_trouble(
    kind: str, link: str, options: dict[str, object], pairs: Callable[[str, str], Pair]
) -> None:
    hub, engines = pairs(kind, link)
    assert generate(hub.url).status == 200
    before = {name: entry["slots"] for name, entry in hub.nodes().items()}
    refused = ask(engines["a"].url, "POST", "/api/generate", SHORT | {"options": options})
    assert refused.status in (400, 500)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: generate(hub.url, options=options), range(100)))
    assert {(answer.status, answer.body) for answer in answers} == {(refused.status, refused.body)}
    assert {answer.header("X-Hive-Attempts") for answer in answers} == {"1"}
    after = hub.nodes()
    assert {name: entry["status"] for name, entry in after.items()} == dict.fromkeys(engines, "ready")
    assert {name: entry["slots"] for name, entry in after.items()} == before
    assert "probation" not in hub.log()
    assert generate(hub.url).status == 200


@pytest.mark.parametrize(("kind", "link"), EACH)
def test_two_clients_with_other_contexts_for_one_model_are_both_answered(
    kind: str, link: str, pairs: Callable[[str, str], Pair]
) -> None:
    """Each time an engine has to load the model anew, or the other one has it as it is wanted."""
    hub, _ = pairs(kind, link)

    def client(num_ctx: int) -> list[Answer]:
        return [generate(hub.url, options={"num_ctx": num_ctx, "num_predict": 4}) for _ in range(4)]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for answers in pool.map(client, (512, 1024)):
            assert [answer.status for answer in answers] == [200] * 4
            assert all(answer.json()["done"] for answer in answers)


LOADS = re.compile(r'msg="starting (?:llama server|runner|llama-server)" cmd="[^"]*--model ')


@pytest.mark.parametrize(("kind", "link"), EACH)
def test_a_cold_model_is_loaded_once_though_its_client_goes_away_at_once(
    kind: str, link: str, pairs: Callable[[str, str], Pair]
) -> None:
    hub, engines = pairs(kind, link)

    def loads() -> int:
        return sum(len(LOADS.findall(Path(engine.log).read_text())) for engine in engines.values())

    before = loads()
    with Stream(hub.url, "POST", "/api/generate", SHORT | {"model": "tiny-think"}):
        wait_for(lambda: loads() > before, what="a load to begin")
    answer = generate(hub.url, model="tiny-think")
    assert (answer.status, answer.header("X-Hive-Attempts")) == (200, "1")
    assert loads() == before + 1


@pytest.mark.parametrize(("kind", "link"), EACH)
def test_a_model_deleted_behind_the_hubs_back_is_served_by_who_has_it_and_404_when_nobody_has(
    kind: str, link: str, pairs: Callable[[str, str], Pair]
) -> None:
    hub, engines = pairs(kind, link)
    for engine in engines.values():
        warm(engine, "tiny-utf8")
    delete(engines["a"], "tiny-utf8")
    for _ in range(6):
        answer = generate(hub.url, model="tiny-utf8")
        assert (answer.status, answer.header("X-Hive-Node")) == (200, "b")
    delete(engines["b"], "tiny-utf8")
    direct = generate(engines["b"].url, model="tiny-utf8")
    for _ in range(6):
        answer = generate(hub.url, model="tiny-utf8")
        assert (answer.status, answer.body) == (404, direct.body)
    assert {name: entry["status"] for name, entry in hub.nodes().items()} == dict.fromkeys(engines, "ready")
    assert generate(hub.url).status == 200


def delete(engine: Any, model: str) -> None:
    assert ask(engine.url, "DELETE", "/api/delete", {"model": model}).status == 200
