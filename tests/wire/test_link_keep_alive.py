"""The silence on a socket, second by second, from the hub's side and from the node's."""

from __future__ import annotations

import pytest

from hive.wire.link_keep_alive import KeepAlive, Silence
from hive.wire.link_rules import PING_SECONDS, PONG_SECONDS, STALL_SECONDS


def found(alive: KeepAlive, since: float, until: float, *, is_excused: bool = False) -> list[tuple[float, Silence]]:
    """Tick every second behind `since` up to `until`; return what was found that is not fine."""
    seen, now = [], since
    while now < until:
        now += 1.0
        silence = alive.tick(now, is_excused=is_excused, patience=PONG_SECONDS)
        if silence is not Silence.FINE:
            seen.append((now, silence))
    return seen


def test_the_hub_pings_at_its_interval_as_long_as_it_is_answered() -> None:
    alive = KeepAlive(0.0, sends_pings=True)
    for turn in range(3):
        start = turn * PING_SECONDS
        assert found(alive, start, start + PING_SECONDS) == [(start + PING_SECONDS, Silence.PING)]
        alive.heard, alive.asked = start + PING_SECONDS, None


def test_a_ping_without_an_answer_ends_the_hubs_patience() -> None:
    alive = KeepAlive(0.0, sends_pings=True)
    over = PING_SECONDS + PONG_SECONDS + 1
    assert found(alive, 0.0, over)[0] == (PING_SECONDS, Silence.PING)
    assert (over, Silence.UNANSWERED) in found(KeepAlive(0.0, sends_pings=True), 0.0, over)


def test_the_patience_is_the_callers() -> None:
    alive = KeepAlive(0.0, sends_pings=True)
    found(alive, 0.0, PING_SECONDS)
    now = PING_SECONDS + 2.0
    assert alive.tick(now, is_excused=False, patience=2.0) is Silence.FINE
    assert alive.tick(now + 1.0, is_excused=False, patience=2.0) is Silence.UNANSWERED


def test_a_second_ping_does_not_give_the_first_one_more_time() -> None:
    alive = KeepAlive(0.0, sends_pings=True)
    found(alive, 0.0, PING_SECONDS)
    now = PING_SECONDS
    for _ in range(int(PING_SECONDS)):
        now += 1.0
        silence = alive.tick(now, is_excused=False, patience=100.0)
    assert (silence, alive.asked) == (Silence.PING, PING_SECONDS)


def test_the_node_takes_a_silent_hub_for_gone_and_sends_no_ping() -> None:
    alive = KeepAlive(0.0, sends_pings=False)
    alive.silence_seconds = 5.0
    assert found(alive, 0.0, 6.0) == [(6.0, Silence.SILENT)]


def test_any_bytes_of_the_hub_begin_its_silence_anew() -> None:
    alive = KeepAlive(0.0, sends_pings=False)
    alive.silence_seconds = 5.0
    found(alive, 0.0, 5.0)
    alive.heard = 5.0
    assert found(alive, 5.0, 10.0) == []


@pytest.mark.parametrize("sends_pings", [True, False])
def test_a_silence_that_is_excused_is_no_silence(sends_pings: bool) -> None:
    alive = KeepAlive(0.0, sends_pings=sends_pings)
    kinds = {silence for _, silence in found(alive, 0.0, 120.0, is_excused=True)}
    assert kinds <= {Silence.PING}


@pytest.mark.parametrize("sends_pings", [True, False])
def test_after_we_were_away_nothing_is_judged(sends_pings: bool) -> None:
    alive = KeepAlive(0.0, sends_pings=sends_pings)
    found(alive, 0.0, PING_SECONDS)
    now = PING_SECONDS + 3600.0
    assert alive.tick(now, is_excused=False, patience=PONG_SECONDS) is Silence.AWAY
    assert alive.tick(now + STALL_SECONDS, is_excused=False, patience=PONG_SECONDS) is not Silence.AWAY
