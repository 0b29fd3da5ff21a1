"""What is believed of a joined node's engines: reports, and what follows from them."""

from __future__ import annotations

import json

import pytest

from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.health import DOUBTFUL_AFTER, NOT_BACK, SILENT_ON_SUSPECT, Patience, Transition, silence_limit
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport
from hive.hub.event_log import EventLog
from hive.hub.health_watch import HealthWatch
from hive.hub.joined_engines import MAX_MODELS, STANDSTILL, JoinedEngine
from hive.wire import link_messages as messages
from hive.wire.link_messages import EngineBeat, json_object

from ..joining import an_engine


class ReadFleet(Fleet):
    """A fleet that counts the reports which were read for it."""

    reads = 0

    def learn(self, engine: Engine, report: EngineReport) -> bool:
        self.reads += 1
        return super().learn(engine, report)


class Learner:
    """A joined engine in a fleet of its own, and what it called for."""

    def __init__(self) -> None:
        self.fleet = ReadFleet()
        self.engine = Engine("desk", "", id="ollama")
        self.fleet.add(self.engine)
        self.changes: list[Engine] = []
        """Each report is one: it also says that nothing has changed."""
        self.health = HealthWatch(self.fleet, lambda: 0.0, EventLog(), lambda _: None)
        self.health.watch(self.engine)
        self.joined = JoinedEngine(
            self.engine, self.fleet, self.health, lambda _: None, self.changes.append, lambda: 0.0
        )

    def take_changes(self) -> int:
        """Return how often the queue was told since the last time."""
        count = len(self.changes)
        self.changes.clear()
        return count


@pytest.fixture
def learner() -> Learner:
    """An engine that was reported once."""
    learner = Learner()
    learner.joined.learn(an_engine(slots=4))
    assert (learner.fleet.reads, learner.engine.health, learner.engine.slots) == (1, Health.READY, 4)
    learner.take_changes()
    return learner


def test_a_report_that_says_the_same_is_not_read_again(learner: Learner) -> None:
    revision, having = learner.fleet.revision, learner.fleet.having("tiny:latest")
    learner.joined.learn(an_engine(slots=4))
    assert learner.fleet.reads == 1
    assert learner.fleet.revision == revision
    assert learner.fleet.having("tiny:latest") is having
    assert learner.take_changes() == 1


@pytest.mark.parametrize("changes", [{"tags": json_object(b'{"models":[]}')}, {"ps": json_object(b'{"models":[]}')}])
def test_a_report_that_says_something_else_is_read(learner: Learner, changes: dict[str, object]) -> None:
    learner.joined.learn(an_engine(slots=4, **changes))
    assert (learner.fleet.reads, learner.take_changes()) == (2, 1)


def test_the_same_report_is_read_when_the_hub_has_come_to_believe_something_else(learner: Learner) -> None:
    learner.fleet.forget_loaded(learner.engine, "tiny:latest")
    assert learner.engine.known.loaded == {}
    learner.joined.learn(an_engine(slots=4))
    assert list(learner.engine.known.loaded) == ["tiny:latest"], "it has the model still"
    learner.joined.learn(an_engine(slots=4))
    assert learner.fleet.reads == 2, "what is believed again need not be read"


def test_the_same_report_brings_an_engine_back_that_was_down(learner: Learner) -> None:
    learner.joined.fail("connection refused")
    assert learner.engine.health is Health.DOWN
    learner.engine.signs.since = -1.0
    learner.joined.learn(an_engine(slots=4))
    assert (learner.fleet.reads, learner.engine.health, learner.engine.error) == (1, Health.PROBATION, "")


@pytest.mark.parametrize("slots", [1, 8])
def test_other_slots_alone_are_told_once(learner: Learner, slots: int) -> None:
    learner.joined.learn(an_engine(slots=slots))
    assert (learner.engine.slots, learner.take_changes()) == (slots, 1)


def test_a_report_of_a_silent_engine_is_no_sign_of_its_life(learner: Learner) -> None:
    learner.engine.signs.last_sign = before = -3.0
    learner.joined.learn(an_engine(slots=2, is_silent=True))
    assert (learner.engine.slots, learner.engine.health) == (2, Health.READY), "what it has may be news all the same"
    assert learner.engine.signs.last_sign == before
    assert learner.take_changes() == 0
    learner.joined.learn(an_engine(slots=2))
    assert learner.engine.signs.last_sign == 0.0


def test_too_many_models_make_an_engine_down_and_are_not_learned(learner: Learner) -> None:
    entries = [{"name": f"m{number}"} for number in range(MAX_MODELS + 1)]
    learner.joined.learn(an_engine(tags=json_object(json.dumps({"models": entries}).encode())))
    assert (learner.fleet.reads, learner.engine.health) == (1, Health.DOWN)
    assert learner.engine.error == f"its node reports more than {MAX_MODELS} models"


V1_MODELS = json_object(b'{"data":[{"id":"org/big","created":7,"max_model_len":4096},{"id":"small"}]}')


@pytest.mark.parametrize(
    "reported",
    [
        an_engine(),
        messages.ReportedEngine("ollama", "vllm", "0.6", "http://127.0.0.1:8000", 32, v1_models=V1_MODELS),
        messages.ReportedEngine("ollama", "llama.cpp", v1_models=V1_MODELS),
        messages.ReportedEngine("ollama", "a kind of tomorrow", v1_models=V1_MODELS),
    ],
    ids=lambda reported: reported.kind,
)
def test_what_is_remembered_of_an_engine_is_all_but_what_is_in_its_memory(reported: messages.ReportedEngine) -> None:
    before, after = Learner(), Learner()
    before.joined.learn(reported)
    known = before.joined.known()
    assert known is not None
    after.joined.recall(known)
    assert after.joined.lasting == before.joined.lasting
    assert (before.engine.known.loaded != {}, after.engine.known.loaded) == (True, {})
    assert (after.engine.health, after.engine.error) == (Health.JOINING, NOT_BACK)
    after.joined.learn(reported)
    assert (after.engine.health, after.engine.error) == (Health.READY, "")
    assert after.engine.known.loaded == before.engine.known.loaded
    assert not after.engine.signs.is_remembered, "from now on it falls as any other"


def test_an_engine_that_never_said_what_it_has_is_not_remembered() -> None:
    learner = Learner()
    learner.joined.learn(an_engine(is_alive=False, error="connection refused"))
    assert (learner.engine.known.kind, learner.joined.known()) == (EngineKind.UNKNOWN, None)


def test_an_engine_that_its_node_then_finds_dead_is_on_probation_when_it_is_back(learner: Learner) -> None:
    known = learner.joined.known()
    assert known is not None
    again = Learner()
    again.joined.recall(known)
    again.joined.learn(an_engine(is_alive=False, error="connection refused"))
    assert (again.engine.health, sorted(again.engine.known.models)) == (Health.DOWN, ["tiny:latest"])
    again.engine.signs.since = -1.0
    again.joined.learn(an_engine())
    assert again.engine.health is Health.PROBATION


@pytest.mark.parametrize(
    ("changes", "is_lasting"),
    [
        ({"ps": json_object(b'{"models":[]}')}, False),
        ({"is_alive": False, "error": "connection refused"}, False),
        ({"tags": json_object(b'{"models":[]}')}, True),
        ({"version": "0.34.0"}, True),
        ({"slots": 5}, True),
        ({"address": "http://10.0.0.1:11434"}, True),
    ],
)
def test_what_is_worth_remembering_does_not_change_by_the_minute(
    learner: Learner, changes: dict[str, object], is_lasting: bool
) -> None:
    before = learner.joined.lasting
    learner.joined.learn(an_engine(**{"slots": 4, **changes}))
    assert (learner.joined.lasting != before) is is_lasting


# --- heartbeats ---


class Stream:
    """A begun stream on an engine; its bytes come when a test says."""

    has_answered = True

    def __init__(self, engine: Engine, last_byte_at: float) -> None:
        self.engine = engine
        self.last_byte_at = last_byte_at

    def is_excused(self, now: float) -> bool:
        return False


class Bedside(Learner):
    """A joined engine whose node sends heartbeats, with a clock that tests turn."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.told: list[Health] = []
        self.asked: list[str] = []
        """Reports that were asked for."""
        self.running: list[Stream] = []
        self.health = HealthWatch(self.fleet, lambda: self.now, EventLog(), self._note)
        self.health.watch(self.engine)
        self.joined = JoinedEngine(
            self.engine, self.fleet, self.health, self.asked.append, self.changes.append, lambda: self.now
        )
        self.joined.learn(an_engine(slots=4))
        self.told.clear()

    def _note(self, change: Transition) -> None:
        self.told.append(change.after)

    def begin(self) -> Stream:
        """Let a stream run whose last byte came just now."""
        stream = Stream(self.engine, self.now)
        self.running.append(stream)
        self.engine.running.count += 1
        self.engine.running.of_model = {"tiny:latest": self.engine.running.count}
        return stream

    def end(self) -> None:
        """Let all streams end."""
        self.running.clear()
        self.engine.running.count, self.engine.running.of_model = 0, {}

    def beat(self, beat: EngineBeat | None, seconds: float = 2.0) -> None:
        """Let time pass with its sweeps, then hear a heartbeat."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            self.health.sweep(self.running, self.now)
        self.joined.take_beat(beat)


@pytest.fixture
def bed() -> Bedside:
    return Bedside()


IDLE = EngineBeat(True, idle_s=STANDSTILL)
BUSY = EngineBeat(True, idle_s=0.5)
UNKNOWN = EngineBeat(True, idle_s=None)


def test_a_heartbeat_is_a_sign_of_life_and_its_absence_none(bed: Bedside) -> None:
    for _ in range(20):
        bed.beat(EngineBeat(True))
    assert bed.told == []
    for beat in (None, EngineBeat(False), None):
        bed.beat(beat)
    assert bed.told == [Health.SUSPECT]
    bed.beat(EngineBeat(True))
    assert bed.told == [Health.SUSPECT, Health.READY]


def test_idle_processors_mean_nothing_on_an_engine_that_has_nothing_to_do(bed: Bedside) -> None:
    for _ in range(10):
        bed.beat(EngineBeat(True, idle_s=3600.0))
    assert (bed.told, bed.engine.signs.has_stopped) == ([], False)


def test_nor_while_a_stream_flows_or_its_client_is_slow(bed: Bedside) -> None:
    stream = bed.begin()
    for _ in range(10):
        bed.beat(IDLE)
        stream.last_byte_at = bed.now
    assert bed.told == []


def test_a_doubtful_engine_whose_processors_are_idle_is_suspect(bed: Bedside) -> None:
    bed.begin()
    bed.beat(IDLE, DOUBTFUL_AFTER - 1)
    assert bed.told == []
    bed.beat(BUSY)
    assert bed.told == [Health.DOUBTFUL]
    bed.beat(EngineBeat(True, idle_s=STANDSTILL - 0.1))
    assert bed.told == [Health.DOUBTFUL]
    bed.beat(IDLE)
    assert bed.told == [Health.DOUBTFUL, Health.SUSPECT]
    assert bed.engine.error == "its agent sees it stand still"
    for has_tools, limit in ((False, SILENT_ON_SUSPECT), (True, 600.0)):
        assert silence_limit(bed.engine.signs, bed.now, Patience(), has_begun=True, has_tools=has_tools) == limit
    bed.now += 60
    bed.beat(IDLE)
    limit = silence_limit(bed.engine.signs, bed.now, Patience(), has_begun=True, has_tools=True)
    assert limit == 600.0, "it is there, and may hold a tool call back"


def test_an_idle_gateway_stays_doubtful(bed: Bedside) -> None:
    """The engine waits for the processors of another machine."""
    bed.engine.known.kind = EngineKind.OPENAI
    bed.begin()
    for _ in range(20):
        bed.beat(IDLE)
    assert bed.told == [Health.DOUBTFUL]
    bed.beat(EngineBeat(True, stopped=True))
    assert bed.told[-1] == Health.SUSPECT, "but its own process is halted"


@pytest.mark.parametrize("beat", [BUSY, UNKNOWN])
def test_one_that_computes_or_of_which_nothing_is_known_stays_doubtful(bed: Bedside, beat: EngineBeat) -> None:
    bed.begin()
    for _ in range(20):
        bed.beat(beat)
    assert bed.told == [Health.DOUBTFUL]


def test_it_stays_suspect_as_long_as_what_runs_there_stands_still(bed: Bedside) -> None:
    """Else it would get work again with each heartbeat, and lose it with the next."""
    bed.begin()
    for _ in range(20):
        bed.beat(IDLE)
    assert bed.told == [Health.DOUBTFUL, Health.SUSPECT]


def test_it_is_ready_again_when_it_computes_again(bed: Bedside) -> None:
    stream = bed.begin()
    for _ in range(5):
        bed.beat(IDLE)
    stream.last_byte_at = bed.now
    bed.beat(BUSY)
    assert bed.told == [Health.DOUBTFUL, Health.SUSPECT, Health.READY]


def test_when_all_that_stood_still_has_ended_it_may_be_idle(bed: Bedside) -> None:
    bed.begin()
    for _ in range(5):
        bed.beat(IDLE)
    bed.end()
    bed.beat(IDLE)
    assert bed.told == [Health.DOUBTFUL, Health.SUSPECT, Health.READY]
    for _ in range(10):
        bed.beat(IDLE)
    assert bed.told == [Health.DOUBTFUL, Health.SUSPECT, Health.READY]


def test_a_stopped_process_is_suspect_whatever_runs_and_is_back_when_it_goes_on(bed: Bedside) -> None:
    for _ in range(30):
        bed.beat(EngineBeat(True, stopped=True))
    assert bed.told == [Health.SUSPECT]
    bed.beat(EngineBeat(True))
    assert bed.told == [Health.SUSPECT, Health.READY]


def test_a_drained_engine_that_stands_still_stays_drained_and_what_runs_there_does_not_wait_for_it(
    bed: Bedside,
) -> None:
    bed.begin()
    bed.health.drain(bed.engine, "an operator drains it")
    bed.beat(EngineBeat(True, stopped=True))
    assert bed.told == [Health.DRAINING]
    limit = silence_limit(bed.engine.signs, bed.now, Patience(), has_begun=True, has_tools=False)
    assert limit == SILENT_ON_SUSPECT


def test_a_heartbeat_brings_no_engine_back_that_is_down_but_has_its_node_asked(bed: Bedside) -> None:
    bed.joined.fail("connection refused")
    bed.beat(EngineBeat(True))
    assert (bed.told, bed.asked) == ([Health.DOWN], ["ollama"])
    bed.joined.learn(an_engine(slots=4))
    assert bed.told == [Health.DOWN, Health.PROBATION]
