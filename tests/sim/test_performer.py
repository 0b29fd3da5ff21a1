"""The answers as they are performed: after a wait for a slot, at a pace, with faults in their places."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hive.testing import SimOptions, run_in_thread

ASK = {"model": "tiny", "prompt": "hello"}


def test_requests_beyond_the_slots_wait_and_beyond_the_queue_get_busy(client_of: type, read_until: Callable) -> None:
    with run_in_thread(SimOptions(slots=1, max_queue=1)) as engine:
        client = client_of(engine)
        engine.set_fault("freeze-stream", 1)
        with client.raw("/api/generate", ASK) as first, client.raw("/api/generate", ASK) as second:
            read_until(first, b'"done":false')
            engine.until(lambda state: (state.running, state.waiting) == (1, 1))
            busy = client.ask("/api/generate", ASK)
            engine.clear_faults()
            read_until(first, b'"done":true')
            read_until(second, b'"done":true')
    assert busy.status == 503
    assert busy.json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}


def test_nothing_is_sent_before_the_first_token(client_of: type, read_until: Callable) -> None:
    with run_in_thread(SimOptions(ttft=3600)) as engine, client_of(engine).raw("/api/generate", ASK) as link:
        engine.until(lambda state: state.running == 1)
        link.setblocking(False)
        with pytest.raises(BlockingIOError):
            link.recv(1)


def test_a_load_that_fails_is_told_with_its_reason(client_of: type) -> None:
    with run_in_thread() as engine:
        engine.set_fault("load-fails", "out of memory", count=1)
        failed = client_of(engine).ask("/api/generate", ASK)
        assert (failed.status, failed.json()["error"]) == (
            500, "llama runner process has terminated: out of memory",
        )  # fmt: skip
        assert client_of(engine).ask("/api/generate", ASK).status == 200


def test_the_tokens_of_an_answer_are_counted_streamed_or_not(client_of: type) -> None:
    with run_in_thread() as engine:
        for stream in (True, False):
            client_of(engine).ask("/api/generate", ASK | {"stream": stream, "options": {"num_predict": 5}})
        assert engine.until(lambda state: state.finished == 2).tokens == 10


def test_an_error_in_a_stream_stands_where_it_was_told_to_and_ends_it(client_of: type) -> None:
    with run_in_thread() as engine:
        engine.set_fault("error-line", 2)
        lines = client_of(engine).ask("/api/generate", ASK).lines()
    assert [sorted(line)[0] for line in lines] == ["created_at", "created_at", "error"]


def test_a_fault_beyond_the_end_strikes_before_the_last_line(client_of: type) -> None:
    with run_in_thread() as engine:
        engine.set_fault("no-end", 1000)
        lines = client_of(engine).ask("/api/generate", ASK | {"options": {"num_predict": 3}}).lines()
    assert [line["done"] for line in lines] == [False] * 3


def test_a_pull_is_a_stream_that_faults_strike_too(client_of: type) -> None:
    with run_in_thread() as engine:
        engine.set_fault("error-line", 1, path="/api/pull")
        lines = client_of(engine).ask("/api/pull", {"model": "new"}).lines()
    assert [sorted(line) for line in lines] == [["status"], ["error"]]
