"""Small fleets for tests of the scheduler."""

from __future__ import annotations

import random

from hive.dialects.measures import Measured
from hive.dialects.tasks import CHAT, Dialect, Task
from hive.fleet.engines import Engine, Fleet, Health
from hive.fleet.kinds import EngineKind
from hive.fleet.known import EngineReport, LoadedModel, Model
from hive.scheduling.dispatcher import Dispatcher
from hive.scheduling.frontends import Frontend
from hive.scheduling.tickets import Lease, Ticket, claim_of

NEVER = 1e9
GB = 1_000_000_000


def report(
    *models: str,
    loaded: tuple[str, ...] = (),
    kind: EngineKind = EngineKind.OLLAMA,
    version: str = "0.33.0",
    size: int = 5 * GB,
) -> EngineReport:
    """Return what an engine would say that has these models."""
    listed = tuple(Model(key, key, f"sha256:{key}", size, "", b"{}", b"{}") for key in models)
    return EngineReport(kind, version, listed, tuple(LoadedModel(key, "", b"{}") for key in loaded))


class Floor:
    """A dispatcher over engines that tests name: `a`, `b`, ...; all are Ollamas and ready."""

    def __init__(self, *, policy: str = "best", limit: int = 100, seed: int = 1) -> None:
        self.fleet = Fleet()
        self.frontend = Frontend(policy=policy)
        self.dispatcher = Dispatcher(self.fleet, limit, rng=random.Random(seed))

    def add(
        self, node: str, models: str = "m", *, loaded: str = "", slots: int | None = 1, size: int = 5 * GB
    ) -> Engine:
        """Add an engine; models are single letters."""
        engine = Engine(node, f"http://{node}", configured_slots=slots, health=Health.READY)
        self.fleet.engines.append(engine)
        self.fleet.learn(engine, report(*models, loaded=tuple(loaded), size=size))
        return engine

    def load(self, engine: Engine, *models: str) -> None:
        """Have an engine list these models as loaded."""
        self.fleet.learn_loaded(engine, [LoadedModel(key, "", b"{}") for key in models])

    def ticket(self, model: str = "m", task: Task = CHAT, dialect: Dialect = Dialect.OLLAMA, **more: object) -> Ticket:
        """Return a ticket that waits as long as it takes."""
        more.setdefault("frontend", self.frontend)
        return Ticket(model, task, dialect, NEVER, claim=claim_of(task), **more)  # type: ignore[arg-type]

    def ask(self, model: str = "m", now: float = 0.0, **more: object) -> tuple[Ticket, Lease | None]:
        """Offer a new ticket."""
        ticket = self.ticket(model, **more)  # type: ignore[arg-type]
        return ticket, self.dispatcher.offer(ticket, now)

    def teach(self, engine: Engine, model: str = "m", *, seconds: float = 0.1, service: float = 1.0) -> None:
        """Have an engine serve some exchanges with this time to the first byte for 200 tokens, alone."""
        for _ in range(5):
            lease = Lease(engine, self.ticket(model), "", granted_at=0.0)
            measured = Measured(prompt_tokens=200, prompt_seconds=seconds, output_tokens=100, decode_seconds=1.0)
            self.dispatcher.estimates.note_served(lease, measured, service)
