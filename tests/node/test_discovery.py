"""Engines that are looked for on this machine, and what they are called."""

from __future__ import annotations

import asyncio

import pytest

from hive.node import local_engines as engines
from hive.node.agent_options import EngineAddress, read_engine
from hive.node.discovery import candidates, read_ollama_host
from hive.node.local_engines import engine_id, fitting
from hive.testing import SimKind, SimOptions, SimulatedEngine
from hive.wire.link_messages import NOTHING, ReportedEngine, json_object

from .engine import Call, RawEngine
from .hub import ScriptedHub, agent, options, run, until

OWN = frozenset({"192.168.1.5", "127.0.0.1", "::1"})


def urls(environ: dict[str, str]) -> list[str]:
    return [address.url for address in candidates(environ, OWN, b"")]


def test_the_usual_ports_are_looked_at() -> None:
    ports = [11434, 8000, 8080, 1234]
    assert urls({}) == [f"http://127.0.0.1:{port}" for port in ports]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", None),
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("localhost", ("localhost", 11434)),
        (":5000", ("127.0.0.1", 5000)),
        ("0.0.0.0", ("127.0.0.1", 11434)),
        ("[::]:5000", ("127.0.0.1", 5000)),
        ("http://127.0.0.1", ("127.0.0.1", 80)),
        ("http://127.0.0.1:5000/", ("127.0.0.1", 5000)),
        ('"192.168.1.5:1"', ("192.168.1.5", 1)),
        ("https://ollama.example", None),
        ("http://[::1", None),
        ("x:99999", None),
    ],
)
def test_ollama_host_is_read_as_ollama_does(text: str, place: tuple[str, int] | None) -> None:
    assert read_ollama_host(text) == place


def test_ollama_host_counts_when_it_is_this_machine() -> None:
    assert urls({"OLLAMA_HOST": "192.168.1.5:5000"})[0] == "http://192.168.1.5:5000"
    assert urls({"OLLAMA_HOST": "hub.example:4483"})[0] == "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:11434", "port-11434"),
        ("http://localhost:8080", "port-8080"),
        ("http://10.0.0.5:8000", "10-0-0-5-8000"),
        ("http://desk:1", "desk-1"),
    ],
)
def test_an_engine_is_called_after_its_address(url: str, name: str) -> None:
    assert engine_id(read_engine(url)) == name


def test_no_two_addresses_have_one_name() -> None:
    texts = [
        "http://127.0.0.1:1", "https://127.0.0.1:1", "http://[::1]:1",
        "http://a.b:1", "http://a-b:1", "http://" + "long." * 20 + "x:1", "http://" + "long." * 20 + "y:1",
    ]  # fmt: skip
    names = [engine_id(read_engine(text)) for text in texts]
    for name in names:
        assert len(name) <= 32
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    unlike = [text for text in texts if text != "http://a-b:1"]
    assert len({engine_id(read_engine(text)) for text in unlike}) == len(unlike)


def test_lists_that_do_not_fit_into_one_message_are_left_out() -> None:
    long = json_object(b'{"models":"' + b"x" * 600 + b'"}')
    short = json_object(b'{"models":[]}')
    listed = [ReportedEngine(name, "ollama", tags=tags) for name, tags in (("a", long), ("b", long), ("c", short))]
    fit = fitting(listed, 1000)
    assert [bytes(each.tags) for each in fit] == [bytes(long), bytes(NOTHING), bytes(short)]
    assert [bool(each.error) for each in fit] == [False, True, False]


# --- looking ---


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> list[EngineAddress]:
    """The places that are looked at, often."""
    places: list[EngineAddress] = []
    monkeypatch.setattr(engines, "candidates", lambda *_: list(places))
    monkeypatch.setattr(engines, "SEARCH_SECONDS", 0.1)
    return places


def test_what_is_found_at_the_start_is_in_hello(near: list[EngineAddress]) -> None:
    async def main() -> None:
        async with SimulatedEngine() as one, SimulatedEngine(SimOptions(kind=SimKind.VLLM)) as two:
            near.extend(EngineAddress("127.0.0.1", each.port) for each in (one, two))
            async with ScriptedHub() as hub, agent(options(hub.url)):
                await hub.joined()
                assert {each.kind for each in hub.hellos[0].engines} == {"ollama", "vllm"}

    run(main())


def test_what_is_not_there_yet_is_looked_for_until_it_is(
    near: list[EngineAddress], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        engine = RawEngine()
        async with engine:
            pass
        near.append(EngineAddress("127.0.0.1", engine.port))
        async with ScriptedHub() as hub, agent(options(hub.url)):
            await hub.joined()
            assert hub.hellos[0].engines == ()
            async with engine:
                await until(lambda: hub.reports)
                await until(lambda: hub.reports[-1].engines[0].kind == "ollama")
        said = [record.message for record in caplog.records if "no engine found yet" in record.message]
        assert said == [f"no engine found yet on this machine; looking on ({engine.url})"]

    run(main())


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"


def web_page(engine: RawEngine) -> None:
    """Make an engine a web application that answers every path with its page."""
    engine._probe = lambda path: PAGE  # type: ignore[method-assign]


def hub_itself(engine: RawEngine) -> None:
    answer = RawEngine._probe(engine, "/api/version")
    assert answer is not None
    engine._probe = lambda path: answer.replace(b"\r\n", b"\r\nX-Hive-Request-Id: 1\r\n", 1)  # type: ignore[method-assign]


@pytest.mark.parametrize(("become", "reason"), [(web_page, "list of models"), (hub_itself, "this is a Hive hub")])
def test_other_servers_are_no_engines(
    become: object, reason: str, near: list[EngineAddress], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with RawEngine() as stranger, ScriptedHub() as hub:
            become(stranger)  # type: ignore[operator]
            near.append(EngineAddress("127.0.0.1", stranger.port))
            async with agent(options(hub.url)):
                await hub.joined()
                await until(lambda: any(reason in record.message for record in caplog.records))
                asked = len(stranger.probes)
                await asyncio.sleep(0.3)
                assert len(stranger.probes) == asked
                assert hub.hellos[0].engines == ()

    caplog.set_level("INFO")
    run(main())


def test_a_silent_server_delays_the_first_look_only_briefly(near: list[EngineAddress]) -> None:
    async def silent(call: Call) -> None:
        await call.gone()

    async def main() -> None:
        async with RawEngine(silent) as stranger, SimulatedEngine() as engine, ScriptedHub() as hub:
            stranger._probe = lambda path: None  # type: ignore[method-assign]
            near.extend(EngineAddress("127.0.0.1", each.port) for each in (stranger, engine))
            async with agent(options(hub.url)):
                await hub.joined()
                await until(lambda: any(each.engines for each in [*hub.hellos, *hub.reports]), 5)

    run(main())
