"""A ticket waits for a slot; a lease is one slot held; a decision says why it is a slot of this engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

import msgspec

from hive.auth.principals import Principal
from hive.dialects.tasks import Dialect, Task
from hive.fleet.engines import Engine
from hive.fleet.pace import FIXED_TOKENS
from hive.scheduling.frontends import Frontend


class Claim(Enum):
    """What a ticket takes of its engine."""

    __hash__ = object.__hash__  # Enum's own is written in Python: every ticket asks for it

    SLOT = "slot"
    NOTHING = "nothing"
    RELAY = "relay"
    """A place among the bounded number of exchanges that an engine passes on to another machine."""
    UNLOAD = "unload"
    """Neither slot nor load: the request only ends its model's stay in memory (`ollama stop`)."""


def claim_of(task: Task, *, unloads: bool = False, is_relayed: bool = False) -> Claim:
    """Return what a ticket for a task takes; `is_relayed`: its engines only pass the request on to another machine."""
    if unloads:
        return Claim.UNLOAD
    if not task.takes_slot:
        return Claim.NOTHING
    return Claim.RELAY if is_relayed else Claim.SLOT


LaneKey = tuple[str, Task, Dialect, Claim, Frontend, str, frozenset[int]]
"""All that decides which engines accept a ticket; the last two are its load options and the engines that failed it."""
OrderKey = tuple[float, int]
"""A ticket's place among the tickets that wait: the smallest key is served first. A rank, then the arrival number."""
UNORDERED: OrderKey = (float("inf"), 0)
"""The key of a ticket that has not waited yet."""
DEFAULT_FRONTEND = Frontend()
NO_PRINCIPAL = Principal("", frozenset())
_NO_ENGINES: frozenset[int] = frozenset()


class Ticket(msgspec.Struct, eq=False):
    """One exchange's request for a slot. Times are by the hub's clock, in seconds."""

    model: str
    """Canonical name."""
    task: Task
    dialect: Dialect
    deadline: float
    claim: Claim = Claim.SLOT
    frontend: Frontend = DEFAULT_FRONTEND
    principal: Principal = NO_PRINCIPAL
    prompt_tokens: int = 200
    """An estimate of its prompt's length: a quarter of the body's bytes, if nothing better is known."""
    load_options: str = ""
    """The options that decide how a model is loaded (`num_ctx` and its kin), in one spelling; "" for the defaults."""
    number: int = 0
    """Its number in the order of arrival, from 1; kept when it comes back from a busy engine. 0: not offered yet."""
    order: OrderKey = UNORDERED
    """Its place among the tickets that wait, made by `hive.scheduling.order`; the queue's own."""
    since: float = 0.0
    """When it was first offered."""
    excluded: set[Engine] = msgspec.field(default_factory=set)
    """Engines that failed it."""
    mark: int = 0
    """Marks its entries in the queue while it waits, else 0; the queue's own."""
    declined_since: float | None = None
    """Since when free slots are left unused for it, because waiting is expected to be sooner; None: they are not."""

    @property
    def lane(self) -> LaneKey:
        """Return the key of its lane: all tickets of a lane are accepted by the same engines."""
        excluded = frozenset(map(id, self.excluded)) if self.excluded else _NO_ENGINES
        return self.model, self.task, self.dialect, self.claim, self.frontend, self.load_options, excluded

    @property
    def takes_slot(self) -> bool:
        """Does it take a slot of its engine?"""
        return self.claim is Claim.SLOT

    @property
    def size(self) -> int:
        """Return the tokens that its prompt counts as in estimates."""
        return self.prompt_tokens + FIXED_TOKENS

    @property
    def is_waiting(self) -> bool:
        """Is it in the queue?"""
        return bool(self.mark)

    def accepts(self, engine: Engine) -> bool:
        """May this engine serve the ticket, slots aside?"""
        if self.excluded and engine in self.excluded:
            return False
        return engine.route_for(self.task, self.dialect) is not None and self.frontend.admits(engine)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine that was considered for a ticket."""

    node: str
    engine: str | None
    """A joined node's own name for it."""
    seconds: float | None
    """Expected until the first byte; the number that a policy without estimates compared. None for an only choice."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a lease is on this engine."""

    policy: str
    reason: str
    node: str
    engine: str | None
    running: int
    """How many exchanges ran on the engine then, this one included."""
    candidates: tuple[Candidate, ...]
    failure: str = ""
    """Why its attempt brought no whole answer; "" for a whole one."""
    waited_for: str = ""
    """What its ticket waited for before, as it was when the wait began; "" when it did not wait."""


class Lease(msgspec.Struct, eq=False):
    """The right to run one exchange on an engine; give it back with `Dispatcher.release`."""

    engine: Engine
    ticket: Ticket
    reason: str
    """Why this engine, in a few words."""
    granted_at: float = 0.0
    running: int = 1
    """How many exchanges ran on the engine then, this one included."""
    of_model: int = 1
    """How many of them with the same model."""
    policy: str = ""
    compared: Sequence[tuple[Engine, float]] = ()
    """The engines that were considered, each with its expected seconds; empty when there was only one."""
    ended_before: int = 0
    """How many exchanges had ended on the engine then."""
    is_held: bool = True
    failure: str = ""
    """Why its attempt brought no whole answer."""
    waited_for: str = ""
    """What its ticket waited for before; "" when it did not wait."""

    @property
    def decision(self) -> Decision:
        """Return the decision in the form that is kept and shown."""
        engine = self.engine
        compared = self.compared or ((engine, None),)
        candidates = tuple(Candidate(each.node, each.id or None, seconds) for each, seconds in compared)
        return Decision(
            self.policy,
            self.reason,
            engine.node,
            engine.id or None,
            self.running,
            candidates,
            self.failure,
            self.waited_for,
        )


class LoadEnd(StrEnum):
    """How a load ended."""

    DONE = "done"
    """The model is in memory."""
    FAILED = "failed"
    """The model is not in memory: the same load is not tried again on this engine for a while."""
    BUSY = "busy"
    """The engine was too busy to load: it rests, and nothing is learned of the load."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadOrder:
    """The order that an engine loads a model, by an exchange of its own that no client's departure ends."""

    engine: Engine
    model: str
    load_options: str
    reason: str
    ordered_at: float
    unload: tuple[str, ...] = ()
    """Models to unload first, so that the engine need not choose which ones it evicts."""
    held: frozenset[str] = frozenset()
    """The other models in its memory; empty when they are not known for sure."""
    is_harmless: bool = True
    """Can the load evict no model in use?"""
