"""Expected seconds of an engine, from measurements of this engine, of other engines, and of the whole fleet.

A measurement of the engine with the model counts most. Without one, the estimate is what other engines need for the
model, times how this engine compares with them on other models. Without that, it is a guess from the model's size.
An engine is never believed to be faster than the middle of the fleet before it was measured.
"""

from __future__ import annotations

from itertools import islice
from statistics import median

from hive.dialects.measures import Measured
from hive.fleet.engines import Engine, Fleet
from hive.fleet.pace import FIXED_TOKENS, Curve, Mean, Pace, band, crowd_factor
from hive.scheduling.tickets import Lease

USUAL_PROMPT = 0.002
"""Seconds for a token of a prompt, for a model of `USUAL_BYTES`, before any measurement."""
USUAL_DECODE = 0.03
USUAL_OUTPUT = 250.0
"""Tokens of an answer."""
USUAL_BYTES = 5e9
USUAL_LOAD_RATE = 1e-9
"""Seconds to load a byte: a gigabyte a second."""
LEAST_SERVICE = 0.001
LOAD_OVERHEAD = 1.0
_LARGEST_RATIO = 20.0
_ENOUGH_ENGINES = 32
"""The middle of the fleet is taken from at most this many engines."""
_FRESH_NOTES = 16
"""The fleet's middle is worked out again after this many measurements, sooner while there are few."""
_MANY_MODELS = 4096


class _ModelFacts:
    """The facts about one model across the fleet."""

    __slots__ = ("base", "decode", "engines", "notes", "output", "prompt", "stale_at")

    def __init__(self) -> None:
        self.output = Mean()
        self.notes = 0
        """Measurements so far."""
        self.stale_at = 0
        """The number of measurements at which the middle is worked out again."""
        self.engines = 0
        """How many engines the middle is taken from."""
        self.prompt = USUAL_PROMPT
        """Seconds for a token of a prompt on the engine in the middle."""
        self.base = USUAL_PROMPT
        """The same for an engine of average speed, worked out from all engines and their speeds on other models."""
        self.decode = USUAL_DECODE


class Estimates:
    """Expected seconds, for policies; taught by `note_served` and `note_load`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._models: dict[str, _ModelFacts] = {}
        self._load_rate = Mean()
        self.service = Mean()
        """Seconds that an exchange takes, whatever the model and engine."""

    def first_byte(self, engine: Engine, model: str, size: int, running: int) -> float:
        """Return the seconds to the first byte with the model loaded and `running` exchanges, this one included."""
        pace = engine.learned.paces.get(model)
        if pace is not None and pace.prompt.count:
            return engine.known.round_trip + pace.prompt.seconds[band(running)] * size
        return engine.known.round_trip + self.guessed_prompt(engine, model) * size * crowd_factor(band(running))

    def guessed_prompt(self, engine: Engine, model: str) -> float:
        """Return the seconds for a token of a prompt, alone on an engine that was not measured with the model."""
        facts = self._middle(engine, model)
        return facts.base * engine.learned.relative.value if engine.learned.relative.count else facts.prompt

    def load(self, engine: Engine, model: str) -> float:
        """Return the seconds to load a model."""
        pace = engine.learned.paces.get(model)
        if pace is not None and pace.load.count:
            return pace.load.value
        rate = engine.learned.load_rate if engine.learned.load_rate.count else self._load_rate
        return LOAD_OVERHEAD + size_bytes(engine, model) * (rate.value if rate.count else USUAL_LOAD_RATE)

    def service_of(self, engine: Engine, model: str) -> float:
        """Return the seconds for which an exchange holds a slot of the engine."""
        return max(self._service_of(engine, model), LEAST_SERVICE)

    def _service_of(self, engine: Engine, model: str) -> float:
        if engine.learned.service.count:
            return engine.learned.service.value
        facts = self._middle(engine, model)
        output = facts.output.value if facts.output.count else USUAL_OUTPUT
        pace = engine.learned.paces.get(model)
        if pace is not None and pace.decode.count:
            return output * pace.decode.seconds[1]
        return output * facts.decode * _relative(engine)

    def note_served(self, lease: Lease, measured: Measured, now: float) -> None:
        """Learn from an exchange that was answered to its end."""
        engine, model = lease.engine, lease.ticket.model
        taken = max(now - lease.granted_at, 0.0)
        engine.learned.service.add(taken)
        self.service.add(taken)
        pace = engine.learned.paces.get(model)
        if pace is None:
            pace = engine.learned.paces[model] = Pace()
        pace.measured_at = now
        facts = self._facts(model)
        tokens = lease.ticket.prompt_tokens if measured.prompt_tokens is None else measured.prompt_tokens
        seconds, decode = measured.prompt_seconds, measured.decode_seconds
        if seconds is None and measured.first_byte is not None and not measured.load_seconds:
            seconds = max(measured.first_byte - engine.known.round_trip, 0.0)
        if seconds is not None:
            if pace.is_rough:
                pace.forget_rough()
        elif measured.whole_seconds is not None and measured.prompt_tokens and pace.may_be_rough:
            pace.is_rough = True
            seconds, decode = _split(max(measured.whole_seconds - engine.known.round_trip, 0.0), measured)
        of_band = band(lease.running)
        if seconds is not None:
            pace.prompt.add(of_band, seconds / (tokens + FIXED_TOKENS))
            pace.note_slowest(seconds / (tokens + FIXED_TOKENS))
            facts.notes += 1
            if pace.prompt.count == 1:
                facts.stale_at = 0
            self._compare(engine, pace.prompt, self._middle(engine, model))
        if measured.output_tokens:
            facts.output.add(measured.output_tokens)
            if decode is not None:
                pace.decode.add(of_band, decode / measured.output_tokens)

    def note_load(self, engine: Engine, model: str, seconds: float) -> None:
        """Learn how long a load took."""
        pace = engine.learned.paces.get(model)
        if pace is None:
            pace = engine.learned.paces[model] = Pace()
        pace.load.add(seconds)
        rate = max(seconds - LOAD_OVERHEAD, 0.0) / size_bytes(engine, model)
        engine.learned.load_rate.add(rate)
        self._load_rate.add(rate)

    def _compare(self, engine: Engine, curve: Curve, facts: _ModelFacts) -> None:
        if facts.engines > 1:
            ratio = curve.seconds[1] / max(facts.base, 1e-9)
            engine.learned.relative.add(min(max(ratio, 1 / _LARGEST_RATIO), _LARGEST_RATIO))

    def _facts(self, model: str) -> _ModelFacts:
        facts = self._models.get(model)
        if facts is None:
            if len(self._models) >= _MANY_MODELS:
                self._models.clear()
            facts = self._models[model] = _ModelFacts()
        return facts

    def _middle(self, engine: Engine, model: str) -> _ModelFacts:
        """Return the facts of a model, its middle brought up to date now and then."""
        facts = self._facts(model)
        if facts.notes >= facts.stale_at:
            facts.stale_at = facts.notes + min(max(facts.notes, 1), _FRESH_NOTES)
            having = self._fleet.having(model)
            known = ((each, each.learned.paces.get(model)) for each in having)
            measured = ((each, pace) for each, pace in known if pace is not None and pace.prompt.count)
            paces = list(islice(measured, _ENOUGH_ENGINES))
            prompts = [pace.prompt.seconds[1] for _, pace in paces]
            bases = [pace.prompt.seconds[1] / _relative(each) for each, pace in paces]
            decodes = [pace.decode.seconds[1] / _relative(each) for each, pace in paces if pace.decode.count]
            factor = size_bytes(engine, model) / USUAL_BYTES
            facts.engines = len(paces)
            facts.prompt = median(prompts) if prompts else USUAL_PROMPT * factor
            facts.base = median(bases) if bases else facts.prompt
            facts.decode = median(decodes) if decodes else USUAL_DECODE * factor
        return facts


def _split(seconds: float, measured: Measured) -> tuple[float, float]:
    """Split the seconds of an answer that came in one piece into those of its prompt and those of its tokens."""
    prompt = ((measured.prompt_tokens or 0) + FIXED_TOKENS) * USUAL_PROMPT
    decode = (measured.output_tokens or 0) * USUAL_DECODE
    return seconds * prompt / (prompt + decode), seconds * decode / (prompt + decode)


def _relative(engine: Engine) -> float:
    return engine.learned.relative.value if engine.learned.relative.count else 1.0


def size_bytes(engine: Engine, model: str) -> float:
    """Return how large a model is, as the engine lists it, else a usual size."""
    known = engine.known.models.get(model)
    return float(known.size_bytes) if known is not None and known.size_bytes > 0 else USUAL_BYTES
