"""What both ends of a link decide alike."""

from __future__ import annotations

from hive.wire.link_rules import MAX_LINKS, ArrivalVerdict, judge_arrival, links_for


def test_a_node_keeps_a_few_sockets_more_than_slots() -> None:
    assert (links_for(0), links_for(4), links_for(1_000_000)) == (4, 8, MAX_LINKS)


def test_the_same_instance_replaces_its_session_and_another_one_is_refused() -> None:
    assert judge_arrival(None, "a") is ArrivalVerdict.WELCOME
    assert judge_arrival("a", "a") is ArrivalVerdict.REPLACES
    assert judge_arrival("a", "b") is ArrivalVerdict.NAME_TAKEN
