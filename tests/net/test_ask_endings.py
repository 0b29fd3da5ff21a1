"""The hub's own requests to an engine: what is sent, what comes back, and every way in which none comes."""

from __future__ import annotations

import asyncio

import pytest

from hive.errors import NODE_BROKE_OFF, NODE_GARBLED, NODE_SILENT, NODE_UNREACHABLE, Fault
from hive.net import ask as asking
from hive.net.ask import ask
from hive.net.dialed import DialedLink
from hive.net.outbox import Outbox
from hive.testing.scripted import Call, run_scripted

TIMEOUT = 10.0


def asked(url: str, *bodies: bytes | None, timeout: float = TIMEOUT, path: str = "/api/x") -> list[tuple[int, bytes]]:
    """Ask an engine for the path once for each body, over one link; return statuses and bodies."""

    async def run() -> list[tuple[int, bytes]]:
        link = DialedLink(
            url, Outbox(), connect_timeout=TIMEOUT, max_head_bytes=65536, credential=b"Authorization: Bearer secret\r\n"
        )
        try:
            answers = [await ask(link, path, timeout, body) for body in bodies]
        finally:
            link.close()
        return [(head.status, body) for head, body in answers]

    return asyncio.run(run())


def fault_of(url: str, *bodies: bytes | None, timeout: float = TIMEOUT) -> Fault:
    with pytest.raises(Fault) as raised:
        asked(url, *bodies, timeout=timeout)
    return raised.value


def test_a_get_brings_head_and_body() -> None:
    with run_scripted() as engine:
        assert asked(engine.url, None, path="/api/version") == [(200, b'{"version":"0.33.0"}')]


def test_the_request_carries_the_path_of_the_url_and_the_credential() -> None:
    with run_scripted() as engine:
        asked(f"{engine.url}/base", None, path="/api/version")
        (head,) = engine.probe_heads
        assert head.startswith(b"GET /base/api/version HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer secret\r\n" in head


def test_a_body_is_posted_as_json() -> None:
    with run_scripted(lambda call: call.answer(b"done", status="404 Not Found")) as engine:
        assert asked(engine.url, b'{"a":1}') == [(404, b"done")]
        (call,) = engine.calls
        assert (call.path, call.body, call.fields["content-type"]) == ("/api/x", b'{"a":1}', "application/json")


def test_requests_share_a_connection() -> None:
    with run_scripted(lambda call: call.answer(b"{}")) as engine:
        asked(engine.url, b"{}", b"{}")
        assert engine.connections == 1


def test_a_pooled_connection_that_breaks_off_unheard_is_replaced() -> None:
    def script(call: Call) -> None:
        if call.number == 1:
            call.close()
        else:
            call.answer(b"%d" % call.number)

    with run_scripted(script) as engine:
        assert asked(engine.url, b"{}", b"{}") == [(200, b"0"), (200, b"2")]
        assert engine.connections == 2


def test_a_new_connection_that_breaks_off_is_not_replaced() -> None:
    with run_scripted(Call.close) as engine:
        assert fault_of(engine.url, b"{}").kind is NODE_BROKE_OFF
        assert len(engine.calls) == 1


def test_an_engine_that_does_not_answer_is_left_after_the_timeout() -> None:
    departed = []
    with run_scripted(lambda call: departed.append(call.wait_for_departure())) as engine:
        fault = fault_of(engine.url, b"{}", timeout=0.1)
    assert (fault.kind, fault.message) == (NODE_SILENT, "no answer to /api/x within 0.1 s")
    assert departed


def test_an_answer_that_is_too_large_is_refused_and_its_connection_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 100)
    departed = []

    def script(call: Call) -> None:
        call.begin()
        call.chunk(b"x" * 101)
        departed.append(call.wait_for_departure())

    with run_scripted(script) as engine:
        assert fault_of(engine.url, b"{}").kind is NODE_GARBLED
    assert departed


def test_an_answer_of_just_the_allowed_size_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 100)
    with run_scripted(lambda call: call.answer(b"x" * 100)) as engine:
        assert asked(engine.url, b"{}") == [(200, b"x" * 100)]


def test_an_engine_that_is_not_there_is_unreachable() -> None:
    assert fault_of("http://127.0.0.1:1", None).kind is NODE_UNREACHABLE
