"""Several frontends over one fleet: each has its own policy and its own nodes."""

from __future__ import annotations

from hive.dialects.tasks import SHOW
from hive.fleet.engines import Engine, Health
from hive.scheduling.frontends import Frontend
from hive.scheduling.loads import AGEING
from hive.scheduling.survey import GONE_AFTER
from hive.scheduling.waits import why_not, why_waiting

from .fleets import Floor


def two_frontends() -> tuple[Floor, Frontend, Frontend]:
    """Return a fleet of engines `a`, `b` and `c`, and frontends over `a` and `b` and over `b` and `c`."""
    floor = Floor()
    for node in "abc":
        floor.add(node, loaded="m")
    first = Frontend("first", policy="round_robin", nodes=frozenset("ab"))
    return floor, first, Frontend("second", policy="least_busy", nodes=frozenset("bc"))


def test_a_frontend_without_nodes_admits_every_engine() -> None:
    engines = [Engine(node, f"http://{node}") for node in "ab"]
    assert Frontend().admitted(engines) == engines
    assert Frontend(nodes=frozenset("b")).admitted(engines) == engines[1:]
    assert [Frontend(nodes=frozenset("b")).admits(engine) for engine in engines] == [False, True]


def test_each_ticket_is_served_by_the_policy_and_the_nodes_of_its_frontend() -> None:
    floor, first, second = two_frontends()
    leases = [floor.ask(frontend=frontend)[1] for frontend in (first, first, second)]
    assert all(lease is not None for lease in leases)
    got = [(lease.engine.node, lease.policy) for lease in leases if lease is not None]
    assert sorted(got[:2]) == [("a", "round_robin"), ("b", "round_robin")]
    assert got[2] == ("c", "least_busy")


def test_a_frontend_without_a_free_engine_holds_no_other_frontend_up() -> None:
    floor, first, second = two_frontends()
    held = [floor.ask(frontend=first)[1] for _ in range(2)]
    waits, lease = floor.ask(frontend=first)
    assert lease is None
    other, lease = floor.ask(frontend=second)
    assert lease is None, "a ticket for the same model waits already"
    (lease,) = floor.dispatcher.serve(0.0).leases
    assert (lease.ticket, lease.engine.node) == (other, "c")
    assert held[0] is not None
    floor.dispatcher.release(held[0])
    (lease,) = floor.dispatcher.serve(1.0).leases
    assert lease.ticket is waits


def test_a_shared_engine_goes_to_the_oldest_ticket_of_any_frontend() -> None:
    floor, first, second = two_frontends()
    held = [floor.ask(frontend=frontend)[1] for frontend in (first, first, second)]
    oldest, _ = floor.ask(frontend=second)
    floor.ask(frontend=first)
    shared = next(lease for lease in held if lease is not None and lease.engine.node == "b")
    floor.dispatcher.release(shared)
    (lease,) = floor.dispatcher.serve(1.0).leases
    assert (lease.ticket, lease.engine.node, lease.policy) == (oldest, "b", "least_busy")


def test_frontends_with_the_same_policy_share_its_memory_of_turns() -> None:
    floor = Floor()
    for node in "abcd":
        floor.add(node, loaded="m", slots=4)
    frontends = [Frontend(name, policy="round_robin") for name in ("first", "second")]
    nodes = []
    for number in range(4):
        _, lease = floor.ask(frontend=frontends[number % 2])
        assert lease is not None
        nodes.append(lease.engine.node)
    assert sorted(nodes) == list("abcd")


def test_a_ticket_without_a_slot_goes_to_a_node_of_its_frontend() -> None:
    floor, first, _ = two_frontends()
    leases = [floor.ask(frontend=first, task=SHOW)[1] for _ in range(20)]
    assert {lease.engine.node for lease in leases if lease is not None} == {"a", "b"}
    assert {lease.policy for lease in leases if lease is not None} == {"round_robin"}


def test_the_only_admitted_engine_is_the_only_choice() -> None:
    floor, _, _ = two_frontends()
    _, lease = floor.ask(frontend=Frontend("third", nodes=frozenset("c")))
    assert lease is not None
    assert (lease.engine.node, lease.reason) == ("c", "only choice")


def test_a_ticket_whose_frontend_has_no_node_with_the_model_is_refused_after_a_moment() -> None:
    floor, _, _ = two_frontends()
    elsewhere = Frontend("third", nodes=frozenset("x"))
    ticket, lease = floor.ask(frontend=elsewhere)
    assert lease is None
    assert why_waiting(ticket, floor.fleet.engines, 0.0) == "no node lists its model any more"
    assert "frontend" in why_not(floor.fleet.engines[0], ticket, 0.0)
    assert floor.dispatcher.step(0.5).refused == []
    ((refused, fault),) = floor.dispatcher.step(GONE_AFTER + 1.0).refused
    assert (refused, fault.kind.code) == (ticket, "no_node")
    assert "no node has it any more" in fault.message


def test_a_refusal_names_only_nodes_of_the_frontend() -> None:
    floor, first, _ = two_frontends()
    for engine in floor.fleet.engines:
        floor.fleet.set_health(engine, Health.DOWN, "it is off")
    ticket = floor.ticket(frontend=first)
    ticket.deadline = 5.0
    assert floor.dispatcher.offer(ticket, 0.0) is None
    ((_, fault),) = floor.dispatcher.step(5.0).refused
    assert "a is down" in fault.message
    assert "c is down" not in fault.message


def test_a_ticket_starves_even_if_its_model_is_served_on_nodes_of_another_frontend() -> None:
    floor = Floor()
    floor.add("a", loaded="m")
    cold = floor.add("b", "mn", loaded="n")
    here, there = Frontend("here", nodes=frozenset("a")), Frontend("there", nodes=frozenset("b"))
    _, running = floor.ask("n", frontend=there)
    assert running is not None
    starved, lease = floor.ask("m", frontend=there)
    assert lease is None
    loads = list(floor.dispatcher.serve(0.0).loads)
    now = 0.0
    while now < AGEING + 5.0 and not loads:
        now += 1.0
        floor.ask("m", now=now, frontend=here)
        step = floor.dispatcher.step(now)
        loads += step.loads
        assert [lease.engine.node for lease in step.leases] == ["a"]
        floor.dispatcher.release(step.leases[0])
    assert [(order.engine, order.model) for order in loads] == [(cold, "m")]
    assert now >= AGEING
    assert starved.is_waiting
