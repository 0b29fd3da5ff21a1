"""An administrator cancels requests: that run, that have ended, that never were."""

from __future__ import annotations

import pytest

from hive.errors import CONFLICT, NOT_FOUND, Fault
from hive.hub.records import Outcome
from hive.testing.hub import ThreadedHub, run_hub
from hive.testing.scripted import Call, run_scripted

from ..raw import GENERATE, Wire, ask, request


def running(hub: ThreadedHub) -> list[str]:
    return hub.call(lambda server: [each.record.request_id for each in server.hub.register.running])


def cancelled(hub: ThreadedHub, request_id: str) -> Outcome:
    """Cancel a request; return what its record says. Raises `Fault`."""
    return hub.call(lambda server: server.hub.request_cases.cancel(request_id)[0].outcome)


def test_a_request_that_runs_ends_with_an_honest_error() -> None:
    with (
        run_scripted(Call.wait_for_departure) as engine,  # type: ignore[arg-type]
        run_hub({"a": engine.url}) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=GENERATE))
        engine.call_number(0)
        (request_id,) = running(hub)
        assert cancelled(hub, request_id) is Outcome.CANCELLED
        answer = wire.answer()
        assert (answer.status, answer.json()) == (410, {"error": "an administrator cancelled this request"})
        assert running(hub) == []


def test_a_request_that_has_ended_is_not_cancelled_any_more() -> None:
    with run_scripted(lambda call: call.answer(b'{"done":true}')) as engine, run_hub({"a": engine.url}) as hub:
        request_id = ask(hub.port, request(body=GENERATE)).header("X-Hive-Request-Id")
        assert request_id is not None
        with pytest.raises(Fault, match="has ended already") as raised:
            cancelled(hub, request_id)
    assert raised.value.kind is CONFLICT


def test_a_request_that_never_was_is_not_found() -> None:
    with run_hub() as hub, pytest.raises(Fault) as raised:
        cancelled(hub, "req_nonsense")
    assert raised.value.kind is NOT_FOUND
