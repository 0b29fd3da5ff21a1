"""Which engine may load which model now: one load at a time, and none that evicts a model in use.

An engine chooses itself which models it evicts, idle ones first, and it does not say how much memory is left. A model
is known to fit when the size of the memory was stated, or when as many bytes of models were in memory together before.
The load of any other model waits until it can evict no model with which an exchange runs or for which a ticket waits.
A ticket may break this rule when its model was not served for `AGEING` seconds: so no ticket starves.
"""

from __future__ import annotations

from collections.abc import Callable

from hive.fleet.engines import Engine
from hive.fleet.pace import Mean
from hive.scheduling.estimates import size_bytes
from hive.scheduling.lanes import Wish, wish_of
from hive.scheduling.ticket_queue import TicketQueue
from hive.scheduling.tickets import LoadEnd, LoadOrder, Ticket

AGEING = 60.0
FAILED_REST = 30.0
"""A load that failed is not ordered again for this many seconds; a ticket may go to that engine and hear the reason."""
EVICTED_AFTER = 2.0
"""This many seconds after a load began, the engine has evicted all models that it must."""
FRESH_LISTING = 5.0
"""A listing this many seconds old shows what a load evicts; of an older one, a model may have expired since."""
FORGOTTEN_AFTER = 600.0
"""How many seconds the hub remembers that models did not fit together."""
IN_MEMORY = 1.2
"""In memory a model takes about this many times the size of its file."""
_NEVER = float("-inf")


class Loads:
    """The loads that run, and the rules for others."""

    def __init__(self, queue: TicketQueue) -> None:
        self._queue = queue
        self.orders: dict[Engine, LoadOrder] = {}
        self.count_of: dict[str, int] = {}
        """How many loads run, by model."""
        self.begun_at: dict[Wish, float] = {}
        """When the newest load for a wish began; forgotten after `AGEING`."""
        self.waited = Mean()
        """Seconds that tickets waited before a load was ordered for them."""
        self._unsure: set[Engine] = set()
        """Engines that were not yet asked which models their last load has evicted."""
        self._failed: dict[tuple[Engine, str, str], float] = {}
        """The time before which a failed load is not tried again, by engine, model and load options."""

    def may_load(self, engine: Engine, ticket: Ticket, now: float) -> bool:
        """May this engine load the ticket's model now?"""
        if not engine.loads_models or engine.running.loading or engine.running.rests_until > now:
            return False
        if self._failed and self.has_failed(engine, ticket, now):
            return False
        return self._is_harmless(engine, ticket.model) or self.is_starved(ticket, now)

    def may_load_blindly(self, engine: Engine, ticket: Ticket, now: float) -> bool:
        """The same for a policy that learns nothing of memories: without a stated size the engine must be idle."""
        is_known = engine.known.memory_bytes is not None
        return (is_known or not engine.running.count or self.is_starved(ticket, now)) and self.may_load(
            engine, ticket, now
        )

    def is_starved(self, ticket: Ticket, now: float) -> bool:
        """Has the ticket waited for `AGEING` seconds without a ticket of its wish served, or a load for it begun?"""
        if now - ticket.since < AGEING:
            return False
        wish = wish_of(ticket.lane)
        return now - max(self._queue.served_at.get(wish, _NEVER), self.begun_at.get(wish, _NEVER)) >= AGEING

    def has_failed(self, engine: Engine, ticket: Ticket, now: float) -> bool:
        """Did the load that the ticket needs fail on this engine a moment ago?"""
        until = self._failed.get((engine, ticket.model, ticket.load_options))
        return until is not None and now < until

    @staticmethod
    def fits(engine: Engine, model: str) -> bool:
        """Is one more model known to fit into an engine's memory?"""
        held = sum(size_bytes(engine, each) for each in {*engine.known.loaded, *engine.running.loaded_as, model})
        return held <= room_bytes(engine)

    def note_listing(self, engine: Engine, now: float) -> bool:
        """Learn from a listing of an engine's memory; return whether the engine may do other work during its load now.

        An engine evicts before it loads. So models that are listed `EVICTED_AFTER` seconds after the load began stay.
        """
        engine.learned.listed_at = now
        if now - engine.learned.full_at > FORGOTTEN_AFTER:
            engine.learned.full_bytes = float("inf")
        order = self.orders.get(engine)
        if order is None:
            self._unsure.discard(engine)
            return False
        if now - order.ordered_at < EVICTED_AFTER:
            return False
        self._unsure.discard(engine)
        if not order.held.issubset(engine.known.loaded):
            engine.learned.full_bytes = sum(size_bytes(engine, each) for each in {*order.held, order.model})
            engine.learned.full_at = now
            engine.learned.proven_bytes = min(engine.learned.proven_bytes, int(engine.learned.full_bytes) - 1)
        if not engine.running.loads_alone or (engine.running.count and not order.is_harmless):
            return False
        engine.running.loads_alone = False
        engine.apply_slots()
        return True

    def room_for(self, engine: Engine, model: str, loss: Callable[[str], float]) -> tuple[str, ...] | None:
        """Return the models to unload so that a model is known to fit, the least missed first; None if none will do.

        Models in use stay: those with which an exchange runs, and those for which a ticket waits. Of an engine without
        a stated size of memory, the models that it held together are known to fit; while it is idle, it may load one
        more model to show that it holds more.
        """
        sizes = {each: size_bytes(engine, each) for each in {*engine.known.loaded, *engine.running.loaded_as, model}}
        room = room_bytes(engine)
        held = sum(sizes.values())
        if held <= room:
            return ()
        may_show_more = engine.known.memory_bytes is None and held <= (room + engine.learned.full_bytes) / 2
        if may_show_more and self._is_harmless(engine, model):
            return None
        idle = [each for each in engine.known.loaded if each != model and not is_running(engine, each)]
        idle.sort(key=loss)
        chosen: list[str] = []
        for each in idle:
            if not self._is_wanted(engine, each):
                chosen.append(each)
                held -= sizes[each]
                if held <= room:
                    return tuple(chosen)
        return None

    def begin(self, engine: Engine, ticket: Ticket, reason: str, now: float, unload: tuple[str, ...] = ()) -> LoadOrder:
        """Order a load."""
        self.waited.add(max(now - ticket.since, 0.0))
        is_sure = engine not in self._unsure and now - engine.learned.listed_at <= FRESH_LISTING
        held = frozenset(engine.known.loaded).difference(unload) if is_sure else frozenset()
        order = LoadOrder(
            engine,
            ticket.model,
            ticket.load_options,
            reason,
            now,
            unload,
            held,
            self._is_harmless(engine, ticket.model),
        )
        self.orders[engine] = order
        self.begun_at = {wish: begun for wish, begun in self.begun_at.items() if now - begun < AGEING}
        self.begun_at[wish_of(ticket.lane)] = now
        self.count_of[ticket.model] = self.count_of.get(ticket.model, 0) + 1
        self._unsure.add(engine)
        engine.running.loading = ticket.model
        is_anew = ticket.model in engine.known.warm  # with other options: what runs must end first
        engine.running.loads_alone = is_anew or (not unload and not self.fits(engine, ticket.model))
        engine.apply_slots()
        return order

    def finish(self, order: LoadOrder, end: LoadEnd, now: float) -> bool:
        """Take note of a load's end; return False for an order that is not under way."""
        engine = order.engine
        if self.orders.get(engine) is not order:
            return False
        del self.orders[engine]
        self.count_of[order.model] -= 1
        if not self.count_of[order.model]:
            del self.count_of[order.model]
        engine.running.loading, engine.running.loads_alone = "", False
        self._failed = {key: until for key, until in self._failed.items() if now < until}
        if end is LoadEnd.DONE:
            engine.running.loaded_as[order.model] = order.load_options
        elif end is LoadEnd.FAILED:
            self._failed[engine, order.model, order.load_options] = now + FAILED_REST
        engine.apply_slots()
        return True

    def _is_harmless(self, engine: Engine, model: str) -> bool:
        """Will a load evict no model in use, whichever models the engine chooses?

        It evicts idle models first. So a load is harmless when no ticket waits for those, and they make room enough.
        """
        if self.fits(engine, model):
            return model not in engine.running.of_model  # else it is there already, and would be loaded anew
        if engine.running.count:
            kept = {*engine.running.of_model, model}
            if model in engine.running.of_model or sum(size_bytes(engine, each) for each in kept) > room_bytes(engine):
                return False
        return not any(
            self._is_wanted(engine, each)
            for each in engine.known.loaded
            if each != model and not is_running(engine, each)
        )

    def _is_wanted(self, engine: Engine, model: str) -> bool:
        """Does a ticket that this engine could serve wait for the model?"""
        names = engine.known.names_of(model)
        lanes = [lane for name in names for lane in self._queue.by_model.get(name, ())]
        return any(lane.takes_slot and lane.head().accepts(engine) for lane in lanes)


def is_running(engine: Engine, model: str) -> bool:
    """Does an exchange with the model run, under any of its names?"""
    return not engine.running.of_model.keys().isdisjoint(engine.known.names_of(model))


def room_bytes(engine: Engine) -> float:
    """Return how many bytes of models an engine is known to hold together: stated and not disproved, or seen."""
    told = (engine.known.memory_bytes or 0) / IN_MEMORY
    return max(float(engine.learned.proven_bytes), min(told, max(engine.learned.full_bytes - 1, told / 2)))
