"""Why a ticket waits: the sentence on the whole, and what keeps each engine from serving it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hive.dialects.tasks import CHAT, RERANK, Dialect
from hive.fleet.engines import Engine, Health
from hive.scheduling.tickets import Ticket
from hive.scheduling.waits import why_not, why_waiting

from .fleets import Floor

NOW = 100.0


def test_a_ticket_whose_model_is_gone() -> None:
    assert why_waiting(Floor().ticket(), [], NOW) == "no node lists its model any more"


def down(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.fleet.set_health(engine, Health.DOWN, "connection refused")


def draining(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.fleet.set_health(engine, Health.DRAINING)


def failed(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    ticket.excluded.add(engine)


def lacks_route(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    ticket.task, ticket.dialect = RERANK, Dialect.OPENAI


def loads_it(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    engine.running.loading = "m"


def loads_another(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    engine.running.loading, engine.running.loads_alone = "n", True


def rests(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.dispatcher.rest(engine, NOW + 0.5)


def full(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.ask(now=NOW)


def full_for_the_model(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.load(engine, "m", "n")
    engine.limit, engine.model_slots = 2, 1
    floor.ask(now=NOW)


def cold(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    floor.load(engine)


def declined(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    ticket.declined_since = NOW - 1


def free(floor: Floor, engine: Engine, ticket: Ticket) -> None:
    """Nothing stands in the way: it will be served in this very moment."""


OUT_OF_SERVICE = "no node that could serve it is in service"
BUSY = "its engines are busy"
WHYS = {
    down: (OUT_OF_SERVICE, "connection refused"),
    draining: (OUT_OF_SERVICE, "it is draining"),
    failed: ("every node that has its model has failed it, or lacks the route", "it failed this request"),
    lacks_route: (
        "every node that has its model has failed it, or lacks the route",
        "it does not serve /v1/rerank",
    ),
    loads_it: ("its model is being loaded", "it loads the model"),
    loads_another: (BUSY, "it loads n"),
    rests: ("its engines rest after they were busy or failed", "it was busy or failed, and rests for 0.5 s"),
    full: (BUSY, "its slots are taken"),
    full_for_the_model: (BUSY, "its slots for this model are taken"),
    cold: (BUSY, "the model is not in its memory, and a load is not worth it or would cost others theirs"),
    declined: ("a faster engine is expected to be free sooner",) * 2,
    free: (BUSY, "it has a free slot"),
}


@pytest.mark.parametrize(("happens", "said"), WHYS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_each_reason_has_its_words(happens: Callable[[Floor, Engine, Ticket], None], said: tuple[str, str]) -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    ticket = Ticket("m", CHAT, Dialect.OLLAMA, NOW + 100)
    happens(floor, engine, ticket)
    assert (why_waiting(ticket, [engine], NOW), why_not(engine, ticket, NOW)) == said


def test_one_engine_that_rests_is_no_reason_while_another_is_busy() -> None:
    floor = Floor()
    one, other = floor.add("a", loaded="m"), floor.add("b", loaded="m")
    rests(floor, one, floor.ticket())
    assert why_waiting(floor.ticket(), [one, other], NOW) == BUSY


def test_a_doubtful_engine_is_in_service_while_there_is_no_other() -> None:
    floor = Floor()
    engine = floor.add("a", loaded="m")
    floor.fleet.set_health(engine, Health.DOUBTFUL, "its streams are silent")
    floor.ask(now=NOW)
    assert why_waiting(floor.ticket(), [engine], NOW) == BUSY
    assert why_not(engine, floor.ticket(), NOW) == "its slots are taken"
