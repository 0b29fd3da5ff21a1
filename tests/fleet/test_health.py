"""Signs of life in, state and cause out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.engines import Engine, Health
from hive.fleet.health import (
    DOUBTFUL_AFTER,
    DOUBTFUL_REST,
    DOWN_AFTER,
    FORGIVEN_AFTER,
    LONGEST_PROBATION,
    MISSED_AFTER,
    NOT_BACK,
    PROBATION,
    PROVEN_BY,
    SILENT_ON_SUSPECT,
    STALL,
    TABLE,
    HealthMonitor,
    Patience,
    Signs,
    is_alive,
    next_health,
    probation,
    silence_limit,
)

J, R, D, S, X, G, P = (
    Health.JOINING,
    Health.READY,
    Health.DOUBTFUL,
    Health.SUSPECT,
    Health.DOWN,
    Health.DRAINING,
    Health.PROBATION,
)
NOW = 1_000.0


def signs(**more: object) -> Signs:
    """Return the signs of an engine that answered a second ago and has been as it is for a minute."""
    made = Signs(last_sign=NOW - 1, answered_at=NOW - 1, since=NOW - 60)
    for name, value in more.items():
        setattr(made, name, value)
    return made


SILENT = {"last_sign": NOW - 5, "answered_at": NOW - 5}
UNHEARD = {"last_sign": float("-inf"), "answered_at": float("-inf")}
ROWS: list[tuple[Health, dict[str, object], Health, str]] = [
    (J, {}, R, "answered"),
    (J, {"failure": "connection refused"}, X, "connection refused"),
    (J, UNHEARD, S, "no answer in 5 s"),
    (J, {"is_remembered": True}, R, "answered"),
    (J, {**UNHEARD, "is_remembered": True, "since": NOW - MISSED_AFTER}, X, NOT_BACK),
    (R, SILENT, S, "no sign of life for 5 s"),
    (R, {"failure": "no connection"}, X, "no connection"),
    (R, {"has_stopped": True}, S, "stand still"),
    (R, {"drained_by": "an operator drains it"}, G, "operator"),
    (R, {"streams": 2, "last_stream_byte": NOW - DOUBTFUL_AFTER}, D, "streams have been silent"),
    (D, {"streams": 2, "last_stream_byte": NOW - 1, "last_answer_byte": NOW - 1}, R, "flow again"),
    (D, {"streams": 0, "last_answer_byte": NOW - 2, "since": NOW - 9}, R, "flow again"),
    (D, {"streams": 0, "since": NOW - DOUBTFUL_REST}, P, "any more"),
    (S, {"is_unproven": True, "since": NOW - 9}, P, "signs of life"),
    (D, {**SILENT, "streams": 2, "last_stream_byte": NOW - 50}, S, "no sign of life"),
    (S, {}, R, "signs of life again"),
    (S, {"last_sign": NOW - DOWN_AFTER, "answered_at": NOW - DOWN_AFTER}, X, "no sign of life for 30 s"),
    (S, {"failure": "no connection"}, X, "no connection"),
    (X, {}, P, "answers again"),
    (G, {"drained_by": "its agent stops", "has_left": True, "failure": "its agent has stopped"}, X, "has stopped"),
    (X, {"has_left": True, "answered_at": NOW, "since": NOW - 9}, R, "planned end"),
    (X, {"is_remembered": True}, R, "come back"),
    (X, {"drained_by": "an operator drains it"}, G, "operator"),
    (G, {}, J, "may serve again"),
    (P, {"falls": 1, "since": NOW - PROBATION}, R, "no failure for 10 s"),
    (P, {"falls": 1, "since": NOW - 2, "served": PROVEN_BY}, R, "served 3"),
    (P, {"failure": "no connection", "since": NOW - 1}, X, "no connection"),
    (P, {**SILENT, "since": NOW - 6}, S, "no sign of life"),
]


@pytest.mark.parametrize(("before", "what", "after", "cause"), ROWS)
def test_each_row_of_the_table(before: Health, what: dict[str, object], after: Health, cause: str) -> None:
    found = next_health(before, signs(**what), NOW)
    assert found is not None
    assert found[0] is after
    assert cause in found[1]


def test_every_rule_has_its_row_here() -> None:
    reached = set()
    for before, what, _, _ in ROWS:
        for rule in TABLE:
            if before in rule.states and rule.holds(signs(**what), NOW):
                reached.add(rule)
                break
    assert reached == set(TABLE)


STAYS: list[tuple[Health, dict[str, object]]] = [
    (J, {**UNHEARD, "since": NOW - 4.9}),
    (J, {**UNHEARD, "is_remembered": True, "since": NOW - MISSED_AFTER + 0.1}),
    (X, {**UNHEARD, "is_remembered": True}),
    (R, {}),
    (R, {"last_sign": NOW - 4.9, "answered_at": NOW - 60}),
    (R, {"streams": 2, "last_stream_byte": NOW - 4.9}),
    (R, {"streams": 2, "last_stream_byte": NOW - 50, "computing": 1}),
    (R, {"streams": 0, "last_stream_byte": NOW - 50}),
    (D, {"streams": 0, "since": NOW - DOUBTFUL_REST + 0.1}),
    (D, {"streams": 1, "last_stream_byte": NOW - 50}),
    (D, {"streams": 2, "last_stream_byte": NOW - 50, "computing": 1}),
    (S, {"last_sign": NOW - 6}),
    (S, {"has_stopped": True}),
    (S, {"has_stopped": True, "last_sign": NOW - 100}),
    (X, {"failure": "no connection"}),
    (X, {"answered_at": NOW - 61}),
    (G, {"drained_by": "an operator drains it"}),
    (G, {"drained_by": "an operator drains it", "failure": "no connection"}),
    (P, {"falls": 1, "since": NOW - PROBATION + 0.1}),
    (P, {"falls": 2, "since": NOW - PROBATION}),
]


@pytest.mark.parametrize(("health", "what"), STAYS)
def test_without_a_rule_the_health_stays(health: Health, what: dict[str, object]) -> None:
    assert next_health(health, signs(**what), NOW) is None


def test_probation_doubles_with_each_fall_and_has_an_end() -> None:
    assert [probation(falls) for falls in (0, 1, 2, 3)] == [10.0, 10.0, 20.0, 40.0]
    assert probation(1_000_000) == LONGEST_PROBATION


@pytest.mark.parametrize(
    ("what", "has_begun", "has_tools", "limit"),
    [
        ({}, False, False, 600.0),
        ({}, True, False, 60.0),
        ({}, True, True, 600.0),
        (SILENT, False, False, 0.0),
        (SILENT, True, True, SILENT_ON_SUSPECT),
        ({"has_stopped": True}, True, False, SILENT_ON_SUSPECT),
        ({"has_stopped": True}, True, True, 600.0),
        ({"has_stopped": True}, False, True, 0.0),
        ({"has_stopped": True, "is_halted": True}, True, True, SILENT_ON_SUSPECT),
    ],
)
def test_how_long_an_attempt_may_be_silent(
    what: dict[str, object], has_begun: bool, has_tools: bool, limit: float
) -> None:
    assert silence_limit(signs(**what), NOW, Patience(), has_begun=has_begun, has_tools=has_tools) == limit


class Ward:
    """A monitor over engines, with a clock that tests turn; what it finds is put into effect."""

    def __init__(self, *nodes: str) -> None:
        self.now = 0.0
        self.monitor = HealthMonitor()
        self.engines = [Engine(node, f"http://{node}") for node in nodes]
        for engine in self.engines:
            self.monitor.watch(engine, self.now)
        self.causes: list[str] = []

    def hear(self, engine: Engine) -> None:
        engine.signs.last_sign = engine.signs.answered_at = self.now
        engine.signs.failure = ""

    def turn(self, seconds: float, *heard: Engine) -> list[Health]:
        """Let time pass in steps of half a second, some engines being heard in each."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            for engine in heard:
                self.hear(engine)
            self.sweep()
        return [engine.health for engine in self.engines]

    def sweep(self) -> None:
        for change in self.monitor.sweep(self.now):
            assert change.before is change.engine.health
            assert change.cause
            change.engine.health = change.after
            self.causes.append(change.cause)


def test_an_engine_comes_falls_and_comes_back_by_itself() -> None:
    ward = Ward("a", "b")
    a, b = ward.engines
    assert ward.turn(1, a, b) == [R, R]
    assert ward.turn(4.5, b) == [R, R]
    assert ward.turn(0.5, b) == [S, R]
    assert ward.turn(25, b) == [X, R]
    assert ward.turn(100, b) == [X, R]
    assert ward.turn(0.5, a, b) == [P, R]
    assert ward.turn(9.5, a, b) == [P, R]
    assert ward.turn(0.5, a, b) == [R, R]


def test_an_engine_that_falls_again_and_again_is_longer_on_probation_until_it_is_forgiven() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    for length in (10, 20, 40):
        a.signs.failure = "refused"
        assert ward.turn(1) == [X]
        assert ward.turn(length, a) == [P]
        assert ward.turn(1, a) == [R]
    ward.turn(FORGIVEN_AFTER + 1, a)
    a.signs.failure = "refused"
    ward.turn(1)
    ward.turn(10.5, a)
    assert a.health is R


def test_after_a_stall_of_the_hub_no_engine_is_judged_and_no_silence_counts() -> None:
    ward = Ward("a", "b")
    a, b = ward.engines
    ward.turn(1, a, b)
    ward.turn(4, b)
    ward.now += STALL + 60
    ward.sweep()
    assert [engine.health for engine in ward.engines] == [R, R]
    assert ward.turn(0.5, b) == [R, R]
    assert ward.turn(1, b) == [S, R], "the four seconds before the stall still count"


@given(st.lists(st.tuples(st.floats(-50, 200), st.booleans()), max_size=30))
@settings(deadline=None, max_examples=100)
def test_an_engine_that_gives_signs_all_the_time_is_never_suspect_whatever_the_clock_does(
    steps: list[tuple[float, bool]],
) -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    for step, is_heard in steps:
        ward.now += step
        if is_heard or step <= STALL:
            ward.hear(a)
        ward.sweep()
        assert a.health is R, ward.causes


def test_a_remembered_engine_is_missed_after_a_while_and_has_not_fallen() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    a.signs.is_remembered = True
    assert ward.turn(MISSED_AFTER - 0.5) == [J]
    assert ward.turn(100) == [X]
    assert (ward.causes, a.signs.falls) == ([NOT_BACK], 0)
    assert ward.turn(0.5, a) == [R]


def test_a_decisive_sign_is_judged_at_once() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    a.signs.failure = "connection refused"
    change = ward.monitor.judge(a, ward.now)
    assert change is not None
    assert (change.before, change.after, change.cause) == (R, X, "connection refused")


def test_a_forgotten_engine_is_judged_no_more() -> None:
    ward = Ward("a")
    ward.monitor.forget(ward.engines[0])
    ward.turn(20)
    assert ward.causes == []


def test_a_drained_engine_that_dies_is_still_known_to_be_silent() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    a.signs.drained_by = "an operator drains it"
    assert ward.turn(1, a) == [G]
    assert ward.turn(6) == [G]
    assert not is_alive(a.signs, ward.now)
    a.signs.drained_by = ""
    assert ward.turn(0.5) == [J]
    assert ward.turn(0.5, a) == [R]


def test_an_engine_that_left_in_good_order_is_trusted_when_it_is_back() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    a.signs.drained_by = "its agent stops"
    assert ward.turn(0.5, a) == [G]
    a.signs.has_left, a.signs.failure = True, "its agent has stopped"
    assert ward.turn(30) == [X]
    a.signs.drained_by = ""
    assert ward.turn(0.5) == [X]
    assert ward.turn(1, a) == [R]
    assert (a.signs.falls, a.signs.has_left) == (0, False)


def test_a_fall_is_forgiven_after_ten_minutes_in_any_state_but_down() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    a.signs.failure = "refused"
    ward.turn(1)
    ward.turn(11, a)
    assert a.signs.falls == 1
    for _ in range(3):
        ward.turn(200, a)
        a.signs.streams, a.signs.last_stream_byte = 1, ward.now - 10
        assert ward.turn(1, a) == [D]
        a.signs.streams, a.signs.last_answer_byte = 0, ward.now
        assert ward.turn(1, a) == [R]
    assert a.signs.falls == 0


def test_an_engine_that_stood_still_is_on_probation_for_longer_each_time() -> None:
    ward = Ward("a")
    (a,) = ward.engines
    ward.turn(1, a)
    for falls in (1, 2):
        a.signs.streams, a.signs.last_stream_byte = 1, ward.now - 10
        assert ward.turn(1, a) == [D]
        a.signs.streams = 0
        assert ward.turn(DOUBTFUL_REST + 1, a) == [P]
        assert a.signs.falls == falls
