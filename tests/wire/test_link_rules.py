"""What both ends of a link decide alike."""

from __future__ import annotations

from hive.wire.link_rules import MAX_LINKS, ArrivalVerdict, judge_arrival, links_for


def test_a_node_keeps_a_few_sockets_more_than_slots() -> None:
    assert (links_for(0), links_for(4), links_for(1_000_000)) == (4, 8, MAX_LINKS)


def test_a_ghost_is_replaced_and_a_second_machine_is_not_let_in() -> None:
    assert judge_arrival(None, "a") is ArrivalVerdict.WELCOME
    assert judge_arrival("a", "a") is ArrivalVerdict.REPLACES
    assert judge_arrival("a", "b") is ArrivalVerdict.NAME_TAKEN
