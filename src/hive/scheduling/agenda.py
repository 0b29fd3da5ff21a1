"""Which lanes are worth a look now: because an engine changed, because a ticket came, or because time has passed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush

from hive.fleet.engines import Engine, Fleet
from hive.scheduling.lanes import Lane
from hive.scheduling.policies import could_load
from hive.scheduling.survey import LaneSurvey
from hive.scheduling.ticket_queue import TicketQueue

REVIEWS = 32
"""At most this many lanes are considered again in one step: time alone may have changed what is best for them."""


class Agenda:
    """The engines and lanes that the dispatcher has to consider."""

    def __init__(self, fleet: Fleet, queue: TicketQueue, survey: LaneSurvey) -> None:
        self._fleet = fleet
        self._queue = queue
        self._survey = survey
        self._seen_shape = -1
        self.dirty: set[Engine] = set()
        """Engines that may be able to do more than when waiting tickets were last considered."""
        self.fresh: dict[Lane, None] = {}
        """Lanes to consider because of a ticket that came into them."""
        self._resting: list[tuple[float, int, Engine]] = []
        """A heap of engines that rest, by the end of their rest."""
        self._rota: deque[Lane] = deque()
        """Lanes in which tickets wait, in the order in which time makes them worth a look."""

    @property
    def is_empty(self) -> bool:
        """Is there nothing to consider?"""
        return not (self.fresh or (self._queue.count and (self.dirty or self._fleet.changed)))

    def rest(self, engine: Engine) -> None:
        """Consider an engine at the end of its rest."""
        until = engine.running.rests_until
        heappush(self._resting, (until, id(engine), engine))

    def put_on_rota(self, lane: Lane) -> None:
        """Consider a lane again from time to time, for as long as tickets wait in it."""
        if not lane.is_on_rota:
            lane.is_on_rota = True
            self._rota.append(lane)

    def review(self) -> None:
        """Take the next lanes of the rota up."""
        for _ in range(min(REVIEWS, len(self._rota))):
            lane = self._rota.popleft()
            if lane.count:
                self.fresh[lane] = None
                self._rota.append(lane)
            else:
                lane.is_on_rota = False

    def take(self, now: float) -> dict[Lane, list[Engine] | None]:
        """Return the lanes to consider, each with the engines that changed for it (None: any may have); forget them."""
        fleet, queue = self._fleet, self._queue
        found: dict[Lane, list[Engine] | None] = {}
        if queue.count:
            while self._resting and self._resting[0][0] <= now:
                self.dirty.add(heappop(self._resting)[2])
            if fleet.shape != self._seen_shape:
                self._seen_shape = fleet.shape
                for lane in self._survey.forgive_all():
                    self.put_on_rota(lane)
                found.update((lane, None) for lanes in queue.by_model.values() for lane in lanes)
            else:
                for engine in self.dirty | fleet.changed:
                    for model in self._models_of_use(engine, now):
                        for lane in queue.by_model.get(model, ()):
                            found.setdefault(lane, []).append(engine)  # type: ignore[union-attr]
            found.update((lane, None) for lane in self.fresh if lane.count)
        self.dirty.clear()
        fleet.changed.clear()
        self.fresh.clear()
        return found

    def _models_of_use(self, engine: Engine, now: float) -> Iterable[str]:
        """Return the models for whose tickets a change on this engine may mean something.

        Those are the models in its memory, and all that it lists when it could load one.
        """
        known, loaded_as = engine.known, engine.running.loaded_as
        if not engine.loads_models or could_load(engine, now):
            by_model = self._queue.by_model
            if len(by_model) < len(known.models):
                return [model for model in by_model if model in known.models]
            return known.models
        return known.warm | loaded_as.keys() if loaded_as else known.warm
