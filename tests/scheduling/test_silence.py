"""How long an attempt may be silent: the rules alone, without a hub. `tests/hub/test_attempt.py` has them in it."""

from __future__ import annotations

import pytest

from hive import errors
from hive.fleet.engines import Engine, Health
from hive.fleet.health import DOUBTFUL_AFTER, DOWN_AFTER, SILENT_ON_SUSPECT, Patience
from hive.fleet.pace import Pace
from hive.scheduling.frontends import Frontend
from hive.scheduling.silence import ENOUGH_MEASURED, LONG_INSIDE, OVERDUE, AttemptSilence
from hive.scheduling.tickets import Lease

from .fleets import Floor

NOW = 10_000.0
PATIENCE = Patience(first_byte=300.0, gap=40.0, tools_gap=200.0)


class Scene:
    """One lease on an engine that gives signs of life."""

    def __init__(self, **more: object) -> None:
        self.floor = Floor()
        self.engine: Engine = self.floor.add("a", loaded="m", slots=4)
        self.engine.signs.last_sign = NOW
        self.lease = Lease(self.engine, self.floor.ticket(frontend=Frontend(patience=PATIENCE)), "", **more)  # type: ignore[arg-type]
        self.estimates = self.floor.dispatcher.estimates

    def teach(self, seconds: float = 0.001, count: int = ENOUGH_MEASURED) -> None:
        pace = self.engine.learned.paces["m"] = Pace()
        for _ in range(count):
            pace.prompt.add(1, seconds)

    def ends(self, seconds: float, *, has_elsewhere: bool = True, **more: bool) -> str:
        """Return the code of the error that ends an attempt which is silent for so long; "" when it goes on."""
        silence = AttemptSilence(self.lease, NOW - seconds, **more)
        fault = silence.fault(self.estimates, NOW, has_elsewhere=has_elsewhere)
        return fault.kind.code if fault is not None else ""

    def is_overdue(self, seconds: float, **more: bool) -> bool:
        return AttemptSilence(self.lease, NOW - seconds, **more).is_overdue(self.estimates, NOW)


LIMITS = [({}, 300.0), ({"has_begun": True}, 40.0), ({"has_begun": True, "has_tools": True}, 200.0)]


@pytest.mark.parametrize(("more", "limit"), LIMITS)
def test_an_engine_that_gives_signs_has_the_patience_of_the_frontend(more: dict[str, bool], limit: float) -> None:
    scene = Scene()
    assert scene.ends(limit - 0.1, **more) == ""
    assert scene.ends(limit, **more) == errors.NODE_SILENT.code


def test_without_a_sign_what_has_not_begun_leaves_at_once_or_where_it_cannot_after_half_a_minute() -> None:
    scene = Scene()
    scene.engine.signs.last_sign = NOW - 100
    assert scene.ends(0.0) == errors.NODE_SILENT.code
    assert scene.ends(DOWN_AFTER - 0.1, has_elsewhere=False) == ""
    assert scene.ends(DOWN_AFTER, has_elsewhere=False) == errors.NODE_SILENT.code
    assert scene.ends(SILENT_ON_SUSPECT - 0.1, has_begun=True) == ""
    assert scene.ends(SILENT_ON_SUSPECT, has_begun=True) == errors.NODE_SILENT.code


def test_a_first_byte_is_overdue_by_what_was_measured() -> None:
    scene = Scene()
    assert not scene.is_overdue(299.0), "nothing was measured"
    scene.teach(count=ENOUGH_MEASURED - 1)
    assert not scene.is_overdue(299.0), "too little was measured"
    scene.teach()
    assert scene.is_overdue(DOUBTFUL_AFTER + scene.lease.ticket.size)
    assert not scene.is_overdue(DOUBTFUL_AFTER - 0.1)
    scene.engine.signs.last_answer_byte = NOW - 1
    assert not scene.is_overdue(299.0), "others are answered"


@pytest.mark.parametrize("more", [{"has_tools": True}, {"streams": False}])
def test_a_first_byte_that_may_be_the_last_is_never_overdue(more: dict[str, bool]) -> None:
    scene = Scene()
    scene.teach()
    assert not scene.is_overdue(299.0, **more)


def test_what_may_have_to_be_loaded_is_never_overdue() -> None:
    scene = Scene()
    scene.teach()
    scene.floor.load(scene.engine)
    assert not scene.is_overdue(299.0)


def test_on_a_doubtful_engine_an_overdue_first_byte_goes_elsewhere_if_it_can() -> None:
    scene = Scene()
    scene.teach()
    assert scene.ends(60.0) == ""
    scene.floor.fleet.set_health(scene.engine, Health.DOUBTFUL)
    assert scene.ends(60.0) == errors.NODE_SILENT.code
    assert scene.ends(60.0, has_elsewhere=False) == ""


def test_what_waits_inside_is_taken_back_while_others_flow() -> None:
    scene = Scene(of_model=2)
    scene.teach(0.000_1)
    late = OVERDUE + scene.lease.ticket.size
    assert scene.ends(late) == "", "two at once were never seen to be too many"
    scene.engine.learned.proven = 1
    assert scene.ends(late) == "", "nothing flows"
    scene.engine.signs.last_stream_byte = NOW - 1
    assert scene.ends(late) == errors.NODE_BUSY.code
    assert scene.ends(LONG_INSIDE - 0.1) == ""
    assert scene.ends(LONG_INSIDE, has_begun=True) == "", "what is answered does not wait"
