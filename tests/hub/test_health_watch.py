"""The watch over the engines: which signs it gathers from what runs, and what it puts into effect."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive.fleet.engines import IN_SERVICE, Engine, Fleet, Health
from hive.fleet.health import DOUBTFUL_AFTER, DOWN_AFTER, PROBATION, STALL, Transition
from hive.fleet.signs import NEVER
from hive.hub.event_log import EventLog, Position
from hive.hub.events import EngineHealth
from hive.hub.health_watch import BY_OPERATOR, HealthWatch

STEP = 0.5


@dataclass
class Running:
    """Something that runs on an engine, as a test wants it."""

    engine: Engine
    last_byte_at: float = 0.0
    has_answered: bool = True
    is_patient: bool = False
    """Is it excused, whatever the time?"""

    def is_excused(self, now: float) -> bool:
        return self.is_patient


class Ward:
    """A watch over engines named by single letters, with a clock that tests turn, and all that it told."""

    def __init__(self, *nodes: str) -> None:
        self.now = 100.0
        self.fleet = Fleet()
        self.told: list[Transition] = []
        self.events = EventLog()
        self.watch = HealthWatch(self.fleet, lambda: self.now, self.events, self._note)
        self.running: list[Running] = []
        for node in nodes:
            engine = Engine(node, f"http://{node}")
            self.fleet.add(engine)
            self.watch.watch(engine)
            self.watch.note_answer(engine)

    def _note(self, change: Transition) -> None:
        assert change.engine.health is change.after, "it is told when it is so, not before"
        assert change.cause
        self.told.append(change)

    def run(self, engine: Engine, **more: object) -> Running:
        """Let something run on an engine: begun just now, if nothing else is said."""
        running = Running(engine, **({"last_byte_at": self.now} | more))  # type: ignore[arg-type]
        self.running.append(running)
        return running

    def turn(self, seconds: float, *heard: Engine) -> None:
        """Let time pass in sweeps; some engines answer a probe before each."""
        for _ in range(int(seconds / STEP)):
            self.now += STEP
            for engine in heard:
                self.watch.note_answer(engine)
            self.watch.sweep(self.running, self.now)

    def changes(self) -> list[tuple[Health, Health]]:
        """Return what changed since the last time."""
        found = [(change.before, change.after) for change in self.told]
        self.told.clear()
        return found


@pytest.fixture
def ward() -> Ward:
    """One engine, which is ready."""
    ward = Ward("a")
    assert ward.changes() == [(Health.JOINING, Health.READY)]
    return ward


@pytest.fixture
def engine(ward: Ward) -> Engine:
    return ward.fleet.engines[0]


# --- any byte of any answer is a sign of life ---


def test_bytes_of_an_answer_keep_an_engine_ready_that_answers_no_probe(ward: Ward, engine: Engine) -> None:
    stream = ward.run(engine)
    for _ in range(20):
        ward.turn(1)
        stream.last_byte_at = ward.now
    assert (engine.health, ward.changes()) == (Health.READY, [])


def test_a_request_that_was_sent_is_no_sign_of_life(ward: Ward, engine: Engine) -> None:
    for _ in range(6):
        ward.run(engine, has_answered=False, is_patient=True)
        ward.turn(1)
    assert ward.changes() == [(Health.READY, Health.SUSPECT)]


def test_an_old_byte_takes_no_newer_sign_back(ward: Ward, engine: Engine) -> None:
    ward.run(engine, last_byte_at=ward.now - 60, is_patient=True)
    ward.turn(20, engine)
    assert ward.changes() == []


# --- doubtful ---


def test_an_engine_that_answers_is_doubtful_when_all_its_streams_have_been_silent_for_five_seconds(
    ward: Ward, engine: Engine
) -> None:
    silent, flowing = ward.run(engine), ward.run(engine)
    for _ in range(20):
        ward.turn(1, engine)
        flowing.last_byte_at = ward.now
    assert ward.changes() == [], "one of them flows"
    ward.turn(DOUBTFUL_AFTER - STEP, engine)
    assert ward.changes() == []
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.READY, Health.DOUBTFUL)]
    assert "silent for 5 s" in engine.error
    silent.last_byte_at = ward.now + STEP / 2
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.DOUBTFUL, Health.READY)]
    assert engine.error == ""


def test_each_change_is_an_event_with_its_cause(ward: Ward, engine: Engine) -> None:
    ward.watch.note_failure(engine, "connection refused")
    found = ward.events.since(Position(ward.events.epoch, 0))
    assert isinstance(found, list)
    told = [(event.subject, event.details) for event in found if event.subject == engine.node]
    assert told == [
        (engine.node, EngineHealth(engine.node, "", Health.JOINING, Health.READY, "it answered")),
        (engine.node, EngineHealth(engine.node, "", Health.READY, Health.DOWN, "connection refused")),
    ]


@pytest.mark.parametrize(
    "excuse",
    [
        {"has_answered": False, "is_patient": True},  # a prompt that may still be read, or a load
        {"has_answered": False, "is_patient": True, "last_byte_at": 0.0},
    ],
)
def test_silent_streams_are_excused_while_something_loads_or_may_be_read(
    ward: Ward, engine: Engine, excuse: dict[str, object]
) -> None:
    ward.run(engine)
    busy = ward.run(engine, **excuse)
    ward.turn(60, engine)
    assert ward.changes() == []
    ward.running.remove(busy)
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.READY, Health.DOUBTFUL)]


def test_a_stream_whose_client_reads_slowly_excuses_itself_and_no_other(ward: Ward, engine: Engine) -> None:
    ward.run(engine, is_patient=True)
    ward.turn(60, engine)
    assert ward.changes() == []
    ward.run(engine)
    ward.turn(DOUBTFUL_AFTER, engine)
    assert ward.changes() == [(Health.READY, Health.DOUBTFUL)]


def test_an_overdue_first_byte_counts_as_a_stream_that_stands_still(ward: Ward, engine: Engine) -> None:
    ward.run(engine, has_answered=False, last_byte_at=ward.now - 60)
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.READY, Health.DOUBTFUL)]


def test_when_the_last_silent_stream_has_ended_nothing_stands_still(ward: Ward, engine: Engine) -> None:
    ward.run(engine)
    ward.turn(DOUBTFUL_AFTER, engine)
    assert engine.is_last_resort
    ward.running.clear()
    ward.turn(60, engine)
    assert engine.takes_work
    signs = engine.signs
    assert (signs.streams, signs.computing, signs.last_stream_byte) == (0, 0, NEVER)


def test_what_runs_elsewhere_says_nothing() -> None:
    ward = Ward("a", "b")
    a, b = ward.fleet.engines
    ward.run(a)
    ward.turn(DOUBTFUL_AFTER, a, b)
    assert (a.health, b.health) == (Health.DOUBTFUL, Health.READY)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=12))
@settings(deadline=None, max_examples=50)
def test_no_count_leaks_from_sweep_to_sweep(kinds: list[tuple[str, bool, bool]]) -> None:
    ward = Ward("a", "b")
    engines = dict(zip("ab", ward.fleet.engines, strict=True))
    for node, has_answered, is_patient in kinds:
        ward.run(engines[node], has_answered=has_answered, is_patient=is_patient)
        ward.turn(STEP)
    for node, engine in engines.items():
        here = [(has_answered, is_patient) for each, has_answered, is_patient in kinds if each == node]
        assert engine.signs.streams == sum(not is_patient for _, is_patient in here)
        assert engine.signs.computing == sum(is_patient and not has_answered for has_answered, is_patient in here)
    ward.running.clear()
    ward.turn(STEP)
    assert [(each.signs.streams, each.signs.computing) for each in engines.values()] == [(0, 0), (0, 0)]


# --- suspect, down and back ---


def test_an_engine_without_a_sign_is_suspect_after_five_seconds_and_down_after_thirty(
    ward: Ward, engine: Engine
) -> None:
    ward.turn(4.5)
    assert ward.changes() == []
    ward.turn(STEP)
    assert ward.changes() == [(Health.READY, Health.SUSPECT)]
    assert not engine.takes_work
    ward.turn(DOWN_AFTER - 5.5)
    assert ward.changes() == []
    ward.turn(STEP)
    assert ward.changes() == [(Health.SUSPECT, Health.DOWN)]
    assert engine.error == "no sign of life for 30 s"


def test_a_failure_is_judged_at_once_and_its_newest_reason_is_shown(ward: Ward, engine: Engine) -> None:
    ward.watch.note_failure(engine, "connection refused")
    assert (ward.changes(), engine.error) == ([(Health.READY, Health.DOWN)], "connection refused")
    ward.watch.note_failure(engine, "it answers like a printer")
    assert (ward.changes(), engine.error) == ([], "it answers like a printer")


def test_an_engine_back_from_a_fall_is_on_probation_with_one_slot(ward: Ward, engine: Engine) -> None:
    ward.watch.note_failure(engine, "connection refused")
    ward.turn(1)
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.READY, Health.DOWN), (Health.DOWN, Health.PROBATION)]
    assert (engine.limit, engine.takes_work, engine.error) == (1, True, "")
    ward.turn(PROBATION - STEP, engine)
    assert ward.changes() == []
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.PROBATION, Health.READY)]
    assert engine.limit == engine.slots > 1


def test_three_answered_requests_end_probation_sooner(ward: Ward, engine: Engine) -> None:
    ward.watch.note_failure(engine, "connection refused")
    ward.turn(1, engine)
    engine.signs.served = 2
    ward.turn(1, engine)
    assert engine.health is Health.PROBATION
    engine.signs.served = 3
    ward.turn(STEP, engine)
    assert engine.health is Health.READY


def test_what_was_served_before_a_fall_proves_nothing(ward: Ward, engine: Engine) -> None:
    engine.signs.served = 1_000
    ward.watch.note_failure(engine, "connection refused")
    ward.turn(2, engine)
    assert engine.health is Health.PROBATION


def test_an_engine_that_stands_still_is_suspect_at_once_and_never_down_for_it(ward: Ward, engine: Engine) -> None:
    engine.signs.has_stopped = True
    ward.watch.judge(engine)
    assert ward.changes() == [(Health.READY, Health.SUSPECT)]
    assert engine.error == "its agent sees it stand still"
    ward.turn(2 * DOWN_AFTER)
    assert ward.changes() == []
    engine.signs.has_stopped = False
    ward.turn(STEP, engine)
    assert ward.changes() == [(Health.SUSPECT, Health.READY)]


# --- draining ---


@pytest.mark.parametrize("before", ["ready", "suspect", "probation", "doubtful"])
def test_an_operator_may_drain_in_any_state_and_nothing_else_ends_it(before: str, ward: Ward, engine: Engine) -> None:
    ward.fleet.set_health(engine, Health(before))
    ward.watch.drain(engine, BY_OPERATOR)
    assert ward.changes() == [(Health(before), Health.DRAINING)]
    ward.watch.note_failure(engine, "connection refused")
    ward.turn(2 * DOWN_AFTER)
    ward.turn(5, engine)
    engine.signs.has_stopped = True
    ward.watch.judge(engine)
    assert ward.changes() == []


def test_a_resumed_engine_that_answers_serves_again_in_the_same_moment(ward: Ward, engine: Engine) -> None:
    ward.watch.drain(engine, BY_OPERATOR)
    ward.turn(20, engine)
    ward.changes()
    ward.watch.drain(engine, "")
    assert ward.changes() == [(Health.DRAINING, Health.JOINING), (Health.JOINING, Health.READY)]


def test_a_resumed_engine_that_had_failed_is_down_in_the_same_moment(ward: Ward, engine: Engine) -> None:
    ward.watch.drain(engine, BY_OPERATOR)
    ward.watch.note_failure(engine, "its node has left")
    ward.changes()
    ward.watch.drain(engine, "")
    assert ward.changes() == [(Health.DRAINING, Health.JOINING), (Health.JOINING, Health.DOWN)]
    assert engine.error == "its node has left"


def test_a_resumed_engine_that_is_silent_is_not_ready_before_it_answers(ward: Ward, engine: Engine) -> None:
    ward.watch.drain(engine, BY_OPERATOR)
    ward.turn(20)
    ward.watch.drain(engine, "")
    ward.turn(4.5)
    assert engine.health is Health.JOINING
    ward.turn(STEP)
    assert engine.health is Health.SUSPECT
    ward.turn(STEP, engine)
    assert engine.health is Health.READY


# --- the hub itself stood still ---


def test_after_a_stall_no_engine_is_judged_and_the_silence_of_streams_does_not_grow() -> None:
    ward = Ward("a", "b")
    a, b = ward.fleet.engines
    stream = ward.run(a)
    ward.turn(4, a, b)
    ward.changes()
    stall = STALL + 60
    ward.now += stall
    stream.last_byte_at += stall  # as `Attempt.forgive` does
    ward.watch.sweep(ward.running, ward.now)
    assert ward.changes() == []
    ward.turn(STEP, b)
    assert ward.changes() == [], "four seconds and a half of silence, no more"
    ward.turn(STEP, a, b)
    assert ward.changes() == [(Health.READY, Health.DOUBTFUL)]


# --- what is told ---


def test_every_change_is_logged_with_node_engine_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hive.hub.health_watch")
    ward = Ward("desk")
    (engine,) = ward.fleet.engines
    engine.id = "ollama"
    ward.watch.note_failure(engine, "connection refused")
    ward.turn(1, engine)
    ward.watch.drain(engine, BY_OPERATOR)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("INFO", "node desk: joining -> ready (it answered)"),
        ("WARNING", "node desk, engine ollama: ready -> down (connection refused)"),
        ("INFO", "node desk, engine ollama: down -> probation (it answers again)"),
        ("INFO", "node desk, engine ollama: probation -> draining (an operator drains it)"),
    ]


def test_an_engine_that_is_forgotten_changes_no_more(ward: Ward, engine: Engine) -> None:
    ward.watch.forget(engine)
    ward.fleet.remove(engine)
    ward.turn(60)
    assert ward.changes() == []


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_whatever_happens_only_an_engine_that_is_well_has_no_error_and_every_change_has_a_cause(
    data: st.DataObject,
) -> None:
    ward = Ward("a")
    (engine,) = ward.fleet.engines
    acts = {
        "answer": lambda: ward.watch.note_answer(engine),
        "fail": lambda: ward.watch.note_failure(engine, "refused"),
        "drain": lambda: ward.watch.drain(engine, BY_OPERATOR),
        "resume": lambda: ward.watch.drain(engine, ""),
        "stop": lambda: setattr(engine.signs, "has_stopped", not engine.signs.has_stopped),
        "stream": lambda: ward.run(engine),
        "end": ward.running.clear,
        "second": lambda: ward.turn(1),
        "while": lambda: ward.turn(12),
        "sleep": lambda: setattr(ward, "now", ward.now + 100),
    }
    for name in data.draw(st.lists(st.sampled_from(sorted(acts)), max_size=25)):
        acts[name]()
        assert (engine.error == "") is (engine.health in IN_SERVICE), (name, engine.health, engine.error)
        assert engine.limit == (1 if engine.health is Health.PROBATION else engine.slots)
    for change in ward.told:
        assert change.before is not change.after
