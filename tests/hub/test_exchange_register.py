"""The exchanges of a hub: those that run, those that ended, and the refusals before them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hive.errors import NOT_FOUND, Fault
from hive.hub import exchange_register
from hive.hub.exchange_register import ExchangeRegister
from hive.hub.records import Outcome, Record, Records
from hive.testing import ThreadedEngine
from hive.testing.hub import run_hub

from ..raw import GENERATE, STREAM, Wire, ask, eventually, request


def test_an_exchange_is_found_while_it_runs_and_kept_when_it_has_ended(engine: ThreadedEngine) -> None:
    engine.set_fault("freeze")
    with run_hub({"a": engine.url}, link="dialed", wait=False) as hub:
        engine.clear_faults()
        eventually(lambda: ask(hub.port, request(body=GENERATE)).status == 200)
        ((record, leases),) = hub.call(lambda server: list(server.hub.register.past()))[:1]
        assert (record.outcome, [lease.engine.node for lease in leases]) == (Outcome.OK, ["a"])
        assert hub.call(lambda server: server.hub.register.find(record.request_id)) is None
        assert hub.call(lambda server: server.hub.register.find_past(record.request_id))[0] is record


def test_an_exchange_with_broken_deadlines_keeps_no_other_from_its_own(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        record = Record(request_id="req_broken")

        def check_deadlines(self, now: float) -> None:
            raise ZeroDivisionError

    class Sound(Broken):
        asked = 0

        def check_deadlines(self, now: float) -> None:
            self.asked += 1

    async def run() -> None:
        register = ExchangeRegister(Records(lambda _: None, lambda _: None), lambda: 0.0)
        sound = [Sound() for _ in range(9)]
        register.running.update([*sound[:4], Broken(), *sound[4:]])  # type: ignore[arg-type]
        register.check_deadlines(1.0)
        assert [each.asked for each in sound] == [1] * 9

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "req_broken" in caplog.text


def test_a_request_that_never_was_is_not_found() -> None:
    with run_hub({}) as hub, pytest.raises(Fault) as caught:
        hub.call(lambda server: server.hub.register.find_past("req_nope"))
    assert caught.value.kind is NOT_FOUND
    assert f"{exchange_register.HISTORY:,}" in caught.value.message


def test_the_last_exchange_comes_first(engine: ThreadedEngine) -> None:
    with run_hub({"a": engine.url}) as hub:
        asked = [ask(hub.port, request(body=GENERATE)).header("X-Hive-Request-Id") for _ in range(3)]
        past = hub.call(lambda server: [record.request_id for record, _ in server.hub.register.past()])
    assert past == asked[::-1]


def test_a_refusal_before_an_exchange_has_a_record_and_is_no_past_exchange() -> None:
    with run_hub({}) as hub:
        assert ask(hub.port, request("/nothing", body=GENERATE)).status == 404
        tallies = hub.call(lambda server: dict(server.hub.register.records.tallies.exchanges))
        assert [key for key in tallies if key[0] == "none"] == [("none", "", Outcome.CLIENT_ERROR)]
        assert hub.call(lambda server: list(server.hub.register.past())) == []


def test_attempts_are_those_under_way_and_all_can_be_given_up() -> None:
    from hive.testing import SimOptions, run_in_thread

    with (
        run_in_thread(SimOptions(slots=4, tokens_per_second=5, default_tokens=500)) as engine,
        run_hub({"a": engine.url}, slots=4) as hub,
        Wire(hub.port) as wire,
    ):
        wire.send(request(body=STREAM))
        hub.until(lambda server: [one.has_answered for one in server.hub.register.attempts()] == [True])
        hub.call(lambda server: server.hub.register.give_up_all())
        assert b"shutting down" in wire.answer().body
        hub.until(lambda server: not server.hub.register.running and not server.hub.register.attempts())
