"""The policy `best`: the engine from which the first byte is expected soonest, or the wait for a better one.

The expected time is a sum: the wait for a slot, the load if the model is not in memory, the prompt at the pace that
was measured with as many exchanges running, and the round trip to the engine. Three rules go with it:

* An engine of unknown pace counts as the middle of the fleet, and gets one exchange at a time while other engines
  could serve. A few exchanges are spent on measuring it.
* A free slot is declined (stays unused) only if a faster engine would serve even the last waiting ticket sooner. It
  stays unused at most as long as the slow engine would have taken.
* A load counts more than its seconds, because other requests may lose their model by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hive.fleet.engines import Engine
from hive.fleet.pace import BANDS, band
from hive.scheduling.lanes import Action, Choice, Lane
from hive.scheduling.placement import TIE, Place, Placement
from hive.scheduling.policies import MANY_ENGINES, Situation, is_open, last_resort, only_one, sample
from hive.scheduling.tickets import Ticket

MARGIN = 1.6
"""Wait or load only if the first byte is expected this many times sooner than by serving at once."""
ELECTIVE = 2.0
"""Load if that is expected to be this many times sooner than waiting for an engine that has the model."""
LEAST_LOAD = 1.6
"""If an engine could serve in fewer seconds than these, no load is considered."""
UNPROVEN_WEIGHT = 4.0
"""Seconds of an engine on probation are multiplied by this."""
UNKNOWN_WEIGHT = 3.0
"""Seconds of a busy engine of unknown pace are multiplied by this."""
EXPLORE = 0.05
"""The share of decisions that may be spent on measuring an engine."""
STALE = 300.0
"""Seconds after which a measurement is worth repeating."""
WORST_EXPLORED = 4.0
"""An engine that is expected to be more than this many times slower than the best is not measured."""

_BANDS = tuple(band(running) for running in range(64))
_LAST = BANDS - 1
_NEVER = float("inf")
_Weighed = tuple[list[tuple[Engine, float]], list[tuple[Engine, float]], list[Engine], float, float]
"""Engines that could serve now and busy ones, each with its seconds to the first byte; those that lack the model; the
least seconds of the first, and of the second."""


class Best:
    """Minimises the expected time to the first byte."""

    name = "best"

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._placement = Placement(situation)

    def choose(self, lane: Lane, ticket: Ticket, now: float, freed: Sequence[Engine] = ()) -> Choice:
        """Return the engine to serve the ticket or to load its model, or say that the ticket should wait."""
        engines, model = lane.engines, ticket.model
        if len(engines) == 1:
            only = engines[0]
            if only.is_warm(model, ticket.load_options) and is_open(only, model, now):
                return Choice(Action.SERVE, only, lane.only)
        elif len(engines) > MANY_ENGINES:
            engines = sample(engines, model, now, self._situation.rng, freed)
        open_, busy, cold, least, hope = self._weigh(engines, ticket, now)
        if not open_ or hope * MARGIN < least or (cold and least > LEAST_LOAD):
            choice = self._look_further(lane, ticket, now, least, busy, cold)
            if choice is not None:
                return choice
        return self._take(lane, ticket, now, open_, least)

    def _weigh(self, engines: list[Engine], ticket: Ticket, now: float) -> _Weighed:
        """Sort engines by what they could do now. This runs for each engine and ticket, so it makes few calls."""
        model, options, size = ticket.model, ticket.load_options, ticket.size
        open_: list[tuple[Engine, float]] = []
        busy: list[tuple[Engine, float]] = []
        cold: list[Engine] = []
        least = hope = _NEVER
        for engine in engines:
            known, running = engine.known, engine.running
            is_clear = model in known.warm and not running.loaded_as and not running.loading
            if not is_clear and not engine.is_warm(model, options):
                cold.append(engine)
                continue
            count, limit, learned = running.count, engine.limit, engine.learned
            pace = learned.paces.get(model)
            if pace is None or not pace.prompt.count:
                seconds = self._guess(engine, model, size)
            else:
                together = count + 1 if count < limit else limit or 1
                seconds = known.round_trip + pace.prompt.seconds[_BANDS[together] if together < 64 else _LAST] * size
            if engine.is_unproven:
                seconds *= UNPROVEN_WEIGHT
            if (
                count < limit
                and running.rests_until <= now
                and (engine.model_slots >= limit or running.of_model.get(model, 0) < engine.model_slots)
            ):
                if count >= learned.proven and running.of_model.get(model, 0) >= learned.proven:
                    seconds += self._situation.estimates.service_of(engine, model)  # as if it had to wait inside
                open_.append((engine, seconds))
                if seconds < least:
                    least = seconds
                continue
            if running.rests_until > now:
                seconds += running.rests_until - now
            busy.append((engine, seconds))
            if seconds < hope:
                hope = seconds
        return open_, busy, cold, least, hope

    def _take(self, lane: Lane, ticket: Ticket, now: float, open_: list[tuple[Engine, float]], least: float) -> Choice:
        """Return the choice to serve at once, by the engine with the soonest expected first byte."""
        if len(open_) == 1:
            return Choice(Action.SERVE, open_[0][0], only_one(lane), open_)
        rng = self._situation.rng
        if rng.random() < EXPLORE:
            unknown = [each for each, seconds in open_ if self._is_worth_a_try(each, ticket, seconds, least, now)]
            if unknown:
                return Choice(Action.SERVE, rng.choice(unknown), "its pace is not known yet", open_)
        bound = least * TIE
        ties = [engine for engine, seconds in open_ if seconds <= bound]
        if len(ties) == 1:
            return Choice(Action.SERVE, ties[0], "soonest first byte", open_)
        return Choice(Action.SERVE, rng.choice(ties), "one of the soonest", open_)

    @staticmethod
    def _is_worth_a_try(engine: Engine, ticket: Ticket, seconds: float, least: float, now: float) -> bool:
        pace = engine.learned.paces.get(ticket.model)
        is_known = pace is not None and pace.prompt.count > 0 and now - pace.measured_at < STALE
        return (
            not is_known and not engine.running.count and not engine.is_unproven and seconds <= least * WORST_EXPLORED
        )

    def _guess(self, engine: Engine, model: str, size: int) -> float:
        running = engine.running.count
        seconds = self._situation.estimates.first_byte(engine, model, size, running + 1)
        return seconds * UNKNOWN_WEIGHT if running else seconds

    def _look_further(
        self, lane: Lane, ticket: Ticket, now: float, least: float, busy: list[tuple[Engine, float]], cold: list[Engine]
    ) -> Choice | None:
        """Weigh waiting and loading against serving at once; return None when serving is best.

        `least` are the seconds to the first byte of the best engine that could serve now; infinite when none could.
        """
        situation = self._situation
        wait = self._wait(ticket, now, busy, cold, least)
        place = Place()
        if cold and (least == _NEVER or least > LEAST_LOAD):
            place = self._placement.cheapest(ticket, now, [(each, self._cold_seconds(each, ticket)) for each in cold])
        if least < _NEVER:
            if place.engine is not None and place.counts < wait and place.counts * MARGIN < least:
                return _load(place, "loading is sooner than a slow engine", busy, declines=True)
            since = ticket.declined_since
            may_decline = since is None or now - since < least
            if wait * MARGIN < least and may_decline:
                return Choice(Action.WAIT, None, "a faster engine is free sooner", busy, declines=True)
            return None
        if place.engine is not None:
            if place.counts * ELECTIVE < wait or situation.loads.is_starved(ticket, now):
                return _load(place, "soonest to load it", busy)
            if self._is_worth_another(place, place.engine, ticket, now):
                return _load(place, "many have waited for it, longer than a load takes", busy)
        if wait < _NEVER or place.counts < _NEVER:
            return Choice(Action.WAIT, None, "its engines are busy", busy)
        return last_resort(situation, lane, ticket, now)

    def _is_worth_another(self, place: Place, engine: Engine, ticket: Ticket, now: float) -> bool:
        """Should an idle engine load the model as a further copy, although no single ticket waits longer than a load?

        Yes, once tickets have waited for the model for `ELECTIVE` times the load. This is the "ski rental" rule: rent
        until the rents add up to the price, then buy; it never costs much more than the best choice in hindsight.
        """
        if engine.running.count or place.unload:
            return False
        return now - self._situation.queue.pressed_since.get(ticket.model, now) >= place.counts * ELECTIVE

    def _cold_seconds(self, engine: Engine, ticket: Ticket) -> float:
        """Return the seconds to the first byte on an engine after it has loaded the model."""
        seconds = self._situation.estimates.first_byte(engine, ticket.model, ticket.size, engine.running.count + 1)
        return seconds * UNPROVEN_WEIGHT if engine.is_unproven else seconds

    def _wait(
        self, ticket: Ticket, now: float, busy: list[tuple[Engine, float]], cold: list[Engine], least: float
    ) -> float:
        """Return the seconds until the last ticket for this model has its first byte from an engine with the model."""
        model, estimates = ticket.model, self._situation.estimates
        rate, first_byte, after_load = 0.0, _NEVER, _NEVER
        held: dict[str, int] = {}
        for engine in cold:
            if engine.running.loading == model:
                seconds = self._after_load(engine, ticket, now) + self._cold_seconds(engine, ticket)
                after_load = min(after_load, seconds)
        for engine, seconds in busy:
            if seconds * MARGIN < least and engine.limit:
                rate += engine.limit / estimates.service_of(engine, model)
                first_byte = min(first_byte, seconds)
                for each in engine.known.loaded:
                    held[each] = held.get(each, 0) + 1
        if not rate:
            return after_load
        return min(after_load, self._rivals(ticket, held) / rate + first_byte)

    def _after_load(self, engine: Engine, ticket: Ticket, now: float) -> float:
        """Return the seconds until an engine that loads the model has a slot for the last ticket that waits for it."""
        situation, model = self._situation, ticket.model
        expected = situation.estimates.load(engine, model)
        elapsed = now - situation.loads.orders[engine].ordered_at if engine in situation.loads.orders else 0.0
        left = max(expected - elapsed, elapsed / 2)
        waiting = situation.queue.waiting_of.get(model, 0) - engine.model_slots
        return left + max(waiting, 0) * situation.estimates.service_of(engine, model) / engine.model_slots

    def _rivals(self, ticket: Ticket, held: dict[str, int]) -> float:
        """Return how many tickets wait for the same slots, this one included.

        A ticket that other engines can also serve counts as a fraction.

        `held` says how many of the engines in question have a model in memory.
        """
        waiting_of, copies = self._situation.queue.waiting_of, self._situation.fleet.copies
        count = 0.0 if ticket.mark else 1.0
        for model, engines in held.items():
            waiting = waiting_of.get(model)
            if waiting:
                count += waiting * engines / max(copies.get(model, 1), engines)
        return max(count, 1.0)


def _load(place: Place, reason: str, compared: list[tuple[Engine, float]], *, declines: bool = False) -> Choice:
    return Choice(Action.LOAD, place.engine, reason, compared, place.unload, declines)
