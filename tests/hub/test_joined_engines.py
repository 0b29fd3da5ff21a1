"""What is believed of a joined node's engines: reports, and what follows from them."""

from __future__ import annotations

import json

import pytest

from hive.fleet.engines import Engine, EngineKind, EngineReport, Fleet, Health
from hive.fleet.health import NOT_BACK
from hive.hub.health import HealthWatch
from hive.hub.joined_engines import MAX_MODELS, JoinedEngine
from hive.wire import link_messages as messages
from hive.wire.link_messages import json_object

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
        self.health = HealthWatch(self.fleet, lambda: 0.0, lambda _: None)
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
        messages.Engine("ollama", "vllm", "0.6", "http://127.0.0.1:8000", 32, v1_models=V1_MODELS),
        messages.Engine("ollama", "llama.cpp", v1_models=V1_MODELS),
        messages.Engine("ollama", "a kind of tomorrow", v1_models=V1_MODELS),
    ],
    ids=lambda reported: reported.kind,
)
def test_what_is_remembered_of_an_engine_is_all_but_what_is_in_its_memory(reported: messages.Engine) -> None:
    before, after = Learner(), Learner()
    before.joined.learn(reported)
    known = before.joined.known()
    assert known is not None
    after.joined.recall(known)
    assert after.joined.lasting == before.joined.lasting
    assert (before.engine.loaded != {}, after.engine.loaded) == (True, {})
    assert (after.engine.health, after.engine.error) == (Health.JOINING, NOT_BACK)
    after.joined.learn(reported)
    assert (after.engine.health, after.engine.error) == (Health.READY, "")
    assert after.engine.loaded == before.engine.loaded
    assert not after.engine.signs.is_remembered, "from now on it falls as any other"


def test_an_engine_that_never_said_what_it_has_is_not_remembered() -> None:
    learner = Learner()
    learner.joined.learn(an_engine(is_alive=False, error="connection refused"))
    assert (learner.engine.kind, learner.joined.known()) == (EngineKind.UNKNOWN, None)


def test_an_engine_that_its_node_then_finds_dead_is_on_probation_when_it_is_back(learner: Learner) -> None:
    known = learner.joined.known()
    assert known is not None
    again = Learner()
    again.joined.recall(known)
    again.joined.learn(an_engine(is_alive=False, error="connection refused"))
    assert (again.engine.health, sorted(again.engine.models)) == (Health.DOWN, ["tiny:latest"])
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
