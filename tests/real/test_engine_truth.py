"""What happens when a client leaves, a runner dies, an engine ends or a reader is slow: on real engines."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from . import installed
from .answers import normal
from .clients import run
from .endings import check_broken_off
from .hub import IS_DIRECT, Direct, Hub, as_one, need_link, only_dialed, over_each_link, wait_for
from .installed import LLAMAS, NEWEST_OLLAMA, OLDER_OLLAMAS, OLLAMAS
from .wire import Answer, Stream, ask

pytestmark = pytest.mark.engines

HELLO = [{"role": "user", "content": "hello there"}]
STREAMS: dict[str, dict[str, object]] = {
    "/api/chat": {"messages": HELLO, "options": {"num_predict": -1}},
    "/api/generate": {"prompt": "hello", "options": {"num_predict": -1}},
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 20000},
    "/v1/completions": {"prompt": "hello", "max_tokens": 20000},
    "/v1/messages": {"messages": HELLO, "max_tokens": 20000},
    "/v1/responses": {"input": "hello", "max_output_tokens": 20000},
}
"""Requests whose answer does not end within a test."""

LATER = [*OLDER_OLLAMAS, pytest.param("xllamacpp", marks=pytest.mark.long)]
"""The kinds that are asked by one link only."""


def endless(kind: str) -> str:
    """Return a model that does not end soon on this kind: the small one fills llama.cpp's context."""
    return "slow-endless" if kind in LLAMAS else "tiny-endless"


def chat_path(kind: str) -> str:
    return "/v1/chat/completions" if kind in LLAMAS else "/api/chat"


def open_stream(url: str, path: str, model: str, *, stream: bool = True) -> Stream:
    return Stream(url, "POST", path, {"model": model, "stream": stream, **STREAMS[path]}, timeout=50)


def processes(engine: Any) -> list[int]:
    """Return the processes in which an engine computes."""
    return list(engine.runners()) if hasattr(engine, "runners") else [engine.proc.pid]


def cpu_ticks(engine: Any) -> int:
    """Return how much processor time an engine has used so far, in hundredths of a second."""
    ticks = 0
    for pid in processes(engine):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks


def is_computing(engine: Any) -> bool:
    """Does an engine use the processor? Looks for a tenth of a second."""
    before = cpu_ticks(engine)
    time.sleep(0.1)
    return cpu_ticks(engine) > before + 1


def ask_one_token(url: str, kind: str) -> Answer:
    limit: dict[str, object] = {"max_tokens": 1} if kind in LLAMAS else {"options": {"num_predict": 1}}
    body = {"model": endless(kind), "messages": HELLO, "stream": False, **limit}
    return ask(url, "POST", chat_path(kind), body)


def check_that_the_engine_is_free(url: str, kind: str, engine: Any) -> None:
    """Check that the engine stops at once, and that its one slot serves the next request."""
    left = time.monotonic()
    wait_for(lambda: not is_computing(engine), what="the engine to stop", timeout=1.5)
    assert ask_one_token(url, kind).status == 200
    assert time.monotonic() - left < 2.5


@pytest.mark.parametrize(("kind", "link"), [*over_each_link(NEWEST_OLLAMA, "llama-server"), *only_dialed(*LATER)])
def test_engine_stops_when_the_client_leaves_a_stream(
    kind: str, link: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub | Direct]
) -> None:
    engine = fresh(kind, endless(kind))
    hub = hub_at(engine, slots=1, link=link)
    with open_stream(hub.url, chat_path(kind), endless(kind)) as stream:
        assert stream.read_head()[0] == 200
        for _, _ in zip(range(10), stream.lines(), strict=False):
            pass
        assert is_computing(engine)
    check_that_the_engine_is_free(hub.url, kind, engine)


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        *over_each_link(NEWEST_OLLAMA, pytest.param("llama-server", marks=pytest.mark.long), is_quick=False),
        *only_dialed(*LATER),
    ],
)
def test_engine_stops_when_the_client_leaves_before_the_answer(
    kind: str, link: str, fresh: Callable[..., Any], hub_at: Callable[..., Hub | Direct]
) -> None:
    engine = fresh(kind, endless(kind))
    hub = hub_at(engine, slots=1, link=link)
    assert ask_one_token(hub.url, kind).status == 200
    with open_stream(hub.url, chat_path(kind), endless(kind), stream=False):
        wait_for(lambda: is_computing(engine), what="the engine to compute")
    check_that_the_engine_is_free(hub.url, kind, engine)


def test_abort_in_javascript_frees_the_engine(
    fresh: Callable[..., Any], hub_at: Callable[..., Hub | Direct], tmp_path: pathlib.Path
) -> None:
    engine = fresh(NEWEST_OLLAMA, "tiny-endless")
    hub = hub_at(engine, slots=1)
    env = {"HIVE_TEST_URL": hub.url, "HIVE_TEST_MODEL": "tiny-endless"}
    seen = run("ollama_javascript_abort.mjs", env, tmp_path)
    assert (seen["failure"], seen["done"]) == ("AbortError", True)
    assert seen["milliseconds"] < 1500


def begin(stream: Stream) -> bytes:
    """Read and return the first pieces of a stream."""
    assert stream.read_head()[0] == 200
    return b"".join(piece for _, piece in zip(range(20), stream, strict=False))


def streams_of(kind: str, *marks: pytest.MarkDecorator) -> list[Any]:
    """Return an Ollama with each path at which it streams, as parameters."""
    return [pytest.param(kind, path, marks=marks) for path in STREAMS if installed.has_route(kind, path)]


OLLAMA_STREAMS = [
    *over_each_link(*streams_of(NEWEST_OLLAMA)),
    *only_dialed(*[each for kind in OLLAMAS[1:] for each in streams_of(kind, pytest.mark.long)]),
]


Victims = Callable[[str, str], tuple[Any, str]]


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    """Return a function from kind and link to an Ollama whose runners may be killed, and the hub's URL over it."""
    with contextlib.ExitStack() as stack:
        engines: dict[str, Any] = {}
        urls: dict[tuple[str, str], str] = {}

        def victim(kind: str, link: str) -> tuple[Any, str]:
            installed.need(kind)
            need_link(link)
            if kind not in engines:
                engines[kind] = installed.start_ollama(kind, ("tiny-endless",))
                stack.callback(engines[kind].stop)
            if IS_DIRECT:
                return engines[kind], engines[kind].url
            if (kind, link) not in urls:
                hub = Hub(tmp_path_factory.mktemp("hub"), {"a": engines[kind].url}, link=link)
                urls[kind, link] = stack.enter_context(hub).url
            return engines[kind], urls[kind, link]

        yield victim


@pytest.mark.parametrize(("kind", "path", "link"), OLLAMA_STREAMS)
def test_runner_killed_in_mid_stream_ends_with_the_dialects_error(
    kind: str, path: str, link: str, victims: Victims
) -> None:
    engine, url = victims(kind, link)
    with open_stream(url, path, "tiny-endless") as stream:
        begun = begin(stream)
        for pid in processes(engine):
            os.kill(pid, signal.SIGKILL)
        check_broken_off(path, begun, stream, is_direct=IS_DIRECT)


@pytest.mark.parametrize(
    ("kind", "path", "how", "link"),
    [
        *over_each_link(
            (NEWEST_OLLAMA, "/api/chat", signal.SIGTERM),
            (NEWEST_OLLAMA, "/v1/chat/completions", signal.SIGTERM),
            ("llama-server", "/v1/chat/completions", signal.SIGKILL),
            pytest.param(NEWEST_OLLAMA, "/api/chat", signal.SIGKILL, marks=pytest.mark.long),
            pytest.param("llama-server", "/v1/messages", signal.SIGKILL, marks=pytest.mark.long),
            pytest.param("llama-server", "/v1/responses", signal.SIGKILL, marks=pytest.mark.long),
        ),
        *only_dialed(
            # Debian's llama-server falls silent and cuts its streams only 30 s after the signal.
            pytest.param("llama-server", "/v1/chat/completions", signal.SIGTERM, marks=pytest.mark.long),
            pytest.param("xllamacpp", "/v1/chat/completions", signal.SIGTERM, marks=pytest.mark.long),
            *[
                pytest.param(kind, path, how, marks=pytest.mark.long)
                for kind in OLLAMAS[1:]
                for path, how in (
                    ("/api/chat", signal.SIGTERM),
                    ("/v1/chat/completions", signal.SIGKILL),
                    ("/v1/messages", signal.SIGKILL),
                )
                if installed.has_route(kind, path)
            ],
        ),
    ],
)
def test_engine_ended_in_mid_stream_ends_with_the_dialects_error(
    kind: str,
    path: str,
    how: signal.Signals,
    link: str,
    fresh: Callable[..., Any],
    hub_at: Callable[..., Hub | Direct],
) -> None:
    engine = fresh(kind, endless(kind))
    hub = hub_at(engine, link=link)
    with open_stream(hub.url, path, endless(kind)) as stream:
        begun = begin(stream)
        os.kill(engine.proc.pid, how)
        check_broken_off(path, begun, stream, is_direct=IS_DIRECT)


@pytest.fixture(params=as_one(over_each_link(NEWEST_OLLAMA, is_quick=False)))
def twins(
    request: pytest.FixtureRequest, fresh: Callable[..., Any], hub_at: Callable[..., Hub | Direct]
) -> tuple[Hub, dict[str, Any]]:
    """A hub over two of the newest Ollama with the same loaded model, and the engines by node."""
    if IS_DIRECT:
        pytest.skip("there is no second engine without a hub")
    kind, link = request.param
    engines = {name: fresh(kind, "tiny-endless") for name in ("a", "b")}
    hub = hub_at(*engines.values(), link=link)
    assert isinstance(hub, Hub)
    for engine in engines.values():
        assert ask_one_token(engine.url, NEWEST_OLLAMA).status == 200
    return hub, engines


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_engine_killed_before_the_answer_costs_the_client_nothing(
    how: signal.Signals, twins: tuple[Hub, dict[str, Any]]
) -> None:
    hub, engines = twins
    options = {"seed": 3, "num_predict": 2000}
    body = {"model": "tiny-endless", "messages": HELLO, "stream": False, "options": options}
    with Stream(hub.url, "POST", "/api/chat", body) as stream:
        busy = wait_for(
            lambda: [name for name, engine in engines.items() if is_computing(engine)],
            what="an engine to compute",
        )
        assert len(busy) == 1
        os.kill(engines[busy[0]].proc.pid, how)
        status, headers, _ = stream.read_head()
        whole = b"".join(stream)
    (other,) = set(engines) - set(busy)
    assert status == 200
    assert dict(headers)["X-Hive-Node"] == other
    direct = ask(engines[other].url, "POST", "/api/chat", body)
    assert normal(whole) == normal(direct.body)


def test_dead_engine_costs_no_answer(twins: tuple[Hub, dict[str, Any]]) -> None:
    hub, engines = twins
    engines["a"].stop()
    for _ in range(6):
        answer = ask_one_token(hub.url, NEWEST_OLLAMA)
        assert (answer.status, answer.header("X-Hive-Node")) == (200, "b")


@pytest.mark.parametrize(
    ("kind", "clients", "slow_tokens", "link"),
    over_each_link(
        (NEWEST_OLLAMA, 40, 1500), pytest.param(NEWEST_OLLAMA, 200, 8000, marks=pytest.mark.long), is_quick=False
    ),
)
def test_concurrent_streams_are_each_whole_and_their_own(
    kind: str,
    clients: int,
    slow_tokens: int,
    link: str,
    fresh: Callable[..., Any],
    hub_at: Callable[..., Hub | Direct],
) -> None:
    engines = {name: fresh(kind, "tiny-babble", "tiny-endless") for name in ("a", "b")}
    for engine in engines.values():  # so that no wait for a load decides who serves
        assert ask(engine.url, "POST", "/api/embed", {"model": "tiny-babble"}).status == 200
    hub = hub_at(*engines.values(), slots=2, link=link, HIVE_POLICY="round_robin")

    def body(seed: int) -> dict[str, object]:
        options = {"seed": seed, "num_predict": 40}
        return {"model": "tiny-babble", "messages": HELLO, "options": options}

    def ask_and_read(seed: int) -> Answer:
        return ask(hub.url, "POST", "/api/chat", body(seed))

    others_are_done = threading.Event()

    def ask_and_read_slowly() -> tuple[str, bytes]:
        """Take one line, then nothing until everybody else has a whole answer."""
        options = {"seed": 1, "num_predict": slow_tokens}
        slow = {"model": "tiny-endless", "messages": HELLO, "options": options}
        with Stream(hub.url, "POST", "/api/chat", slow, receive_buffer=4096) as stream:
            _, headers, _ = stream.read_head()
            pieces = iter(stream)
            first = next(pieces)
            assert others_are_done.wait(50)
            received = first + b"".join(pieces)
            assert stream.is_whole
        node = dict(headers).get("X-Hive-Node", "a")
        assert normal(received) == normal(ask(engines[node].url, "POST", "/api/chat", slow).body)
        return node, received

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        reading_slowly = pool.submit(ask_and_read_slowly)
        try:
            answers = list(pool.map(lambda seed: ask(hub.url, "POST", "/api/chat", body(seed)), range(clients - 1)))
        finally:
            others_are_done.set()
        _, slow_answer = reading_slowly.result()
    assert slow_answer.count(b"\n") > slow_tokens * 0.9
    nodes = {answer.header("X-Hive-Node") or "a" for answer in answers}
    for seed, answer in enumerate(answers):
        assert (answer.status, answer.is_whole) == (200, True)
        node = answer.header("X-Hive-Node") or "a"
        direct = ask(engines[node].url, "POST", "/api/chat", body(seed))
        assert normal(answer.body) == normal(direct.body)
    assert nodes == ({"a"} if IS_DIRECT else {"a", "b"})
