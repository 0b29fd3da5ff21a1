"""What becomes of a node's engines when it reports, leaves, drains, or is remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest

from hive.app import HubServer
from hive.fleet.engines import Engine, Health
from hive.hub.node_reports import LEARN_SHARE, LONGEST_LEARN_WAIT, NodeReports
from hive.net.joined_link import JoinedPool
from hive.testing.hub import run_hub
from hive.wire.link_messages import EngineBeat, ReportedEngine, json_object

from ..joining import an_engine

T = TypeVar("T")


class Scene:
    """The reports of one node in a real hub, with a clock that tests turn."""

    def __init__(self, server: HubServer) -> None:
        self.now = 100.0
        self.reading = 0.0
        """Seconds that pass whenever the hub begins or ends to read."""
        self.drained_by = ""
        self.changes: list[str] = []
        self.fleet = server.hub.fleet
        self.port = replace(server.hub.joining._port, now=self._tell)
        self.reports = NodeReports(
            self.port,
            JoinedPool("desk", 1.0, lambda _: None),
            refresh=lambda _: None,
            drained_by=lambda: self.drained_by,
            note_change=self.changes.append,
        )

    def _tell(self) -> float:
        self.now += self.reading
        return self.now

    def engine(self, name: str = "ollama") -> Engine:
        return self.reports.engines[name].engine

    @property
    def ids(self) -> list[str]:
        """Return the ids of the node's engines, and make sure that the fleet has the same."""
        found = sorted(self.reports.engines)
        assert sorted(engine.id for engine in self.fleet.engines) == found
        return found


@pytest.fixture
def play() -> Iterator[Callable[[Callable[[Scene], T]], T]]:
    """Runs a function with a scene, in the loop of a hub of its own."""
    with run_hub() as hub:

        def run(function: Callable[[Scene], T]) -> T:
            return hub.call(lambda server: function(Scene(server)))

        yield run


Play = Callable[[Callable[[Scene], T]], T]


def test_engines_that_are_reported_come_into_the_fleet_and_go_when_they_are_not(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine("a"), an_engine("b")))
        assert scene.ids == ["a", "b"]
        scene.reports.take((an_engine("b"),))
        assert scene.ids == ["b"]
        scene.reports.remove_all()
        assert scene.ids == []

    play(test)


def test_a_report_that_took_long_to_read_makes_the_next_one_wait(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine("a"),))
        scene.reading = 0.5
        scene.reports.take((an_engine("a"), an_engine("b")))
        began, scene.reading = scene.now, 0.0
        scene.reports.take((an_engine("c"),))
        scene.reports.take((an_engine("d"),))
        scene.now = began + LEARN_SHARE * 0.5 - 0.1
        scene.reports.tick(scene.now, None)
        assert scene.ids == ["a", "b"]
        scene.now = began + LEARN_SHARE * 3 * 0.5
        scene.reports.tick(scene.now, None)
        assert scene.ids == ["d"], "only the newest one is read"

    play(test)


def test_no_report_waits_longer_than_a_minute(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reading = 1_000.0
        scene.reports.begin((an_engine("a"),))
        scene.reading = 0.0
        scene.reports.take((an_engine("b"),))
        assert scene.ids == ["a"]
        scene.now += LONGEST_LEARN_WAIT
        scene.reports.tick(scene.now, None)
        assert scene.ids == ["b"]

    play(test)


def test_the_first_report_of_a_session_waits_for_nothing(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reading = 1.0
        scene.reports.begin((an_engine("a"),))
        scene.reports.begin((an_engine("b"),))
        assert scene.ids == ["b"]

    play(test)


@pytest.mark.parametrize("has_left", [True, False])
def test_when_the_session_ends_the_engines_are_down_with_the_reason(play: Play[None], has_left: bool) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine(),))
        scene.reading = 1.0
        scene.reports.take((an_engine(),))
        scene.reports.take(())
        scene.reports.end("its node has left", has_left=has_left)
        engine = scene.engine()
        assert (engine.health, engine.error, engine.signs.has_left) == (Health.DOWN, "its node has left", has_left)
        scene.now += 3600.0
        scene.reports.tick(scene.now, None)
        assert scene.ids == ["ollama"], "the report that waited is forgotten"

    play(test)


def test_a_report_that_cannot_be_read_harms_its_own_engine_only(
    play: Play[None], caplog: pytest.LogCaptureFixture
) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine("bad"), an_engine("good")))
        wrong = an_engine("bad", tags=json_object(b'{"models":[{"name":7}]}'))
        scene.reports.engines["bad"].learn = fail  # type: ignore[method-assign]
        scene.reports.take((wrong, an_engine("good", slots=9)))
        assert (scene.engine("bad").health, scene.engine("bad").error) == (
            Health.DOWN,
            "its node reports what cannot be read",
        )
        assert (scene.engine("good").health, scene.engine("good").slots) == (Health.READY, 9)

    with caplog.at_level(logging.ERROR, "hive.hub.node_reports"):
        play(test)
    assert "node desk: the report of its engine bad" in caplog.text


def fail(_: ReportedEngine) -> None:
    raise ZeroDivisionError


def test_remembered_engines_are_there_before_the_node_is(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.recall((an_engine("a"), an_engine("b")))
        assert scene.ids == ["a", "b"]
        assert scene.engine("a").health is Health.JOINING
        assert scene.fleet.having("tiny:latest")

    play(test)


def test_a_beat_is_a_sign_of_life_of_the_engines_that_it_names(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine("a"), an_engine("b")))
        for name in "ab":
            scene.engine(name).signs.last_sign = 0.0
        scene.reports.take_beats({"a": EngineBeat(True), "unknown": EngineBeat(True)})
        assert [scene.engine(name).signs.last_sign > 0 for name in "ab"] == [True, False]

    play(test)


def test_engines_drain_as_long_as_the_operator_or_the_agent_wants_it(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine(),))
        scene.drained_by = "its agent stops"
        scene.reports.apply_drain()
        assert not scene.engine().takes_work
        scene.reports.take((an_engine(), an_engine("late")))
        assert not scene.engine("late").takes_work
        scene.drained_by = ""
        scene.reports.apply_drain()
        assert scene.engine().takes_work

    play(test)


def test_the_memory_of_the_node_is_an_engines_that_is_alone(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine("a"),))
        scene.reports.tick(scene.now, 24)
        assert scene.engine("a").known.memory_bytes == 24
        scene.reports.take((an_engine("a"), an_engine("b")))
        scene.reports.tick(scene.now, 24)
        assert [scene.engine(name).known.memory_bytes for name in "ab"] == [None, None]

    play(test)


def test_only_what_lasts_is_told_as_a_change(play: Play[None]) -> None:
    def test(scene: Scene) -> None:
        scene.reports.begin((an_engine(),))
        assert scene.changes == ["desk"]
        scene.reports.take((an_engine(ps=json_object(b'{"models":[]}')),))
        assert scene.changes == ["desk"], "what is in memory does not last"
        scene.reports.take((an_engine(version="9.9.9"),))
        assert scene.changes == ["desk", "desk"]

    play(test)
