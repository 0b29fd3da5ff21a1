"""The faults that an engine can have: their table, their written form, and the requests that each one strikes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from hive.sim.options import OptionError


class FaultKind(StrEnum):
    """Each fault by the name that users write."""

    FREEZE = "freeze"
    FREEZE_STREAM = "freeze-stream"
    DROP = "drop"
    RESET = "reset"
    CUT_LINE = "cut-line"
    SLOW = "slow"
    ERROR_500 = "error-500"
    BUSY = "busy"
    MALFORMED = "malformed"
    ERROR_LINE = "error-line"
    NO_END = "no-end"
    REFUSE = "refuse"
    TRICKLE = "trickle"
    WRONG_DIGEST = "wrong-digest"
    LYING_LENGTH = "lying-length"
    ENDLESS_HEADERS = "endless-headers"
    BAD_CHUNK = "bad-chunk"
    EXTRA_BYTES = "extra-bytes"
    EARLY_HINTS = "early-hints"
    CLOSE_DELIMITED = "close-delimited"
    HEAD_THEN_SILENCE = "head-then-silence"
    LOST_MODEL = "lost-model"
    BAD_CREDENTIALS = "bad-credentials"
    LOAD_FAILS = "load-fails"


class Reach(Enum):
    """Which requests a fault strikes when it is set without a path."""

    EVERY = "every request, probes included"
    WORK = "requests that make a model work"
    TAGS = "the lists of models"
    LISTENER = "new connections"


class Argument(Enum):
    """What may follow the colon in a fault's written form."""

    NONE = "nothing"
    TOKENS = "a number of tokens"
    SECONDS = "seconds"
    FACTOR = "a factor"
    BYTES = "a number of bytes, may be negative"
    STATUS = "100 or 103"
    TEXT = "a text"


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One row of the table. `number` and `text` are the defaults of the argument."""

    effect: str
    argument: Argument = Argument.NONE
    number: float = 0.0
    text: str = ""
    reach: Reach = Reach.WORK


_TOKENS = Argument.TOKENS
_EVERY = Reach.EVERY
SECOND_ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra"

FAULTS: Mapping[FaultKind, FaultRow] = {
    FaultKind.FREEZE: FaultRow(
        "accepts and answers nothing, begun streams stop too", Argument.SECONDS, math.inf, reach=_EVERY
    ),
    FaultKind.FREEZE_STREAM: FaultRow("a stream stops after so many tokens, without an end", _TOKENS, 1),
    FaultKind.DROP: FaultRow("the connection closes after so many tokens", _TOKENS, 1),
    FaultKind.RESET: FaultRow("the connection is reset (RST) after so many tokens", _TOKENS, 1),
    FaultKind.CUT_LINE: FaultRow("the connection closes inside the line after so many tokens", _TOKENS, 1),
    FaultKind.SLOW: FaultRow("first token and all others take so many times longer", Argument.FACTOR, 10),
    FaultKind.ERROR_500: FaultRow("500 with this text", Argument.TEXT, text="simulated failure"),
    FaultKind.BUSY: FaultRow("503 in Ollama's words for a full queue"),
    FaultKind.MALFORMED: FaultRow("one line that is no JSON after so many tokens", _TOKENS, 1),
    FaultKind.ERROR_LINE: FaultRow("an error line after so many tokens, then a clean end", _TOKENS, 1),
    FaultKind.NO_END: FaultRow("the stream ends cleanly without its end mark, after so many tokens", _TOKENS, math.inf),
    FaultKind.REFUSE: FaultRow("the listening socket is closed", reach=Reach.LISTENER),
    FaultKind.TRICKLE: FaultRow("one byte every so many seconds", Argument.SECONDS, 0.05, reach=_EVERY),
    FaultKind.WRONG_DIGEST: FaultRow("the lists show another digest for each model", reach=Reach.TAGS),
    FaultKind.LYING_LENGTH: FaultRow("Content-Length is wrong by so many bytes", Argument.BYTES, 10, reach=_EVERY),
    FaultKind.ENDLESS_HEADERS: FaultRow("the head never ends", reach=_EVERY),
    FaultKind.BAD_CHUNK: FaultRow("a chunk size that is no number after so many tokens", _TOKENS, 1),
    FaultKind.EXTRA_BYTES: FaultRow(
        "these bytes follow the end of the message", Argument.TEXT, text=SECOND_ANSWER, reach=_EVERY
    ),
    FaultKind.EARLY_HINTS: FaultRow("an informational answer precedes the head", Argument.STATUS, 103, reach=_EVERY),
    FaultKind.CLOSE_DELIMITED: FaultRow("no length, no chunks: the connection ends the body", reach=_EVERY),
    FaultKind.HEAD_THEN_SILENCE: FaultRow("the head, and nothing after it", Argument.SECONDS, math.inf),
    FaultKind.LOST_MODEL: FaultRow("404 for a model that it lists"),
    FaultKind.BAD_CREDENTIALS: FaultRow("401"),
    FaultKind.LOAD_FAILS: FaultRow(
        "500, the runner of a model ends while it loads", Argument.TEXT, text="exit status 2"
    ),
}
"""The faults by kind. When several meet at one token, they strike in this order."""


@dataclass(slots=True, eq=False)
class InjectedFault:
    """A fault that is set. `remaining` is the number of requests it still strikes; None: all, until it is cleared."""

    kind: FaultKind
    number: float
    text: str
    remaining: int | None = None
    path: str | None = None
    since: float = 0.0
    """When the fault was set, by the engine's clock."""
    is_cleared: bool = False

    def strikes(self, path: str, *, is_work: bool, is_list: bool) -> bool:
        """Does the fault strike a request for this path, by its reach and count?"""
        if self.is_cleared or self.remaining == 0:
            return False
        if self.path is not None:
            return path == self.path
        reach = FAULTS[self.kind].reach
        return reach is Reach.EVERY or (is_work and reach is Reach.WORK) or (is_list and reach is Reach.TAGS)

    def ends_at(self, struck_at: float) -> float:
        """Return when the fault lets go: counted from its strike if it has a count, else from when it was set."""
        if FAULTS[self.kind].argument is not Argument.SECONDS:
            return math.inf
        return (self.since if self.remaining is None else struck_at) + self.number


Plan = Mapping[FaultKind, InjectedFault]
"""The faults that strike one request."""


def split_fault(text: str) -> tuple[str, str | None]:
    """Return kind and argument of a fault in its written form, `KIND` or `KIND:ARG`."""
    kind, _, argument = text.partition(":")
    return kind, argument or None


def make_fault(
    kind: str,
    argument: str | float | None = None,
    *,
    count: int | None = None,
    path: str | None = None,
    now: float = 0.0,
) -> InjectedFault:
    """Return a fault. Raises OptionError for an unknown name or an argument of the wrong type."""
    if kind not in FAULTS:
        raise OptionError(f"fault '{kind}' is unknown; allowed are {', '.join(FAULTS)}")
    known = FaultKind(kind)
    row = FAULTS[known]
    if count is not None and count < 1:
        raise OptionError(f"fault {kind}: count must be at least 1, got {count}")
    if row.reach is Reach.LISTENER and (count is not None or path is not None):
        raise OptionError(f"fault {kind}: it is about connections, so it takes neither count nor path")
    fault = InjectedFault(known, row.number, row.text, count, path, now)
    if argument is None or argument == "":
        return fault
    if row.argument is Argument.TEXT:
        fault.text = str(argument)
    else:
        fault.number = _number(known, row.argument, argument)
    return fault


def _number(kind: FaultKind, wanted: Argument, argument: str | float) -> float:
    try:
        number = float(argument)
    except ValueError:
        number = math.nan
    wrong = (
        wanted is Argument.NONE
        or not math.isfinite(number)
        or (wanted is not Argument.BYTES and number < 0)
        or (wanted in (Argument.TOKENS, Argument.BYTES) and not number.is_integer())
        or (wanted is Argument.STATUS and number not in (100, 103))
    )
    if wrong:
        raise OptionError(f"fault {kind}: takes {wanted.value}, got '{argument}'")
    return number


@dataclass(slots=True)
class FaultBook:
    """The faults that are set, at most one of each kind. A fault with a used-up count stays until it is cleared."""

    faults: dict[FaultKind, InjectedFault] = field(default_factory=dict)

    def set(self, fault: InjectedFault) -> None:
        """Set a fault. It replaces the fault of its kind."""
        self.clear((fault.kind,))
        self.faults[fault.kind] = fault

    def clear(self, kinds: Iterable[FaultKind] | None = None) -> None:
        """Remove these faults, or all. Requests that a removed fault holds go on."""
        for kind in tuple(self.faults) if kinds is None else kinds:
            if fault := self.faults.pop(kind, None):
                fault.is_cleared = True

    def plan(self, path: str, *, is_work: bool, is_list: bool) -> Plan:
        """Return the faults that strike this arriving request, in the table's order, and count them."""
        if not self.faults:
            return {}
        struck = (
            (kind, self._strike(kind, path, is_work, is_list)) for kind in FAULTS if kind is not FaultKind.LOAD_FAILS
        )
        return {kind: fault for kind, fault in struck if fault}

    def load_failure(self, path: str) -> InjectedFault | None:
        """Return the fault that fails the load for a request with this path, and count it; None if there is none."""
        return self._strike(FaultKind.LOAD_FAILS, path, True, False)

    def _strike(self, kind: FaultKind, path: str, is_work: bool, is_list: bool) -> InjectedFault | None:
        fault = self.faults.get(kind)
        if fault is None or not fault.strikes(path, is_work=is_work, is_list=is_list):
            return None
        if fault.remaining is not None:
            fault.remaining -= 1
        return fault

    def freeze(self, path: str, now: float) -> InjectedFault | None:
        """Return the freeze, if one is set, that stops everything on this path, running streams too."""
        fault = self.faults.get(FaultKind.FREEZE)
        if fault is None or fault.remaining is not None or fault.path not in (None, path):
            return None
        return fault if now < fault.ends_at(now) else None
